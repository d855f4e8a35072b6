//! A network's own router: a network namespace between the network and the host, or between the network and an uplink.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Desired, dnsmasq_argv, everything, sorted};
use crate::dhcp::{self, DhcpNetwork, Upstream};
use crate::firewall;
use crate::mode::router::{INSIDE, OUTSIDE, Router, router_ruleset};
use crate::mode::ruleset::HostNetwork;
use crate::mode::wiring::HOST_ONLY;
use crate::mode::{Egress, Gateway, MacvlanMode, Wiring};
use crate::resource::{
    Id, Kind, Macvlan, Place, Port, Resource, Routes, Ruleset, RulesetFamily, Service, Sysctls, Veth,
    VethEnd, names,
};
use crate::topology::{Attach, External, Forward, Network, Route};

impl Desired<'_> {
    /// The link between the host and a NAT engine, as the host's ruleset sees it.
    pub(super) fn transit(&self, network: &Network) -> Option<HostNetwork> {
        if network.wiring.gateway != Gateway::Engine {
            return None;
        }
        let transit = names::transit(self.lab(), &network.name);
        let router = |forward: &Forward| transit[usize::from(forward.target.is_ipv6())][1].ip();
        let forwards = network
            .forwards
            .iter()
            .map(|forward| Forward { target: router(forward), port: forward.ports.0, ..forward.clone() })
            .collect();
        let Wiring { egress, ingress, .. } = network.wiring;
        Some(HostNetwork {
            name: format!("router of {}", network.name),
            bridge: names::link(self.lab(), "veth", &outer(&network.name)),
            wiring: Wiring { egress, ingress, ..HOST_ONLY },
            subnets: families(network).map(|six| whole(transit[six][0])).collect(),
            forwards,
            loopback: network.wiring.loopback.then_some(transit[0][0]),
            served: Vec::new(),
        })
    }

    /// Everything a router is made of.
    pub(super) fn router(&mut self, network: &Network) {
        if network.wiring.gateway == Gateway::Host || network.gateway.is_empty() {
            return;
        }
        let lab = self.lab().to_owned();
        let name = names::router(&network.name);
        let netns = names::router_netns(&lab, &network.name);
        let place = Place::Netns(netns.clone());
        let namespace = self.add(Kind::Namespace, &name, Resource::Namespace(netns), Vec::new());
        let transit = names::transit(&lab, &network.name);
        let loopback =
            network.wiring.loopback.then(|| network.gateway.iter().find(|ip| ip.is_ipv4())).flatten();
        let script = router_ruleset(&Router {
            network: &network.name,
            lab: &lab,
            wiring: Wiring { isolated: self.has_apart(network), ..network.wiring },
            subnets: &network.subnets,
            forwards: &network.forwards,
            loopback: loopback.map(|gateway| (*gateway, transit[0][0])),
        });
        let ruleset = Ruleset {
            table: firewall::TABLE.to_owned(),
            family: RulesetFamily::Inet,
            script,
            place: place.clone(),
            ports: Vec::new(),
        };
        let ruleset = self.add(Kind::Ruleset, &name, Resource::Ruleset(ruleset), vec![namespace.clone()]);
        let first = vec![namespace.clone(), ruleset];
        let sysctls = Sysctls { place: place.clone(), values: settings() };
        let sysctls = self.add(Kind::Sysctls, &name, Resource::Sysctls(sysctls), first.clone());
        let first = [first, vec![sysctls]].concat();

        let mut addresses = sorted(&network.gateway);
        addresses.extend(network.resolver);
        addresses.sort();
        let port = Port { bridge: self.bridge_link(&network.name), attach: Attach::Plain, isolated: false };
        let near = self.end(Place::Host, &inner(&network.name), None, network.mtu, Vec::new(), Some(port));
        let far = self.end(place.clone(), &inner(&network.name), Some(INSIDE), network.mtu, addresses, None);
        let needs = [first.clone(), self.plugged(&network.name)].concat();
        let inside =
            self.add(Kind::Veth, inner(&network.name), Resource::Veth(Veth { ends: [near, far] }), needs);

        let (outside, routes) = self.outside(network, &place, first);
        let routes = Routes { place: place.clone(), routes };
        self.add(Kind::Routes, &name, Resource::Routes(routes), vec![inside.clone(), outside]);
        self.router_services(network, place, inside);
    }

    /// The leg away from the network, and the default routes through it.
    fn outside(&mut self, network: &Network, place: &Place, needs: Vec<Id>) -> (Id, Vec<Route>) {
        if let (Some(external), Some(uplink)) = (&network.external, &network.uplink) {
            let name = outer(&network.name);
            let leg = Macvlan {
                place: place.clone(),
                parent: uplink.clone(),
                link: OUTSIDE.to_owned(),
                mac: names::mac(self.lab(), "macvlan", &name),
                mtu: network.mtu,
                mode: MacvlanMode::Bridge,
                tap: false,
                addresses: sorted(&outer_addresses(network, external)),
                advertised: Some(false),
            };
            let id = self.add(Kind::Macvlan, name, Resource::Macvlan(leg), needs);
            let route = |via: &IpAddr| Route { to: everything(via.is_ipv6()), via: *via };
            let mut routes: Vec<Route> = external.gateways.iter().map(route).collect();
            routes.sort_by_key(|route| (route.to, route.via));
            return (id, routes);
        }
        let transit = names::transit(self.lab(), &network.name);
        let name = outer(&network.name);
        let used: Vec<usize> = families(network).collect();
        let side = |side: usize| used.iter().map(|six| transit[*six][side]).collect::<Vec<IpNetwork>>();
        let mut near = self.end(Place::Host, &name, None, network.mtu, side(0), None);
        near.route_localnet = network.wiring.loopback;
        let far = self.end(place.clone(), &name, Some(OUTSIDE), network.mtu, side(1), None);
        let mut all = needs;
        all.extend(self.present(&[Id::new(Kind::Ruleset, super::HOST)]));
        let id = self.add(Kind::Veth, name, Resource::Veth(Veth { ends: [near, far] }), all);
        let route = |six: &usize| Route { to: everything(*six == 1), via: transit[*six][0].ip() };
        let mut routes: Vec<Route> = used.iter().map(route).collect();
        routes.sort_by_key(|route| (route.to, route.via));
        (id, routes)
    }

    /// One end of a pair of a router's; without a kernel name of its own it has the usual derived one.
    fn end(
        &self,
        place: Place,
        name: &str,
        link: Option<&str>,
        mtu: u32,
        addresses: Vec<IpNetwork>,
        port: Option<Port>,
    ) -> VethEnd {
        let role = if link.is_some() { "peer" } else { "veth" };
        VethEnd {
            link: link.map_or_else(|| names::link(self.lab(), "veth", name), str::to_owned),
            mac: names::mac(self.lab(), role, name),
            mtu,
            port,
            addresses,
            advertised: (place != Place::Host).then_some(false),
            route_localnet: false,
            place,
        }
    }

    fn router_services(&mut self, network: &Network, place: Place, inside: Id) {
        let advertise = network.subnets.iter().any(IpNetwork::is_ipv6) && network.wiring.dhcp;
        if network.dhcp.is_none() && !network.wiring.dns && !advertise {
            return;
        }
        let config = DhcpNetwork {
            lab: self.lab().to_owned(),
            link: INSIDE.to_owned(),
            addresses: network.gateway.clone(),
            range: network.dhcp,
            advertise,
            dns: network.wiring.dns,
            upstream: match network.wiring.egress {
                Egress::None => Upstream::Nowhere,
                Egress::Routed | Egress::Masquerade => Upstream::Beyond,
            },
            routes: [network.leads(false), network.leads(true)],
            mtu: network.mtu,
            resolver: network.resolver.map(|net| net.ip()),
            reserved: network.reserved.clone(),
            hosts: super::records(self.topology, &network.name),
        };
        let service = Service {
            place,
            argv: dnsmasq_argv(),
            files: BTreeMap::from([("dnsmasq.conf".to_owned(), dhcp::network_config(&config))]),
        };
        let name = format!("{}/dnsmasq", names::router(&network.name));
        self.add(Kind::Service, name, Resource::Service(service), vec![inside]);
    }
}

