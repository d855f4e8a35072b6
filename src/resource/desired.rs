//! From the checked model to the resources a lab wants, each with what must exist before it. No I/O.

mod cable;
mod nic;
mod router;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{
    BRIDGE_RULESET, Bridge, Domain, Id, Kind, Node, Place, Port, Resource, Ruleset, RulesetFamily, Service,
    Sysctls,
};
use super::{Routes, Tap, Uplink, Vlan, VlanProtocol, names};
use crate::dhcp::{self, DhcpNetwork};
use crate::error::Result;
use crate::guest::config::{self, GuestConfig};
use crate::mode::barrier::{Barrier, bridge_ruleset};
use crate::mode::ruleset::{HostNetwork, host_ruleset};
use crate::mode::wiring::INTERNAL;
use crate::mode::{self, Egress, Gateway};
use crate::topology::{Addressing, Attach, Guest, GuestKind, Network, Nic, Route, Topology};
use crate::{firewall, lease};

/// Everything a lab wants, in no particular order. `program` is netloom's own path, for the services it starts of
/// itself.
///
/// # Errors
/// When a firewall's policy cannot be compiled.
pub fn nodes(topology: &Topology, program: &Path) -> Result<Vec<Node>> {
    let mut lab = Desired { topology, program, nodes: Vec::new() };
    lab.host();
    lab.barrier();
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
    nodes: Vec<Node>,
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

    /// The host's ruleset and forwarding.
    fn host(&mut self) {
        let mut networks = Vec::new();
        for network in self.topology.networks.values() {
            let routed_by_host = network.wiring.gateway == Gateway::Host;
            networks.push(HostNetwork {
                name: network.name.clone(),
                bridge: self.bridge_link(&network.name),
                wiring: match network.wiring.gateway {
                    // The host takes no part in a VLAN of its uplink.
                    Gateway::Host if !network.tags.is_empty() => INTERNAL,
                    Gateway::Host => network.wiring,
                    // Whatever passes, passes the network's own router, which the host reaches by another link.
                    Gateway::Engine | Gateway::Router => INTERNAL,
                },
                subnets: network.subnets.clone(),
                forwards: if routed_by_host { network.forwards.clone() } else { Vec::new() },
                loopback: None,
            });
            networks.extend(self.transit(network));
            for (name, vlan) in network.vlans.iter().filter(|(_, vlan)| !vlan.host.is_empty()) {
                let name = format!("{}.{name}", network.name);
                networks.push(HostNetwork {
                    bridge: names::link(self.lab(), "vlan", &name),
                    name,
                    wiring: network.wiring,
                    subnets: vlan.subnets.clone(),
                    forwards: Vec::new(),
                    loopback: None,
                });
            }
        }
        let mut values = BTreeMap::new();
        for network in networks.iter().filter(|n| n.wiring.egress != Egress::None || n.wiring.ingress) {
            for subnet in &network.subnets {
                let path = if subnet.is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
                values.insert(path.to_owned(), "1".to_owned());
            }
        }
        if let Some(script) = host_ruleset(self.lab(), &networks) {
            let table = names::table(self.lab());
            let ruleset = Ruleset { place: Place::Host, family: RulesetFamily::Inet, table, script };
            self.add(Kind::Ruleset, HOST, Resource::Ruleset(ruleset), Vec::new());
        }
        if !values.is_empty() {
            let needs = self.present(&[Id::new(Kind::Ruleset, HOST)]);
            let sysctls = Sysctls { place: Place::Host, values };
            self.add(Kind::Sysctls, HOST, Resource::Sysctls(sysctls), needs);
        }
    }

    /// What keeps the host, or an uplink's network, from guests on one bridge with it.
    fn barrier(&mut self) {
        let barriers: Vec<Barrier> =
            self.topology.networks.values().map(|network| self.barrier_of(network)).collect();
        if let Some(script) = bridge_ruleset(self.lab(), &barriers) {
            let table = names::table(self.lab());
            let ruleset = Ruleset { place: Place::Host, family: RulesetFamily::Bridge, table, script };
            self.add(Kind::Ruleset, BRIDGE_RULESET, Resource::Ruleset(ruleset), Vec::new());
        }
    }

    fn barrier_of(&self, network: &Network) -> Barrier {
        let nics =
            self.topology.guests.values().flat_map(|guest| guest.nics.iter().map(move |nic| (guest, nic)));
        let ports = nics.filter(|(_, nic)| nic.network == network.name).map(|(guest, nic)| {
            let role = match guest.kind {
                GuestKind::Vm => "tap",
                GuestKind::Namespace => "veth",
            };
            names::link(self.lab(), role, &format!("{}/eth{}", guest.name, nic.index))
        });
        // What comes by a cable from another network's bridge is a guest's, too.
        let cables = self.topology.links.iter().enumerate();
        let ports = ports.chain(cables.flat_map(|(index, link)| self.cable_port(index, link, &network.name)));
        let on_bridge = network.wiring.uplink == mode::Uplink::Port;
        Barrier {
            network: network.name.clone(),
            ports: ports.collect(),
            // In a VLAN of its uplink the host takes no part anyway.
            barred: on_bridge && network.wiring.barred && network.tags.is_empty(),
            guarded: on_bridge && network.wiring.guarded,
        }
    }

    /// Those of `ids` that are wanted.
    fn present(&self, ids: &[Id]) -> Vec<Id> {
        ids.iter().filter(|id| self.nodes.iter().any(|node| node.id == **id)).cloned().collect()
    }

    fn network(&mut self, network: &Network) {
        if matches!(network.wiring.uplink, mode::Uplink::Macvlan(_)) {
            return; // each NIC sits on the uplink by itself
        }
        let uplink = network
            .uplink
            .as_ref()
            .filter(|_| network.wiring.uplink == mode::Uplink::Port && network.tags.is_empty());
        let link = self.bridge_link(&network.name);
        let mut own_vids: Vec<u16> =
            network.vlans.values().filter(|vlan| !vlan.host.is_empty()).map(|vlan| vlan.vid).collect();
        own_vids.sort_unstable();
        let bridge = Bridge {
            mac: names::mac(self.lab(), "bridge", &network.name),
            link: link.clone(),
            mtu: network.mtu,
            vlan_filtering: !network.vlans.is_empty(),
            stp: network.stp,
            addresses: sorted(&network.host),
            host_leg: !network.host.is_empty() || uplink.is_some(),
            uplinked: uplink.is_some(),
            own_vids,
            own_native: uplink.and_then(|_| own_vlan(network)),
        };
        // Filtering first: a network never exists without the rules of its mode.
        let needs = self.present(&[Id::new(Kind::Ruleset, HOST), Id::new(Kind::Ruleset, BRIDGE_RULESET)]);
        let bridge = self.add(Kind::Bridge, &network.name, Resource::Bridge(bridge), needs);
        for (name, vlan) in network.vlans.iter().filter(|(_, vlan)| !vlan.host.is_empty()) {
            let name = format!("{}.{name}", network.name);
            let leg = Vlan {
                place: Place::Host,
                parent: link.clone(),
                link: names::link(self.lab(), "vlan", &name),
                vid: vlan.vid,
                protocol: super::VlanProtocol::Dot1q,
                port: None,
                mtu: network.mtu,
                addresses: sorted(&vlan.host),
                advertised: None,
            };
            self.add(Kind::Vlan, name, Resource::Vlan(leg), vec![bridge.clone()]);
        }
        if let Some(uplink) = uplink {
            let attach = match own_vlan(network) {
                None => Attach::Plain,
                native => Attach::Trunk { tagged: vids(network), native },
            };
            let uplink = Uplink { link: uplink.clone(), bridge: link.clone(), attach };
            self.add(Kind::Uplink, &network.name, Resource::Uplink(uplink), vec![bridge.clone()]);
        }
        self.tagged_uplink(network, &bridge);
        self.router(network, &bridge);
        self.dnsmasq(network, link, bridge);
    }

    /// The VLAN of the uplink that the network is, as a port of its bridge. The host's own frames are untagged and stay
    /// where they are.
    fn tagged_uplink(&mut self, network: &Network, bridge: &Id) {
        let Some(uplink) = network.uplink.as_ref().filter(|_| !network.tags.is_empty()) else { return };
        let mut parent = uplink.clone();
        let mut needs = vec![bridge.clone()];
        for (index, vid) in network.tags.iter().enumerate() {
            let last = index + 1 == network.tags.len();
            let name = format!("{}/tag{index}", network.name);
            let link = names::link(self.lab(), "vlan", &name);
            let vlan = Vlan {
                place: Place::Host,
                parent,
                link: link.clone(),
                vid: *vid,
                // The outer of two tags is the provider's (IEEE 802.1ad).
                protocol: if last { VlanProtocol::Dot1q } else { VlanProtocol::Dot1ad },
                port: last.then(|| Port {
                    bridge: self.bridge_link(&network.name),
                    attach: Attach::Plain,
                    isolated: false,
                }),
                mtu: network.mtu,
                addresses: Vec::new(),
                advertised: None,
            };
            needs = vec![self.add(Kind::Vlan, name, Resource::Vlan(vlan), needs)];
            parent = link;
        }
    }

    fn dnsmasq(&mut self, network: &Network, link: String, bridge: Id) {
        let advertised: Vec<_> = network
            .subnets
            .iter()
            .filter(|subnet| subnet.is_ipv6() && network.host.iter().any(|h| subnet.contains(h.ip())))
            .copied()
            .collect();
        let dns = network.wiring.dns;
        if network.host.is_empty() || (network.dhcp.is_none() && !dns && advertised.is_empty()) {
            return;
        }
        let config = DhcpNetwork {
            lab: self.lab().to_owned(),
            link,
            addresses: network.host.clone(),
            range: network.dhcp,
            advertise: !advertised.is_empty(),
            dns,
            router: network.wiring.egress != Egress::None,
            mtu: network.mtu,
            resolver: None,
            reserved: network.reserved.clone(),
            hosts: records(self.topology, &network.name),
        };
        let service = Service {
            place: Place::Host,
            argv: dnsmasq_argv(),
            files: BTreeMap::from([("dnsmasq.conf".to_owned(), dhcp::network_config(&config))]),
        };
        self.add(
            Kind::Service,
            format!("{}/dnsmasq", network.name),
            Resource::Service(service),
            vec![bridge],
        );
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
            let name = format!("{}/eth{}", guest.name, nic.index);
            let link = names::link(self.lab(), "tap", &name);
            nics.push((nic.mac, link.clone(), nic.mtu));
            let tap = Tap { link, mtu: nic.mtu, port: self.port(nic) };
            let bridge = Id::new(Kind::Bridge, &nic.network);
            needs.push(self.add(Kind::Tap, name, Resource::Tap(tap), vec![bridge]));
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
        let isolated =
            self.topology.networks.get(&nic.network).is_some_and(|network| network.wiring.isolated);
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
            let ruleset =
                Ruleset { place: place.clone(), family: RulesetFamily::Inet, table, script: script.clone() };
            first.push(self.add(
                Kind::Ruleset,
                &guest.name,
                Resource::Ruleset(ruleset),
                vec![namespace.clone()],
            ));
        }
        let sysctls = Sysctls { place: place.clone(), values: guest_sysctls(self.topology, guest, config) };
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
            let name = format!("{}/dhcp-{}", guest.name, interface.name);
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

/// Settings of a namespace guest. New interfaces inherit `default`, so these come before the first NIC.
fn guest_sysctls(topology: &Topology, guest: &Guest, config: &GuestConfig) -> BTreeMap<String, String> {
    let forwarding = if config.forwarding { "1" } else { "0" };
    // 2: a forwarding guest listens to router advertisements, too.
    let accept_ra = if listens(topology, guest) { "2" } else { "0" };
    [
        ("ipv4/ip_forward", forwarding),
        ("ipv6/conf/all/forwarding", forwarding),
        ("ipv6/conf/default/accept_ra", accept_ra),
        // The file's addresses are checked for duplicates; a second of waiting for each proves nothing more.
        ("ipv6/conf/default/accept_dad", "0"),
    ]
    .into_iter()
    .map(|(path, value)| (path.to_owned(), value.to_owned()))
    .collect()
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
