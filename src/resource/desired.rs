//! From the checked model to the resources a lab wants, each with what must exist before it. No I/O.

mod cable;
mod filter;
mod network;
mod nic;
mod router;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::{
    BRIDGE_RULESET, Domain, Id, Kind, Node, Place, Port, Resource, Routes, Ruleset, RulesetFamily, Service,
    Sysctls, names,
};
use crate::error::Result;
use crate::guest::config::{self, GuestConfig};
use crate::mode;
use crate::topology::{Addressing, Guest, GuestKind, Network, Nic, Pvlan, Route, Topology};
use crate::{firewall, lease};

/// Everything a lab wants, in no particular order. `program` is netloom's own path, for the services it starts of
/// itself.
///
/// # Errors
/// When a firewall's policy cannot be compiled.
pub fn nodes(topology: &Topology, program: &Path) -> Result<Vec<Node>> {
    let mut nics: HashMap<&str, Vec<(&Guest, &Nic)>> = HashMap::new();
    for guest in topology.guests.values() {
        for nic in &guest.nics {
            nics.entry(&nic.network).or_default().push((guest, nic));
        }
    }
    let mut lab = Desired { topology, program, nics, nodes: Vec::new(), tables: Vec::new() };
    lab.host();
    lab.barrier();
    lab.tables = lab.present(&[Id::new(Kind::Ruleset, HOST), Id::new(Kind::Ruleset, BRIDGE_RULESET)]);
    for network in topology.networks.values() {
        lab.network(network);
    }
    lab.switch_links();
    for guest in topology.guests.values() {
        lab.guest(guest)?;
    }
    Ok(lab.nodes)
}

struct Desired<'a> {
    topology: &'a Topology,
    program: &'a Path,
    /// By network.
    nics: HashMap<&'a str, Vec<(&'a Guest, &'a Nic)>>,
    nodes: Vec<Node>,
    /// The host's tables, of those that are wanted.
    tables: Vec<Id>,
}

/// What a guest's dnsmasq is told beyond its zones when it runs from a service's directory.
const FILES: &str = "dhcp-leasefile={dir}/leases\npid-file=\n";

/// Name of what belongs to the host rather than to a guest.
const HOST: &str = "host";

