//! Cables between the bridges of two networks: a pair of virtual Ethernet ends, or a tunnel between two nodes.

use ipnetwork::IpNetwork;

use super::Desired;
use crate::resource::{Id, Kind, Place, Port, Resource, Veth, VethEnd, Vxlan, names};
use crate::topology::{Attach, SwitchLink};

/// Bytes that VXLAN adds to a frame: Ethernet, IPv4, UDP and its own header (RFC 7348, section 5).
const VXLAN_OVERHEAD: u32 = 50;

impl Desired<'_> {
    /// Every cable of the lab.
    pub(super) fn switch_links(&mut self) {
        for (index, link) in self.topology.links.iter().enumerate() {
            let [near, far] = &link.between;
            let networks = link.between.iter().filter_map(|name| self.topology.networks.get(name));
            let mtu = networks.map(|network| network.mtu).min().unwrap_or(1500);
            match link.vxlan {
                None => self.cable(link, &format!("{near}/{far}.{index}"), mtu),
                Some(vni) => self.tunnel(link, &format!("{near}+{far}+{index}"), vni, mtu),
            }
        }
    }

    /// The kernel name of a cable's port on a network's bridge, where it has one.
    pub(super) fn cable_port(&self, index: usize, link: &SwitchLink, network: &str) -> Option<String> {
        let side = link.between.iter().position(|name| name == network)?;
        let [near, far] = &link.between;
        let roles = ["veth", "peer"];
        Some(match link.vxlan {
            None => names::link(self.lab(), roles[side], &format!("{near}/{far}.{index}")),
            Some(_) => names::link(self.lab(), "vxlan", &format!("{near}+{far}+{index}+{side}")),
        })
    }

    fn cable(&mut self, link: &SwitchLink, name: &str, mtu: u32) {
        let end = |role: &str, side: usize| VethEnd {
            place: Place::Host,
            link: names::link(self.lab(), role, name),
            mac: names::mac(self.lab(), role, name),
            mtu,
            port: Some(self.socket(&link.between[side], &link.attach[side])),
            addresses: Vec::new(),
            advertised: None,
            route_localnet: false,
        };
        let ends = [end("veth", 0), end("peer", 1)];
        let needs = link.between.iter().flat_map(|network| self.plugged(network)).collect();
        self.add(Kind::Veth, name, Resource::Veth(Veth { ends }), needs);
    }

    fn socket(&self, network: &str, attach: &Attach) -> Port {
        Port { bridge: self.bridge_link(network), attach: attach.clone(), isolated: false }
    }

    /// Each network is on a node of its own: the bridge is the host's, but the tunnel's socket is in a network
    /// namespace that has nothing else than an address towards the other node.
    fn tunnel(&mut self, link: &SwitchLink, name: &str, vni: u32, mtu: u32) {
        let lab = self.lab().to_owned();
        let [addresses, _] = names::transit(&lab, name);
        let nodes = [0, 1].map(|side| format!("{name}+{side}"));
        let places = nodes.each_ref().map(|node| Place::Netns(names::netns(&lab, node)));
        let mut needs: Vec<Id> = Vec::new();
        for node in &nodes {
            let namespace = Resource::Namespace(names::netns(&lab, node));
            needs.push(self.add(Kind::Namespace, node, namespace, Vec::new()));
        }
        let end = |side: usize, role: &str, link: String| VethEnd {
            place: places[side].clone(),
            link,
            mac: names::mac(&lab, role, name),
            mtu: mtu + VXLAN_OVERHEAD,
            port: None,
            addresses: vec![addresses[side]],
            advertised: Some(false),
            route_localnet: false,
        };
        let ends = [
            end(0, "veth", names::link(&lab, "veth", name)),
            end(1, "peer", names::link(&lab, "peer", name)),
        ];
        let underlay = self.add(Kind::Veth, name, Resource::Veth(Veth { ends }), needs);
        for side in [0, 1] {
            let (local, remote): (IpNetwork, IpNetwork) = (addresses[side], addresses[1 - side]);
            let node = &nodes[side];
            let vxlan = Vxlan {
                link: names::link(&lab, "vxlan", node),
                underlay: places[side].clone(),
                vni,
                local: local.ip(),
                remote: remote.ip(),
                mtu,
                port: self.socket(&link.between[side], &link.attach[side]),
            };
            let mut needs = self.plugged(&link.between[side]);
            needs.push(underlay.clone());
            self.add(Kind::Vxlan, node, Resource::Vxlan(vxlan), needs);
        }
    }
}
