//! What the host filters and forwards for a lab: one table of nftables' family `inet`, one of `bridge`.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use super::{Desired, HOST};
use crate::mode::barrier::{Barrier, bridge_ruleset};
use crate::mode::ruleset::{HostNetwork, host_ruleset};
use crate::mode::wiring::INTERNAL;
use crate::mode::{self, Egress, Gateway};
use crate::resource::{BRIDGE_RULESET, Id, Kind, Place, Resource, Ruleset, RulesetFamily, Sysctls, names};
use crate::topology::{GuestKind, Network};

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
    pub(super) fn barrier(&mut self) {
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
}
