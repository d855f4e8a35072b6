//! `netloom down`: needs no file and no state, only marks.

use clap::Args;
use serde::Serialize;

use super::context::{Lab, Target, needs_root, target};
use super::{block_on, list, ui};
use crate::apply::Run;
use crate::error::{Error, Result};
use crate::host::actuator::Actuator;
use crate::host::lab::LabHost;
use crate::host::service::own_program;
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

/// What `down --json` prints.
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
    let lab = Lab::find(&name)?;
    if sandbox::inside() || lab.info.sandbox.is_none() {
        return block_on(remove(lab, &name, arguments.json));
    }
    remove_sandbox(&lab)
}

/// The lab is taken down inside; then the sandbox goes, and with it whatever might be left.
fn remove_sandbox(lab: &Lab) -> Result<u8> {
    let Some(sandbox) = &lab.info.sandbox else { return Ok(0) };
    let held = sandbox::hold(sandbox)?;
    let inside = if sandbox::alive(sandbox) { sandbox::enter(sandbox) } else { Ok(0) };
    if let Ok(130) = inside {
        return Ok(130);
    }
    held.stop()?;
    lab.dir.remove()?;
    match inside {
        Ok(0) => {}
        Ok(code) => ui::say(&format!(
            "taking the lab down in order failed (exit {code}); its sandbox was ended, and the lab with it"
        )),
        Err(e) => ui::say(&format!("{e}; the sandbox was ended, and the lab with it")),
    }
    ui::say("the sandbox is gone");
    Ok(0)
}

async fn remove(lab: Lab, name: &str, json: bool) -> Result<u8> {
    let host = LabHost::new(&lab.state, name, &lab.file_directory(), lab.info.connect.clone(), ui::sayer());
    let existed = lab.dir.exists();
    let _lock = if existed { Some(lab.dir.lock()?) } else { None };
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
        host.remove_files()?;
    }
    if json {
        ui::json(&Document { lab: name.to_owned(), removed: plan.summary() })?;
    } else if plan.is_empty() && !existed {
        ui::say(&format!("there is no lab `{name}` on this host; nothing to remove"));
    } else {
        ui::say(&format!("lab {name} is gone: {} resources removed", plan.summary().len()));
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
    for lab in list::labs()? {
        let mut command = std::process::Command::new(own_program()?);
        command.arg("down").arg(&lab.lab);
        if json {
            command.arg("--json");
        }
        let status = command.status().map_err(|e| Error::failed("cannot run myself").caused_by(e))?;
        worst = worst.max(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(4));
    }
    Ok(worst)
}
