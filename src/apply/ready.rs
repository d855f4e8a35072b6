//! Waiting until guests are ready: a VM's agent answers, a DHCP lease or an advertised prefix has arrived. A VM whose
//! image may have no agent may also be seen to be ready (`sight`). Nothing sleeps for a fixed time; what is waited for is
//! asked for again, a little less often each time.

pub(crate) mod sight;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::Progress;
use crate::error::{Error, Result};
use crate::guest::seed::console;
use crate::host::agent;
use crate::host::domains::Domains;
use crate::host::lab::LabHost;
use crate::host::links::{LinkState, PlaceState};
use crate::inventory::Inventory;
use crate::lease;
use crate::resource::{Place, names};
use crate::topology::{Addressing, Guest, GuestKind, Image, Interface, Topology};
use sight::Sight;

/// Where a guest says what became of its seed.
const STATE: &str = "/run/netloom/state";

/// A guest that is ready (`--json`: these names).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadyGuest {
    /// Name.
    pub name: String,
    /// What it is made of.
    pub kind: GuestKind,
    /// Of a VM: whether its guest agent answers. Else its addresses are those that the host sees by ARP and ND.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<bool>,
    /// Its interfaces in the file's order.
    pub interfaces: Vec<ReadyInterface>,
}

/// An interface of a guest with its present addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadyInterface {
    /// Kernel name in the guest.
    pub name: String,
    /// How the file refers to it: `wan`, `core.lan`.
    pub network: String,
    /// Addresses with prefix length, without link-local ones.
    pub addresses: Vec<IpNetwork>,
}

/// What can be seen of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As in [`ReadyGuest`].
    pub agent: Option<bool>,
    /// Its interfaces with the addresses they have now.
    pub interfaces: Vec<ReadyInterface>,
}