/// The router's own addresses, and those on which it only listens for forwards. These have no subnet, so that the
/// kernel does not take them for what the router sends itself.
fn outer_addresses(network: &Network, external: &External) -> Vec<IpNetwork> {
    let mut addresses = external.addresses.clone();
    for ip in network.forwards.iter().filter_map(|forward| forward.address) {
        if !addresses.iter().any(|own| own.ip() == ip) {
            addresses.push(IpNetwork::from(ip));
        }
    }
    addresses
}

fn inner(network: &str) -> String {
    format!("{}/{INSIDE}", names::router(network))
}

fn outer(network: &str) -> String {
    format!("{}/{OUTSIDE}", names::router(network))
}

/// Families a network has a gateway for: 0 for IPv4, 1 for IPv6.
fn families(network: &Network) -> impl Iterator<Item = usize> {
    let has = |six: bool| network.gateway.iter().any(|gateway| gateway.is_ipv6() == six);
    [(0, has(false)), (1, has(true))].into_iter().filter(|(_, has)| *has).map(|(six, _)| six)
}

/// The network of an address with prefix length.
fn whole(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

/// A router forwards, and sends nobody elsewhere.
fn settings() -> BTreeMap<String, String> {
    [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ]
    .into_iter()
    .map(|(path, value)| (path.to_owned(), value.to_owned()))
    .collect()
}
