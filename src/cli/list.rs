//! `netloom list`: every lab of this host, by directory and by mark.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{block_on, ui};
use crate::error::{Context, Result};
use crate::host::labdir::{LabDir, state_directory};
use crate::host::links::{Links, lab_of_altname};
use crate::host::service::own_program;
use crate::host::{netns, nft, service, sysctl};
use crate::report;
use crate::resource::{Place, mark, names};
use crate::sandbox;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A lab as listed (`--json`: these names).
#[derive(Debug, Clone, Serialize)]
pub(super) struct Listed {
    /// Its name.
    pub(super) lab: String,
    /// `host`, `sandbox`, or `gone` for a directory whose sandbox has ended.
    pub(super) place: &'static str,
    /// Its directory, where it has one.
    pub(super) directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let labs = labs()?;
    if arguments.json {
        ui::json(&labs)?;
    } else if labs.is_empty() {
        ui::say("there are no labs on this host");
    } else {
        let rows: Vec<Vec<String>> = labs
            .iter()
            .map(|lab| {
                let directory =
                    lab.directory.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
                vec![lab.lab.clone(), lab.place.to_owned(), directory]
            })
            .collect();
        ui::print(&report::table(&["LAB", "WHERE", "DIRECTORY"], &rows))?;
    }
    Ok(0)
}

/// Every lab: those with a directory, and those of which only marked objects or a sandbox are left.
pub(super) fn labs() -> Result<Vec<Listed>> {
    let state = state_directory()?;
    let mut found = BTreeMap::new();
    let sandboxes = sandbox::list();
    for name in LabDir::list(&state) {
        let dir = LabDir::new(&state, &name);
        let runs = sandbox::inside() || sandboxes.iter().any(|(directory, _)| directory == dir.path());
        // A damaged record says nothing; the sandbox itself does.
        let had = dir.info().is_ok_and(|info| info.sandbox.is_some());
        let place = match (runs, had) {
            (true, _) => "sandbox",
            (false, true) => "gone",
            (false, false) => "host",
        };
        let directory = Some(dir.path().to_owned());
        found.insert(name.clone(), Listed { lab: name, place, directory });
    }
    for (directory, _) in sandboxes {
        let Some(name) = directory.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
            continue;
        };
        if names::is_lab(&name) && LabDir::new(&state, &name).path() == directory {
            let lab = name.clone();
            found.entry(name).or_insert(Listed { lab, place: "sandbox", directory: None });
        }
    }
    for name in marked()? {
        let lab = name.clone();
        found.entry(name).or_insert(Listed { lab, place: "host", directory: None });
    }
    Ok(found.into_values().collect())
}

/// Runs a verb of netloom for one lab in a process of its own, as quiet as this one; returns its exit code and, with
/// `json`, the document it printed, where it printed one.
pub(super) fn run_for(arguments: &[&str], json: bool) -> Result<(u8, Option<serde_json::Value>)> {
    let mut command = std::process::Command::new(own_program()?);
    command.args(arguments);
    if ui::is_quiet() {
        command.arg("--quiet");
    }
    let failed = || "cannot run myself".to_owned();
    if !json {
        let status = command.status().context(failed)?;
        return Ok((code(status), None));
    }
    let output = command.arg("--json").stderr(std::process::Stdio::inherit()).output().context(failed)?;
    Ok((code(output.status), serde_json::from_slice(&output.stdout).ok()))
}

fn code(status: std::process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(4)
}

/// Labs in the marks of the host's links, namespaces, tables and processes, and in the record of its settings.
pub(super) fn marked() -> Result<Vec<String>> {
    let mut names: Vec<String> = block_on(async {
        let state = Links::new("").observe(&Place::Host).await?;
        let links = state.links.values();
        let uplinks = links.clone().flat_map(|link| &link.altnames).filter_map(|name| lab_of_altname(name));
        let ours = links.filter_map(|link| mark::read(&link.alias)).map(|(lab, _)| lab);
        Ok(ours.chain(uplinks).collect())
    })?;
    names.extend(sysctl::holders());
    names.extend(service::scan().into_iter().map(|process| process.lab));
    names.extend(
        netns::list().iter().filter_map(|name| names::read_netns(name).map(|(lab, _)| lab.to_owned())),
    );
    // Reading tables needs privilege, and nft; without them there is nothing of ours to find either.
    names.extend(nft::labs().unwrap_or_default());
    Ok(names)
}