/// Waits for every guest, side by side, each for at most `patience`. Guests that are namespaces are first looked for in
/// `places`, as they were seen last.
///
/// # Errors
/// Exit 4 naming the guest and what it lacks.
pub async fn wait(
    topology: &Topology,
    host: &LabHost,
    places: &BTreeMap<Place, PlaceState>,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<Vec<ReadyGuest>> {
    let deadline = Instant::now() + patience;
    settle(topology, host, deadline, progress).await?;
    let wait = |guest| async move {
        match seen(topology, places, guest).filter(|seen| missing(host, guest, &seen.interfaces).is_empty()) {
            Some(seen) => Ok(is_ready(topology, guest, seen, progress)),
            None => wait_for(topology, host, guest, deadline, progress).await,
        }
    };
    try_join_all(topology.guests.values().map(wait)).await
}

/// Waits until STP has decided about every port of the networks that speak it: nobody is heard before.
async fn settle(
    topology: &Topology,
    host: &LabHost,
    deadline: Instant,
    progress: Progress<'_>,
) -> Result<()> {
    let networks = topology.networks.values().filter(|network| network.stp);
    let bridges: Vec<String> =
        networks.map(|network| names::link(&topology.lab, "bridge", &network.name)).collect();
    if bridges.is_empty() {
        return Ok(());
    }
    let mut said = false;
    loop {
        let state = host.links().observe(&Place::Host).await?;
        let ours =
            |link: &LinkState| state.name(link.controller).is_some_and(|b| bridges.iter().any(|o| o == b));
        if !state.links.values().any(|link| link.settling && ours(link)) {
            return Ok(());
        }
        if !said {
            progress("waiting for STP");
            said = true;
        }
        if Instant::now() > deadline {
            return Err(Error::failed("STP did not settle in time"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_for(
    topology: &Topology,
    host: &LabHost,
    guest: &Guest,
    deadline: Instant,
    progress: Progress<'_>,
) -> Result<ReadyGuest> {
    if guest.kind == GuestKind::Vm
        && let Some((interfaces, by)) = boot(topology, host, guest, deadline, progress).await?
    {
        progress(&format!("{} is ready: {by}; no guest agent", guest.name));
        let (name, kind, agent) = (guest.name.clone(), guest.kind, Some(false));
        return Ok(ReadyGuest { name, kind, agent, interfaces });
    }
    let mut pause = Duration::from_millis(10);
    let mut said = String::new();
    loop {
        let seen = look(topology, host, guest).await?;
        let missing = missing(host, guest, &seen.interfaces);
        if missing.is_empty() {
            return Ok(is_ready(topology, guest, seen, progress));
        }
        let wants = missing.join(", ");
        if wants != said {
            progress(&format!("waiting for {}: {wants}", guest.name));
            said.clone_from(&wants);
        }
        if Instant::now() > deadline {
            return Err(Error::failed(format!("guest `{}` did not become ready: no {wants}", guest.name))
                .hint("is there a DHCP server or router on that network? `netloom up --keep` leaves the lab for a look"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}

fn is_ready(topology: &Topology, guest: &Guest, seen: Seen, progress: Progress<'_>) -> ReadyGuest {
    let Seen { agent, interfaces } = seen;
    progress(&format!("{} is ready", guest.name));
    for astray in astray(topology, guest, &interfaces) {
        progress(&astray);
    }
    ReadyGuest { name: guest.name.clone(), kind: guest.kind, agent, interfaces }
}

/// Waits until a VM's agent says that the guest is configured; or, with an image of the user's, until the guest is seen
/// to be ready without one: its addresses, and what tells. The built-in image always has an agent.
async fn boot(
    topology: &Topology,
    host: &LabHost,
    guest: &Guest,
    deadline: Instant,
    progress: Progress<'_>,
) -> Result<Option<(Vec<ReadyInterface>, &'static str)>> {
    progress(&format!("waiting for {}: guest agent", guest.name));
    let name = names::domain(&topology.lab, &guest.name);
    let log = host.dir().guest(&guest.name).join("console.log");
    let left = deadline.saturating_duration_since(Instant::now());
    let say = |line: &str| progress(&format!("waiting for {}: {line}", guest.name));
    let hypervisor = host.hypervisor().await?;
    let answers = agent::wait_ready(hypervisor.as_ref(), &name, left, Some(&log), say);
    if guest.image == Image::BuiltIn {
        answers.await?;
    } else {
        let sight = Sight::open(topology, host, guest).await?;
        tokio::select! {
            biased;
            answered = answers => match answered {
                Err(silence) if Instant::now() >= deadline => return Err(sight.explain(silence).await),
                other => other?,
            },
            seen = sight.ready() => return seen.map(Some),
        }
    }
    configured(hypervisor.as_ref(), &name, guest, &log, deadline).await?;
    Ok(None)
}

fn not_configured(guest: &Guest, reasons: &str) -> Error {
    Error::failed(format!("guest `{}` could not configure itself", guest.name)).caused_by(reasons)
}

/// Waits until the guest says that its seed was carried out: `ready`, or `failed` and why.
async fn configured(
    hypervisor: &dyn Domains,
    name: &str,
    guest: &Guest,
    log: &Path,
    deadline: Instant,
) -> Result<()> {
    let command = ["cat", STATE].map(str::to_owned);
    let mut pause = Duration::from_millis(20);
    loop {
        // A cloud image's agent can go and come while the guest sets itself up; some read no files and run commands.
        let said = match agent::read_file(hypervisor, name, STATE).await {
            Ok(text) => Ok(text),
            Err(_) => agent::exec(hypervisor, name, &command, None, Duration::from_secs(20))
                .await
                .map(|out| out.stdout),
        };
        let text = said.as_ref().map(|text| String::from_utf8_lossy(text).trim().to_owned());
        match text.as_deref() {
            Ok("ready") => return Ok(()),
            Ok(text) if text.starts_with("failed") => {
                return Err(not_configured(guest, text.trim_start_matches("failed").trim()));
            }
            // Some distributions' agents run no commands; such a guest says the same on its console.
            Err(_) if matches!(console::progress(log), Some(console::Progress::Ready { .. })) => {
                return Ok(());
            }
            _ if Instant::now() < deadline => {}
            _ => {
                let error =
                    Error::failed(format!("guest `{}` does not say that it is configured", guest.name))
                        .hint("its image must carry out a NoCloud seed, as cloud-init does");
                return Err(said.err().into_iter().fold(error, Error::caused_by));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_secs(1));
    }
}

/// What can be seen of a guest now: from inside where it can be asked, else from the host.
///
/// # Errors
/// When the guest cannot be asked, nor be seen from the host.
pub async fn look(topology: &Topology, host: &LabHost, guest: &Guest) -> Result<Seen> {
    if guest.kind == GuestKind::Namespace {
        let place = Place::Netns(names::netns(&topology.lab, &guest.name));
        return Ok(in_namespace(guest, &host.links().observe(&place).await?));
    }
    let name = names::domain(&topology.lab, &guest.name);
    let hypervisor = host.hypervisor().await?;
    match agent::addresses(hypervisor.as_ref(), &name).await {
        Ok(found) => {
            let seen: Vec<_> = found.into_iter().map(|found| (found.name, found.addresses)).collect();
            Ok(Seen { agent: Some(true), interfaces: ready_interfaces(guest, &seen) })
        }
        Err(e) if guest.image == Image::BuiltIn => Err(e),
        Err(_) => {
            let interfaces = Sight::open(topology, host, guest).await?.glance().await?;
            Ok(Seen { agent: Some(false), interfaces })
        }
    }
}

/// What was seen of a guest that is a namespace when its place was looked at last.
#[must_use]
pub fn seen(topology: &Topology, places: &BTreeMap<Place, PlaceState>, guest: &Guest) -> Option<Seen> {
    let place = Place::Netns(names::netns(&topology.lab, &guest.name));
    (guest.kind == GuestKind::Namespace)
        .then(|| places.get(&place))
        .flatten()
        .map(|state| in_namespace(guest, state))
}

fn in_namespace(guest: &Guest, state: &PlaceState) -> Seen {
    let seen: Vec<_> =
        state.links.values().map(|link| (link.name.clone(), Inventory::addresses(link))).collect();
    Seen { agent: None, interfaces: ready_interfaces(guest, &seen) }
}

/// A guest's interfaces with the addresses that were seen by interface name.
fn ready_interfaces(guest: &Guest, seen: &[(String, Vec<IpNetwork>)]) -> Vec<ReadyInterface> {
    let interface = |interface: &Interface| ReadyInterface {
        name: interface.name.clone(),
        network: interface.reference.clone(),
        addresses: seen
            .iter()
            .filter(|(name, _)| *name == interface.name)
            .flat_map(|(_, addresses)| addresses.iter().copied())
            .filter(|address| !is_link_local(address))
            .collect(),
    };
    guest.nics.iter().flat_map(|nic| &nic.interfaces).map(interface).collect()
}

fn is_link_local(address: &IpNetwork) -> bool {
    match address {
        IpNetwork::V4(address) => address.ip().is_link_local() || address.ip().is_loopback(),
        IpNetwork::V6(address) => address.ip().is_unicast_link_local() || address.ip().is_loopback(),
    }
}

/// What a guest still lacks, in words.
fn missing(host: &LabHost, guest: &Guest, seen: &[ReadyInterface]) -> Vec<String> {
    let mut out = Vec::new();
    for interface in guest.nics.iter().flat_map(|nic| &nic.interfaces) {
        let Addressing::Dynamic { v4, v6 } = interface.addressing else { continue };
        let has = |is: fn(&IpNetwork) -> bool| {
            seen.iter().any(|s| s.name == interface.name && s.addresses.iter().any(is))
        };
        if v4 && (!has(IpNetwork::is_ipv4) || lease_awaited(host, guest, interface, seen)) {
            out.push(format!("DHCP lease on {}", interface.reference));
        }
        if v6 && !has(IpNetwork::is_ipv6) {
            out.push(format!("advertised IPv6 prefix on {}", interface.reference));
        }
    }
    out
}

/// Whether the DHCP client of a guest that is a namespace is still at it. A VM's own is asked by its agent.
fn lease_awaited(host: &LabHost, guest: &Guest, interface: &Interface, seen: &[ReadyInterface]) -> bool {
    let client = names::dhcp_client(&guest.name, &interface.name);
    let record = host.dir().service(&client).join(lease::RECORD_FILE);
    let addresses = seen.iter().find(|seen| seen.name == interface.name).map(|seen| &*seen.addresses);
    guest.kind == GuestKind::Namespace && lease::awaited(&record, addresses.unwrap_or_default())
}

/// Forwards that lead to an address which the guest was expected to form from its MAC address, and has not; in words.
fn astray(topology: &Topology, guest: &Guest, seen: &[ReadyInterface]) -> Vec<String> {
    let has = |ip: IpAddr| seen.iter().flat_map(|s| &s.addresses).any(|address| address.ip() == ip);
    // A forward leads to a guest of its own network.
    let networks = guest.nics.iter().filter_map(|nic| topology.networks.get(&nic.network));
    let forwards = networks.flat_map(|network| &network.forwards);
    let targets = forwards.filter(|f| f.guest.as_ref() == Some(&guest.name) && !has(f.target));
    let targets: BTreeSet<IpAddr> = targets.map(|forward| forward.target).collect();
    let say = |ip: IpAddr| {
        format!(
            "{} does not have the address {ip}, which port forwards lead to: give its NIC an `address`",
            guest.name
        )
    };
    targets.into_iter().map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::LoadOptions;

    #[test]
    fn a_forward_to_an_address_that_the_guest_has_not_is_said() {
        let text = "
lab: l
networks:
  wan: { mode: nat, subnet: [10.0.0.0/24, \"fd00::/64\"], forward: [{ service: tcp/80, to: web }] }
guests:
  web: { nics: [{ network: wan }], serve: [tcp/80] }
  other: { nics: [{ network: wan }] }
";
        let topology = crate::topology::load("l.yaml", text, &LoadOptions::default()).unwrap();
        let targets: Vec<IpAddr> = topology.networks["wan"].forwards.iter().map(|f| f.target).collect();
        assert_eq!(targets.len(), 2);
        let seen = |addresses: &[IpAddr]| {
            vec![ReadyInterface {
                name: "eth0".into(),
                network: "wan".into(),
                addresses: addresses.iter().map(|ip| IpNetwork::new(*ip, 24).unwrap()).collect(),
            }]
        };
        let web = &topology.guests["web"];
        assert_eq!(astray(&topology, web, &seen(&targets)), Vec::<String>::new());
        let private: IpAddr = "fd00::1234".parse().unwrap();
        let said = astray(&topology, web, &seen(&[targets[0], private]));
        assert!(said.len() == 1 && said[0].contains(&targets[1].to_string()), "{said:?}");
        assert_eq!(astray(&topology, &topology.guests["other"], &seen(&[])), Vec::<String>::new());
    }
}
