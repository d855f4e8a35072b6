//! `netloom status`: what runs, its addresses, and whether it differs from the lab's file.

use std::collections::HashMap;

use clap::Args;
use serde::Serialize;

use super::context::{Lab, Target, target};
use super::up::guest_table;
use super::{block_on, list, plan::text, ui};
use crate::apply::ready::{self, ReadyGuest};
use crate::error::Result;
use crate::host::actuator::Actuator;
use crate::host::lab::LabHost;
use crate::host::links::LinkState;
use crate::host::service::own_program;
use crate::inventory::Inventory;
use crate::plan::{self, Summary};
use crate::report;
use crate::resource::{Id, Kind, Place, desired, names};
use crate::sandbox;
use crate::topology::GuestKind;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A lab's name or file; without it, every lab of this host
    #[arg(value_name = "LAB")]
    target: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `status LAB --json` prints; without LAB, a list of these.
#[derive(Serialize)]
struct Document {
    lab: String,
    sandbox: bool,
    networks: Vec<NetworkStatus>,
    guests: Vec<GuestStatus>,
    /// What differs from the lab's file; empty when nothing does.
    drift: Vec<Summary>,
}

#[derive(Serialize)]
struct NetworkStatus {
    name: String,
    mode: String,
    /// Kernel name of its bridge.
    bridge: String,
    up: bool,
    host_addresses: Vec<ipnetwork::IpNetwork>,
}

#[derive(Serialize)]
struct GuestStatus {
    #[serde(flatten)]
    guest: ReadyGuest,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let Some(wanted) = arguments.target.as_deref() else { return every(arguments.json) };
    let name = match target(Some(wanted), None)? {
        Target::File { topology, .. } => topology.lab,
        Target::Lab(name) => name,
    };
    let lab = Lab::find(&name)?;
    let text = lab.text()?;
    if let Some(code) = lab.enter()? {
        return Ok(code);
    }
    let document = block_on(look(&lab, &text))?;
    if arguments.json {
        ui::json(&document)?;
    } else {
        show(&document)?;
    }
    Ok(0)
}

async fn look(lab: &Lab, text: &str) -> Result<Document> {
    let connect = lab.info.connect.clone();
    let host = LabHost::new(&lab.state, lab.dir.lab(), &lab.file_directory(), connect, ui::sayer());
    host.look_ahead();
    let topology = lab.read(text)?;
    let wanted = desired::nodes(&topology, &own_program()?)?;
    let inventory = host.observe(&wanted).await?;
    let drift = plan::compare(&wanted, &inventory)?.summary();
    let mut guests = Vec::new();
    for guest in topology.guests.values() {
        let running = runs(&inventory, guest.kind, &guest.name);
        let seen = match ready::seen(&topology, &inventory.places, guest) {
            None if running => ready::look(&topology, &host, guest).await.ok(),
            seen => seen,
        };
        let (agent, interfaces) = seen.map(|seen| (seen.agent, seen.interfaces)).unwrap_or_default();
        guests.push(GuestStatus {
            guest: ReadyGuest { name: guest.name.clone(), kind: guest.kind, agent, interfaces },
            running,
            console: inventory.domains.get(&guest.name).and_then(|domain| domain.console.clone()),
        });
    }
    let links: HashMap<&str, &LinkState> = (inventory.places.get(&Place::Host).into_iter())
        .flat_map(|place| place.links.values())
        .map(|link| (link.name.as_str(), link))
        .collect();
    let networks = topology
        .networks
        .values()
        .map(|network| {
            let bridge = names::link(&topology.lab, "bridge", &network.name);
            let link = links.get(bridge.as_str()).copied();
            NetworkStatus {
                name: network.name.clone(),
                mode: network.mode.clone(),
                up: link.is_some_and(|link| link.up),
                host_addresses: link.map(Inventory::addresses).unwrap_or_default(),
                bridge,
            }
        })
        .collect();
    drop(links);
    let document =
        Document { lab: topology.lab.clone(), sandbox: sandbox::inside(), networks, guests, drift };
    std::mem::forget((topology, wanted, inventory)); // as `up` does
    Ok(document)
}

fn runs(inventory: &Inventory, kind: GuestKind, guest: &str) -> bool {
    match kind {
        GuestKind::Vm => inventory.domains.get(guest).is_some_and(|domain| domain.running),
        GuestKind::Namespace => inventory.found.contains_key(&Id::new(Kind::Namespace, guest)),
    }
}

fn show(document: &Document) -> Result<()> {
    let place = if document.sandbox { "in a sandbox" } else { "on the host" };
    let running = document.guests.iter().filter(|guest| guest.running).count();
    let drift = match document.drift.len() {
        0 => "no drift".to_owned(),
        n => format!("{n} differences from its file"),
    };
    ui::print(&format!(
        "lab {} {place}: {running} of {} guests run, {drift}\n\n",
        document.lab,
        document.guests.len()
    ))?;
    let rows: Vec<Vec<String>> = document
        .networks
        .iter()
        .map(|network| {
            let addresses: Vec<String> = network.host_addresses.iter().map(ToString::to_string).collect();
            vec![
                network.name.clone(),
                network.mode.clone(),
                network.bridge.clone(),
                if network.up { "up" } else { "down" }.to_owned(),
                if addresses.is_empty() { "-".to_owned() } else { addresses.join(" ") },
            ]
        })
        .collect();
    ui::print(&report::table(&["NETWORK", "MODE", "BRIDGE", "STATE", "HOST ADDRESSES"], &rows))?;
    ui::print("\n")?;
    let guests: Vec<ReadyGuest> = document.guests.iter().map(|guest| guest.guest.clone()).collect();
    ui::print(&guest_table(&guests))?;
    for guest in document.guests.iter().filter(|guest| !guest.running) {
        ui::print(&format!("{} does not run\n", guest.guest.name))?;
    }
    for guest in document.guests.iter().filter(|guest| guest.guest.agent == Some(false)) {
        let name = &guest.guest.name;
        ui::print(&format!(
            "{name} has no guest agent that answers: its addresses are those the host sees\n"
        ))?;
    }
    if !document.drift.is_empty() {
        ui::print(&format!("\n{}", text(&document.drift)))?;
    }
    Ok(())
}

/// Every lab, each looked at by a process of its own, since each may have a sandbox to enter.
fn every(json: bool) -> Result<u8> {
    let mut documents = Vec::new();
    let labs = list::labs()?;
    if labs.is_empty() && !json {
        ui::say("there are no labs on this host");
    }
    for lab in labs {
        let (code, document) = list::run_for(&["status", &lab.lab], json)?;
        let unknown = || serde_json::json!({ "lab": lab.lab, "error": "its status cannot be read" });
        documents.push(document.filter(|_| code == 0).unwrap_or_else(unknown));
    }
    if json {
        ui::json(&documents)?;
    }
    Ok(0)
}
