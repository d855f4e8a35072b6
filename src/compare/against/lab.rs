//! The lab of a real thing: netloom's own example, with the network taken out and the system's own put in its place. Guests are
//! what they always are, so that what measures them cannot tell.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use ipnetwork::IpNetwork;

use super::system::System;
use super::things::{Backend, Make, Thing};
use super::{daemon, incus, network_xml};
use crate::apply::{Interrupt, Progress, Run, ready};
use crate::error::{Error, Result};
use crate::host::actuator::Actuator;
use crate::host::lab::LabHost;
use crate::host::libvirt::domain_xml;
use crate::inventory::{Earlier, Inventory};
use crate::mode::Egress;
use crate::mode::example::{GUESTS, NETWORK};
use crate::resource::{Domain, Id, Kind, Node, Place, Resource, desired, names};
use crate::sandbox::world;
use crate::topology::{Addressing, Forward, GuestKind, Network, Protocol, Route, Topology};

/// What differs of the model: the guests' kind, and what libvirt's engine for one NIC cannot be told.
pub fn adapt(topology: &mut Topology, thing: &Thing, kind: GuestKind) {
    for guest in topology.guests.values_mut() {
        guest.kind = kind;
    }
    let Some(network) = topology.networks.get_mut(NETWORK) else { return };
    match thing.make {
        // Its gateway is the host's own.
        Make::User(Backend::Passt) => {
            network.gateway = world::ROUTER_ADDRESSES
                .into_iter()
                .zip(world::PREFIX_LENGTHS)
                .filter_map(|(address, length)| IpNetwork::new(address, length).ok())
                .collect();
        }
        // Every slirp leases the same first address. The second guest needs another to be told from the first.
        Make::User(Backend::Slirp) => {
            let own = second_addresses(network);
            let gateways: Vec<IpAddr> = network.gateway.iter().map(IpNetwork::ip).collect();
            let Some(guest) = topology.guests.get_mut(GUESTS[1]) else { return };
            guest.routes = gateways.into_iter().filter_map(default_route).collect();
            for interface in guest.nics.iter_mut().flat_map(|nic| &mut nic.interfaces) {
                interface.addressing = Addressing::Static(own.clone());
            }
        }
        _ => {}
    }
}

fn default_route(via: IpAddr) -> Option<Route> {
    let unspecified: IpAddr = if via.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    Some(Route { to: IpNetwork::new(unspecified, 0).ok()?, via })
}

/// The second lease's address, and one of the same number in the IPv6 subnet.
fn second_addresses(network: &Network) -> Vec<IpNetwork> {
    let first = network.dhcp.map(|range| range.first);
    let last_octet = match first {
        Some(IpAddr::V4(first)) => first.octets()[3],
        _ => 1,
    };
    let of = |subnet: &IpNetwork| {
        let ip: IpAddr = match subnet.network() {
            IpAddr::V4(v4) => (u32::from(v4) + u32::from(last_octet) + 1).to_be_bytes().into(),
            IpAddr::V6(v6) => (u128::from(v6) + u128::from(last_octet) + 1).to_be_bytes().into(),
        };
        IpNetwork::new(ip, subnet.prefix()).ok()
    };
    network.subnets.iter().filter_map(of).collect()
}

/// Of what the lab wants, what is the guests' own.
fn guests_alone(nodes: Vec<Node>, thing: &Thing) -> Vec<Node> {
    let of_guest = |id: &Id| id.name.split('/').next().is_some_and(|name| GUESTS.contains(&name));
    let bridged = thing.make == Make::HostBridge;
    let keep = |id: &Id| match id.kind {
        Kind::Tap | Kind::Macvlan | Kind::Vxlan => false,
        // The bridge that libvirt expects its administrator to have made.
        Kind::Bridge | Kind::Uplink => bridged,
        _ => of_guest(id),
    };
    let kept: Vec<Id> = nodes.iter().map(|node| node.id.clone()).filter(keep).collect();
    let fabric = kept.iter().filter(|id| matches!(id.kind, Kind::Bridge | Kind::Uplink));
    let fabric: Vec<Id> = fabric.cloned().collect();
    let mut out: Vec<Node> = nodes.into_iter().filter(|node| kept.contains(&node.id)).collect();
    for node in &mut out {
        node.needs.retain(|id| kept.contains(id));
        if node.id.kind == Kind::Domain {
            node.needs.extend(fabric.iter().cloned());
        }
    }
    out
}

