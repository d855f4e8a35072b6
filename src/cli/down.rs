//! `netloom down`: needs no file and no state, only marks.

use clap::Args;
use serde::Serialize;

use super::context::{Lab, Target, needs_root, target};
use super::up::Signals;
use super::{block_on, list, ui};
use crate::apply::Run;
use crate::error::{Error, Kind, Result};
use crate::host::actuator::Actuator;
use crate::host::lab::LabHost;
use crate::host::labdir::{LabDir, state_directory};
use crate::host::run;
use crate::inventory::Inventory;
use crate::plan::{self, Summary};
use crate::sandbox;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A lab's name, or its file [default: netloom.yaml]
    #[arg(value_name = "LAB")]
    target: Option<String>,
    /// Remove every lab of this host
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `down --json` prints; with `--all`, a list of these.
#[derive(Serialize)]
struct Document {
    lab: String,
    removed: Vec<Summary>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    if arguments.all {
        return all(arguments.json);
    }
    let name = match target(arguments.target.as_deref(), None)? {
        Target::File { topology, .. } => topology.lab,
        Target::Lab(name) => name,
    };
    let lab = Lab::find_anyway(&name)?;
    // A record that names a sandbox may be wrong, and root's lab be on the host: the marks know.
    let recorded = lab.info.sandbox.is_some() && (lab.sandbox_lives() || !nix::unistd::geteuid().is_root());
    if sandbox::inside() || !recorded {
        return block_on(remove(lab, &name, arguments.json));
    }
    remove_sandbox(&lab, arguments.json)
}

/// The lab is taken down inside; then the sandbox goes, and with it whatever might be left.
fn remove_sandbox(lab: &Lab, json: bool) -> Result<u8> {
    let Some(sandbox) = &lab.info.sandbox else { return Ok(0) };
    if lab.dir.exists() {
        // Ending the sandbox would end another netloom that works in it. Free again for the one inside.
        drop(lab.dir.lock()?);
    }
    let held = sandbox::hold(sandbox)?;
    let inside = if sandbox::alive(sandbox) { Some(sandbox::enter(sandbox)) } else { None };
    if let Some(Ok(130)) = inside {
        return Ok(130);
    }
    held.stop()?;
    lab.dir.remove()?;
    let failed = match &inside {
        Some(Ok(0)) => None,
        Some(Ok(code)) => Some(format!("taking the lab down in order failed (exit {code})")),
        Some(Err(e)) => Some(e.to_string()),
        None => Some("its sandbox had ended already".to_owned()),
    };
    match failed {
        Some(why) => {
            ui::say(&format!("{why}; the sandbox is gone, and the lab with it"));
            if json {
                ui::json(&Document { lab: lab.dir.lab().to_owned(), removed: Vec::new() })?;
            }
        }
        None => ui::say("the sandbox is gone"),
    }
    Ok(0)
}

async fn remove(lab: Lab, name: &str, json: bool) -> Result<u8> {
    let host = LabHost::new(&lab.state, name, &lab.file_directory(), lab.info.connect.clone(), ui::sayer());
    let existed = lab.dir.exists();
    if !existed && !nix::unistd::geteuid().is_root() {
        // Without privilege there are labs in sandboxes only, and none has this name.
        return absent(name, json);
    }
    // Also where there is no directory: another netloom may make it now, and build what would then be taken for a rest.
    let _lock = if existed || nix::unistd::geteuid().is_root() { Some(lab.dir.lock()?) } else { None };
    tokio::spawn(finish_first(name.to_owned()));
    let inventory = host.observe(&[]).await?;
    let plan = plan::removal(&inventory);
    if !plan.is_empty() && !nix::unistd::geteuid().is_root() {
        return Err(needs_root());
    }
    let (_keep, interrupt) = tokio::sync::watch::channel(false);
    let run = Run { actuator: &host, progress: &ui::say, interrupt };
    let done = run.tear_down(&plan).await;
    let left = host.observe(&[]).await?;
    refuse_rest(name, &left, done)?;
    // Inside a sandbox the directory still holds the way to it; whoever ends the sandbox removes it.
    if !sandbox::inside() {
        host.remove_files().await?;
    }
    if plan.is_empty() && !existed {
        return absent(name, json);
    }
    ui::say(&format!("lab {name} is gone: {} resources removed", plan.summary().len()));
    if json {
        ui::json(&Document { lab: name.to_owned(), removed: plan.summary() })?;
    }
    Ok(0)
}

/// A lab half taken down helps nobody, and an uplink half given back cuts the host off: the first signal that asks to end
/// is answered by going on, the second by ending as it stands.
async fn finish_first(lab: String) {
    let Ok(mut signals) = Signals::new() else { return };
    signals.next().await;
    ui::say(&format!(
        "removing what is left of it; once more ends netloom at once, and another `netloom down {lab}` does the rest"
    ));
    signals.next().await;
    std::process::exit(i32::from(Kind::Interrupted.exit_code()));
}

fn absent(name: &str, json: bool) -> Result<u8> {
    ui::say(&format!("there is no lab `{name}` on this host; nothing to remove"));
    if json {
        ui::json(&Document { lab: name.to_owned(), removed: Vec::new() })?;
    }
    Ok(0)
}

fn refuse_rest(name: &str, left: &Inventory, done: Result<()>) -> Result<()> {
    done?;
    let mut rest: Vec<String> = left.found.keys().map(ToString::to_string).collect();
    rest.extend(left.strays.iter().map(|(_, link)| format!("link {link}")));
    if rest.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("lab `{name}` is not gone"))
        .caused_by(format!("still there: {}", rest.join(", ")))
        .hint("run `netloom down` again"))
}

/// Each lab in a process of its own, since each may have its own sandbox to enter.
fn all(json: bool) -> Result<u8> {
    let mut worst = 0;
    let mut documents = Vec::new();
    for lab in list::labs()? {
        let (code, document) = list::run_for(&["down", &lab.lab], json)?;
        documents.extend(document);
        worst = worst.max(code);
    }
    if !sandbox::inside() {
        LabDir::tidy(&state_directory()?)?;
        if nix::unistd::geteuid().is_root() {
            run::tidy()?;
        }
    }
    if json {
        ui::json(&documents)?;
    }
    Ok(worst)
}
