//! What the host filters and forwards for a lab: one table of nftables' family `inet`, one of `bridge`.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use super::{Desired, HOST};
use crate::mode::barrier::{Barrier, bridge_ruleset};
use crate::mode::ruleset::{HostNetwork, host_ruleset};
use crate::mode::wiring::INTERNAL;
use crate::mode::{self, Egress, Gateway};
use crate::resource::{
    BRIDGE_RULESET, HostPort, Id, Kind, Place, Resource, Ruleset, RulesetFamily, Sysctls, names,
};
use crate::topology::{Guest, GuestKind, Network, Nic, Pvlan};

impl Desired<'_> {
    /// The host's ruleset and forwarding.
    pub(super) fn host(&mut self) {
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
                served: match network.wiring.dhcp || network.wiring.dns {
                    true => network.host.iter().map(IpNetwork::ip).collect(),
                    false => Vec::new(),
                },
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
                    served: Vec::new(),
                });
            }
        }
        let mut values = BTreeMap::new();
        for network in networks
            .iter()
            .filter(|n| n.wiring.egress != Egress::None || n.wiring.ingress || !n.forwards.is_empty())
        {
            for subnet in &network.subnets {
                let path = if subnet.is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
                values.insert(path.to_owned(), "1".to_owned());
            }
        }
        if let Some(script) = host_ruleset(self.lab(), &networks) {
            let table = names::table(self.lab());
            let ports = networks.iter().flat_map(|n| &n.forwards).map(HostPort::of).collect();
            let ruleset = Ruleset { place: Place::Host, family: RulesetFamily::Inet, table, script, ports };
            self.add(Kind::Ruleset, HOST, Resource::Ruleset(ruleset), Vec::new());
        }
        if !values.is_empty() {
            let needs = self.present(&[Id::new(Kind::Ruleset, HOST)]);
            let sysctls = Sysctls { place: Place::Host, values };
            self.add(Kind::Sysctls, HOST, Resource::Sysctls(sysctls), needs);
        }
    }

    /// Whether ports of a network are kept from each other.
    pub(super) fn has_apart(&self, network: &Network) -> bool {
        network.wiring.isolated
            || self.plugged_into(network).iter().any(|(_, nic)| nic.pvlan != Pvlan::Promiscuous)
    }

    /// What keeps the host, or an uplink's network, from guests on one bridge with it.
    pub(super) fn barrier(&mut self) {
        let barriers: Vec<Barrier> =
            self.topology.networks.values().map(|network| self.barrier_of(network)).collect();
        if let Some(script) = bridge_ruleset(self.lab(), &barriers) {
            let table = names::table(self.lab());
            let (place, family, ports) = (Place::Host, RulesetFamily::Bridge, Vec::new());
            let ruleset = Ruleset { place, family, table, script, ports };
            self.add(Kind::Ruleset, BRIDGE_RULESET, Resource::Ruleset(ruleset), Vec::new());
        }
    }

    fn barrier_of(&self, network: &Network) -> Barrier {
        let mut ports = Vec::new();
        let mut communities: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut isolated = Vec::new();
        for (guest, nic) in self.plugged_into(network) {
            let role = match guest.kind {
                GuestKind::Vm => "tap",
                GuestKind::Namespace => "veth",
            };
            let port = names::link(self.lab(), role, &format!("{}/eth{}", guest.name, nic.index));
            match &nic.pvlan {
                Pvlan::Promiscuous => {}
                Pvlan::Isolated => isolated.push(port.clone()),
                Pvlan::Community(name) => communities.entry(name.clone()).or_default().push(port.clone()),
            }
            ports.push(port);
        }
        // What comes by a cable from another network's bridge is a guest's, too.
        let cables = self.topology.links.iter().enumerate();
        ports.extend(cables.flat_map(|(index, link)| self.cable_port(index, link, &network.name)));
        let on_bridge = network.wiring.uplink == mode::Uplink::Port;
        Barrier {
            network: network.name.clone(),
            ports,
            // In a VLAN of its uplink the host takes no part anyway.
            barred: on_bridge && network.wiring.barred && network.tags.is_empty(),
            guarded: on_bridge && network.wiring.guarded,
            communities,
            isolated,
            unrouted: if self.has_apart(network) { legs(network) } else { Vec::new() },
        }
    }

    /// NICs on a network, with their guests.
    fn plugged_into(&self, network: &Network) -> &[(&Guest, &Nic)] {
        self.nics.get(network.name.as_str()).map_or(&[], Vec::as_slice)
    }
}

/// The host's own addresses on a network and on its VLANs.
fn legs(network: &Network) -> Vec<IpNetwork> {
    network.host.iter().chain(network.vlans.values().flat_map(|vlan| &vlan.host)).copied().collect()
}