/// Starts the system, has it make the network, and brings the guests up on it. To be called inside the sandbox.
///
/// # Errors
/// When one of these fails; what was made goes with the sandbox.
pub async fn build(
    thing: &Thing,
    topology: &Topology,
    host: &LabHost,
    patience: Duration,
    progress: Progress<'_>,
    interrupt: Interrupt,
) -> Result<()> {
    let network = topology
        .networks
        .get(NETWORK)
        .ok_or_else(|| Error::input(format!("lab `{}` has no network `{NETWORK}`", topology.lab)))?;
    let bridge = names::link(&topology.lab, "bridge", NETWORK);
    // In the state directory, two above the lab's.
    let state = host.dir().path().ancestors().nth(2).unwrap_or(host.dir().path());
    let cache = state.join("cache/libvirtd-capabilities");
    let name = thing.system.name();
    progress(&format!("starting {name}"));
    match thing.system {
        System::Libvirt => daemon::start(&cache)?,
        System::Incus => incus::start()?,
    }
    progress(&format!("{name} makes the network"));
    match thing.system {
        System::Libvirt => define(thing, network, &bridge, host)?,
        System::Incus => incus::make(network, &bridge)?,
    }
    let nodes = desired::nodes(topology, &crate::host::service::own_program()?)?;
    let real = RealHost { inner: host, thing, network, forwarded: Mutex::new(()) };
    let run = Run { actuator: &real, progress, interrupt };
    let converged = run.converge(&guests_alone(nodes, thing)).await?;
    if network.wiring.egress == Egress::Routed {
        world::add_return_routes(&network.subnets).await?;
    }
    // A real bridge may speak STP whatever ours does, as libvirt's do: nobody is heard before that has decided, and what was
    // asked until then fails at the very moment when it has.
    let mut topology = topology.clone();
    topology.networks.values_mut().for_each(|network| network.stp = true);
    ready::wait(&topology, host, &converged.inventory.places, patience, progress).await?;
    if thing.system == System::Libvirt {
        daemon::keep_capabilities(&cache);
    }
    Ok(())
}

/// Has libvirt make the network, where there is one.
fn define(thing: &Thing, network: &Network, bridge: &str, host: &LabHost) -> Result<()> {
    let uplink = network.uplink.as_deref().unwrap_or(world::HOST_LINK);
    let Some(text) = network_xml::network(thing, network, bridge, uplink)? else { return Ok(()) };
    let path = host.dir().path().join("network.xml");
    crate::host::labdir::write(&path, &text)?;
    daemon::virsh(&["net-create", &path.display().to_string()]).map(drop)
}

/// The host, with NICs of domains plugged in by libvirt.
struct RealHost<'a> {
    inner: &'a LabHost,
    thing: &'a Thing,
    network: &'a Network,
    forwarded: Mutex<()>,
}

impl RealHost<'_> {
    /// Forwards that lead to a guest.
    fn forwards(&self, guest: &str) -> Vec<&Forward> {
        let mine = |forward: &&Forward| forward.guest.as_deref() == Some(guest);
        self.network.forwards.iter().filter(mine).collect()
    }

    /// Addresses that an engine for this guest's NIC is told: one of each family, in the network's subnets.
    fn own(&self, domain: &Domain) -> Vec<IpNetwork> {
        let Make::User(backend) = self.thing.make else { return Vec::new() };
        let second = domain.guest == GUESTS[1];
        let mut own = second_addresses(self.network);
        for address in &mut own {
            let leads = |forward: &&Forward| address.contains(forward.target);
            let target = self.network.forwards.iter().find(leads).map(|forward| forward.target);
            if let Some(target) = target.filter(|_| backend == Backend::Passt && !second) {
                *address = IpNetwork::new(target, address.prefix()).unwrap_or(*address);
            }
        }
        own
    }

    async fn create_domain(&self, id: &Id, domain: &Domain, resource: &Resource) -> Result<()> {
        let mut spec = self.inner.prepare_domain(id, domain, resource).await?;
        let forwards = self.forwards(&domain.guest);
        let mac = spec.nics.first().map(|nic| nic.mac);
        let mac = mac.ok_or_else(|| Error::input(format!("guest `{}` has no NIC", domain.guest)))?;
        spec.nics.clear();
        let own = self.own(domain);
        let text = network_xml::with_nic(&domain_xml(&spec)?, self.thing, mac, &own, &forwards)?;
        self.inner.hypervisor().await?.create(&text).await?;
        if self.thing.make == Make::User(Backend::Slirp) {
            self.forward_by_monitor(domain, &forwards)?;
        }
        Ok(())
    }

    /// libvirt has no words for slirp's port forwards, QEMU has: for IPv4.
    fn forward_by_monitor(&self, domain: &Domain, forwards: &[&Forward]) -> Result<()> {
        let _one_at_a_time = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        for forward in forwards.iter().filter(|forward| forward.target.is_ipv4()) {
            let service = if forward.protocol == Protocol::Udp { "udp" } else { "tcp" };
            let words =
                format!("hostfwd_add {service}::{}-{}:{}", forward.ports.0, forward.target, forward.port);
            let said = daemon::virsh(&["qemu-monitor-command", &domain.name, "--hmp", &words])?;
            if !said.trim().is_empty() {
                return Err(Error::failed(format!("cannot forward a port to guest `{}`", domain.guest))
                    .caused_by(said.trim()));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Actuator for RealHost<'_> {
    async fn observe_after(&self, wanted: &[Node], earlier: Option<Earlier<'_>>) -> Result<Inventory> {
        self.inner.observe_after(wanted, earlier).await
    }
    async fn create(&self, id: &Id, resource: &Resource) -> Result<()> {
        match resource {
            Resource::Domain(domain) => self.create_domain(id, domain, resource).await,
            _ => self.inner.create(id, resource).await,
        }
    }
    async fn change(&self, id: &Id, wanted: &Resource, found: &Resource) -> Result<()> {
        self.inner.change(id, wanted, found).await
    }
    async fn delete(&self, id: &Id, found: &Resource) -> Result<()> {
        self.inner.delete(id, found).await
    }
    async fn delete_stray(&self, place: &Place, link: &str) -> Result<()> {
        self.inner.delete_stray(place, link).await
    }
}