impl Desired<'_> {
    fn add(&mut self, kind: Kind, name: impl Into<String>, resource: Resource, needs: Vec<Id>) -> Id {
        let id = Id::new(kind, name);
        self.nodes.push(Node { id: id.clone(), resource, needs });
        id
    }

    fn lab(&self) -> &str {
        &self.topology.lab
    }

    fn bridge_link(&self, network: &str) -> String {
        names::link(self.lab(), "bridge", network)
    }

    /// Those of `ids` that are wanted.
    fn present(&self, ids: &[Id]) -> Vec<Id> {
        ids.iter().filter(|id| self.nodes.iter().any(|node| node.id == **id)).cloned().collect()
    }

    /// What a port of a network's bridge needs. The tables, too: on a bridge that runs already, one that comes up before a
    /// changed table names it would pass what the table is there to stop.
    fn plugged(&self, network: &str) -> Vec<Id> {
        let mut needs = self.tables.clone();
        needs.push(Id::new(Kind::Bridge, network));
        needs
    }

    fn guest(&mut self, guest: &Guest) -> Result<()> {
        let compiled = match &guest.firewall {
            Some(_) => Some(firewall::compile(self.topology, guest)?),
            None => None,
        };
        let config = config::describe(self.topology, guest, compiled);
        match guest.kind {
            GuestKind::Vm => self.vm(guest, config),
            GuestKind::Namespace => self.namespace(guest, &config),
        }
        Ok(())
    }

    fn vm(&mut self, guest: &Guest, config: GuestConfig) {
        let mut needs = Vec::new();
        let mut nics = Vec::new();
        for nic in &guest.nics {
            let (id, link) = self.vm_nic(guest, nic);
            nics.push((nic.mac, link, nic.mtu));
            needs.push(id);
        }
        let domain = Domain {
            guest: guest.name.clone(),
            name: names::domain(self.lab(), &guest.name),
            memory_mib: guest.memory_mib,
            cpus: guest.cpus,
            nics,
            image: guest.image.clone(),
            config,
        };
        self.add(Kind::Domain, &guest.name, Resource::Domain(Box::new(domain)), needs);
    }

    fn port(&self, nic: &Nic) -> Port {
        // Ports of a community hear each other, which the kernel's flag cannot say: a filter on the bridge does.
        let isolated = nic.pvlan == Pvlan::Isolated;
        Port { bridge: self.bridge_link(&nic.network), attach: nic.attach.clone(), isolated }
    }

    /// Ruleset and settings come before the first link, so that a firewall never forwards an unfiltered packet.
    fn namespace(&mut self, guest: &Guest, config: &GuestConfig) {
        let netns = names::netns(self.lab(), &guest.name);
        let place = Place::Netns(netns.clone());
        let namespace = self.add(Kind::Namespace, &guest.name, Resource::Namespace(netns), Vec::new());
        let mut first = vec![namespace.clone()];
        if let Some(script) = &config.ruleset {
            let table = firewall::TABLE.to_owned();
            let (place, script, ports) = (place.clone(), script.clone(), Vec::new());
            let ruleset = Ruleset { place, family: RulesetFamily::Inet, table, script, ports };
            first.push(self.add(
                Kind::Ruleset,
                &guest.name,
                Resource::Ruleset(ruleset),
                vec![namespace.clone()],
            ));
        }
        let sysctls = Sysctls { place: place.clone(), values: guest_sysctls(config) };
        first.push(self.add(Kind::Sysctls, &guest.name, Resource::Sysctls(sysctls), first.clone()));
        let mut interfaces = Vec::new();
        for nic in &guest.nics {
            interfaces.extend(self.namespace_nic(guest, nic, &place, &first));
        }
        let mut routes: Vec<Route> = guest.routes.clone();
        routes.sort_by_key(|route| (route.to, route.via));
        let routes = Routes { place: place.clone(), routes };
        self.add(Kind::Routes, &guest.name, Resource::Routes(routes), interfaces.clone());
        self.namespace_services(guest, config, &place, &namespace, &interfaces);
    }

    /// What a DHCP client on a network may have been told, by the network and by the lab's firewalls: when that
    /// changes, its lease is of no use any more.
    fn offers(&self, network: &str) -> String {
        let topology = self.topology;
        let own = topology.networks.get(network).filter(|network| network.dhcp.is_some());
        let by_network = own.map(|n| format!("{:?} {:?} {} {:?}\n", n.dhcp, n.host, n.mtu, n.wiring));
        let firewalls = topology.guests.values().filter_map(|guest| Some((guest, guest.firewall.as_ref()?)));
        let by_firewall =
            firewalls.filter(|(_, firewall)| !firewall.dhcp.is_empty()).map(|(guest, firewall)| {
                let own: Vec<_> = guest
                    .nics
                    .iter()
                    .flat_map(|nic| &nic.interfaces)
                    .map(|interface| static_addresses(&interface.addressing))
                    .collect();
                format!("{} {:?} {own:?}\n", guest.name, firewall.dhcp)
            });
        by_network.into_iter().chain(by_firewall).collect()
    }

    fn namespace_services(
        &mut self,
        guest: &Guest,
        config: &GuestConfig,
        place: &Place,
        namespace: &Id,
        interfaces: &[Id],
    ) {
        let interfaces_of = guest.nics.iter().flat_map(|nic| nic.interfaces.iter().map(move |i| (nic, i)));
        for (nic, interface) in interfaces_of {
            if !matches!(interface.addressing, Addressing::Dynamic { v4: true, .. }) {
                continue;
            }
            let service = Service {
                place: place.clone(),
                argv: lease::udhcpc_argv(&interface.name, &guest.name),
                files: BTreeMap::from([
                    (lease::HOOK_FILE.to_owned(), lease::hook_script(self.program)),
                    ("offers".to_owned(), names::sha256(self.offers(&nic.network).as_bytes())),
                ]),
            };
            let wanted = format!("{}/{}", guest.name, interface.name);
            let needs = interfaces.iter().filter(|id| id.name == wanted).cloned().collect();
            let name = names::dhcp_client(&guest.name, &interface.name);
            self.add(Kind::Service, name, Resource::Service(service), needs);
        }
        if !config.serve.is_empty() {
            let mut argv = vec![
                self.program.display().to_string(),
                "__serve".to_owned(),
                format!("{}/{}", config.lab, config.name),
            ];
            argv.extend(config.serve.iter().map(ToString::to_string));
            let service = Service { place: place.clone(), argv, files: BTreeMap::new() };
            let name = format!("{}/serve", guest.name);
            self.add(Kind::Service, name, Resource::Service(service), vec![namespace.clone()]);
        }
        if let Some(dnsmasq) = &config.dnsmasq {
            let service = Service {
                place: place.clone(),
                argv: dnsmasq_argv(),
                files: BTreeMap::from([("dnsmasq.conf".to_owned(), format!("{dnsmasq}\n{FILES}"))]),
            };
            let name = format!("{}/dnsmasq", guest.name);
            self.add(Kind::Service, name, Resource::Service(service), interfaces.to_vec());
        }
    }
}

