//! `netloom plan`.

use clap::Args;
use serde::Serialize;

use super::context::{Lab, Target, directory_of, load, look_ahead, target};
use super::up::Guests;
use super::{block_on, ui};
use crate::error::Result;
use crate::host::actuator::Actuator;
use crate::host::lab::LabHost;
use crate::host::service::own_program;
use crate::inventory::Inventory;
use crate::plan::{self, Summary};
use crate::resource::desired;
use crate::sandbox;
use crate::topology::GuestKind;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The lab's file, or the name of a lab that is up [default: netloom.yaml]
    #[arg(value_name = "FILE")]
    target: Option<String>,
    /// Make every guest of this kind, whatever the file says
    #[arg(long, value_name = "KIND")]
    guests: Option<Guests>,
    /// Exit with 1 when there is anything to change
    #[arg(long)]
    check: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `plan --json` prints.
#[derive(Serialize)]
struct Document {
    lab: String,
    changes: Vec<Summary>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let guests = arguments.guests.map(GuestKind::from);
    let begun = look_ahead();
    let (lab, topology, directory) = match target(arguments.target.as_deref(), guests)? {
        Target::File { path, topology } => {
            let lab = Lab::find(&topology.lab)?;
            // As `up` would: a lab that is up stays what it was brought up as.
            let topology = match (guests, lab.info.guests) {
                (None, Some(_)) => load(&path, lab.info.guests)?,
                _ => *topology,
            };
            let directory = directory_of(&path)?;
            (lab, Some(topology), directory)
        }
        Target::Lab(name) => {
            let lab = Lab::find(&name)?;
            let directory = lab.file_directory();
            (lab, None, directory)
        }
    };
    let topology = match topology {
        Some(topology) => topology,
        None => lab.topology()?,
    };
    let begun = lab.go_on(begun);
    if let Some(code) = lab.enter()? {
        return Ok(code);
    }
    let changes = block_on(async {
        let connect = lab.info.connect.clone();
        let host = LabHost::new(&lab.state, &topology.lab, &directory, connect, ui::sayer()).after(begun);
        // An ordinary user has labs in sandboxes only, and this one has none: all of it is to be made.
        let blind = !sandbox::inside() && !nix::unistd::geteuid().is_root();
        if !blind {
            host.look_ahead();
        }
        let wanted = desired::nodes(&topology, &own_program()?)?;
        let inventory = if blind { Inventory::default() } else { host.observe(&wanted).await? };
        let changes = plan::compare(&wanted, &inventory)?.summary();
        std::mem::forget((wanted, inventory)); // as `up` does
        Ok(changes)
    })?;
    let changed = !changes.is_empty();
    if arguments.json {
        ui::json(&Document { lab: topology.lab, changes })?;
    } else {
        ui::print(&text(&changes))?;
    }
    Ok(u8::from(arguments.check && changed))
}

/// One line a change: a sign, what, why.
pub(super) fn text(changes: &[Summary]) -> String {
    if changes.is_empty() {
        return "nothing to change\n".to_owned();
    }
    let mut out = String::new();
    for change in changes {
        let sign = match change.verb {
            plan::Verb::Create => "+",
            plan::Verb::Update => "~",
            plan::Verb::Replace => "±",
            plan::Verb::Delete => "-",
        };
        out.push_str(&format!(
            "{sign} {:<7} {} {}: {}\n",
            change.verb.to_string(),
            change.kind,
            change.name,
            change.reasons.join(", ")
        ));
    }
    let count = |verb| changes.iter().filter(|change| change.verb == verb).count();
    out.push_str(&format!(
        "{} to create, {} to update, {} to replace, {} to delete\n",
        count(plan::Verb::Create),
        count(plan::Verb::Update),
        count(plan::Verb::Replace),
        count(plan::Verb::Delete)
    ));
    out
}