/// A network's VIDs, sorted.
fn vids(network: &Network) -> Vec<u16> {
    let mut vids: Vec<u16> = network.vlans.values().map(|vlan| vlan.vid).collect();
    vids.sort_unstable();
    vids
}

/// The VLAN, on a bridge with VLANs and an uplink, of the uplink's untagged frames, which are the host's own: one that no
/// guest is in.
fn own_vlan(network: &Network) -> Option<u16> {
    let vids = vids(network);
    if vids.is_empty() { None } else { (1..4095).find(|vid| !vids.contains(vid)) }
}

fn dnsmasq_argv() -> Vec<String> {
    ["dnsmasq", "--keep-in-foreground", "--conf-file={dir}/dnsmasq.conf"].map(str::to_owned).into()
}

/// The default route's destination.
fn everything(six: bool) -> ipnetwork::IpNetwork {
    let unspecified: std::net::IpAddr = if six { [0; 16].into() } else { [0; 4].into() };
    ipnetwork::IpNetwork::new(unspecified, 0).unwrap_or_else(|_| unspecified.into())
}

fn static_addresses(addressing: &Addressing) -> Vec<ipnetwork::IpNetwork> {
    match addressing {
        Addressing::Static(addresses) => sorted(addresses),
        Addressing::Dynamic { .. } | Addressing::None => Vec::new(),
    }
}

fn sorted(addresses: &[ipnetwork::IpNetwork]) -> Vec<ipnetwork::IpNetwork> {
    let mut out = addresses.to_vec();
    out.sort();
    out
}

/// Whether a guest takes IPv6 addresses from router advertisements on any of its interfaces.
fn listens(topology: &Topology, guest: &Guest) -> bool {
    let open = |nic: &&Nic| {
        topology.networks.get(&nic.network).is_some_and(|n| n.wiring.uplink != mode::Uplink::None)
    };
    let dynamic =
        |nic: &Nic| nic.interfaces.iter().any(|i| matches!(i.addressing, Addressing::Dynamic { .. }));
    // Who is on an uplink's network that the file does not know hears the routers there, as any host.
    let hears = guest.nics.iter().filter(open).any(dynamic);
    hears
        || guest
            .nics
            .iter()
            .flat_map(|nic| &nic.interfaces)
            .any(|interface| matches!(interface.addressing, Addressing::Dynamic { v6: true, .. }))
}

/// What netloom sets in namespaces of its own, guests' and routers', but for what it sets before it makes a link there.
pub const NAMESPACE_SETTINGS: [&str; 4] = [
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "ipv4/conf/all/send_redirects",
    "ipv4/conf/default/send_redirects",
];

/// Settings of a namespace guest.
fn guest_sysctls(config: &GuestConfig) -> BTreeMap<String, String> {
    let forwarding = if config.forwarding { "1" } else { "0" };
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .map(|path| (path.to_owned(), forwarding.to_owned()))
        .into()
}

/// Static names and addresses of the guests on a network, for its resolver.
fn records(topology: &Topology, network: &str) -> Vec<(String, std::net::IpAddr)> {
    let mut out = BTreeSet::new();
    for guest in topology.guests.values() {
        for nic in guest.nics.iter().filter(|nic| nic.network == network) {
            for interface in nic.interfaces.iter().filter(|interface| interface.vid.is_none()) {
                if let Addressing::Static(addresses) = &interface.addressing {
                    out.extend(addresses.iter().map(|address| (guest.name.clone(), address.ip())));
                }
            }
        }
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests;
