//! Networks: the bridge, the host's legs, the uplink, the DHCP and DNS server.

use std::collections::BTreeMap;

use super::{Desired, dnsmasq_argv, own_vlan, records, sorted, vids};
use crate::dhcp::{self, DhcpNetwork, Upstream};
use crate::mode::{self, Egress};
use crate::resource::{Bridge, Id, Kind, Place, Port, Resource, Service, Uplink, Vlan, VlanProtocol, names};
use crate::topology::{Attach, Network};

impl Desired<'_> {
    /// A network's bridge with what the host adds to it.
    pub(super) fn network(&mut self, network: &Network) {
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
        let needs = self.tables.clone();
        let bridge = self.add(Kind::Bridge, &network.name, Resource::Bridge(bridge), needs);
        for (name, vlan) in network.vlans.iter().filter(|(_, vlan)| !vlan.host.is_empty()) {
            let name = format!("{}.{name}", network.name);
            let leg = Vlan {
                place: Place::Host,
                parent: link.clone(),
                link: names::link(self.lab(), "vlan", &name),
                vid: vlan.vid,
                protocol: VlanProtocol::Dot1q,
                port: None,
                mtu: network.mtu,
                addresses: sorted(&vlan.host),
                advertised: None,
            };
            self.add(Kind::Vlan, name, Resource::Vlan(leg), self.plugged(&network.name));
        }
        if let Some(uplink) = uplink {
            let attach = match own_vlan(network) {
                None => Attach::Plain,
                native => Attach::Trunk { tagged: vids(network), native },
            };
            let uplink = Uplink { link: uplink.clone(), bridge: link.clone(), attach };
            self.add(Kind::Uplink, &network.name, Resource::Uplink(uplink), self.plugged(&network.name));
        }
        self.tagged_uplink(network);
        self.router(network);
        self.dnsmasq(network, link, bridge);
    }

    /// The VLAN of the uplink that the network is, as a port of its bridge. The host's own frames are untagged and stay
    /// where they are.
    fn tagged_uplink(&mut self, network: &Network) {
        let Some(uplink) = &network.uplink else { return };
        let Some((vid, outer)) = network.tags.split_last() else { return };
        let mut needs = self.plugged(&network.name);
        let mut parent = uplink.clone();
        for outer in outer {
            let (id, link) = self.outer_vlan(uplink, *outer);
            needs.push(id);
            parent = link;
        }
        let name = format!("{}/tag", network.name);
        let vlan = Vlan {
            place: Place::Host,
            parent,
            link: names::link(self.lab(), "vlan", &name),
            vid: *vid,
            protocol: VlanProtocol::Dot1q,
            port: Some(Port {
                bridge: self.bridge_link(&network.name),
                attach: Attach::Plain,
                isolated: false,
            }),
            mtu: network.mtu,
            addresses: Vec::new(),
            advertised: None,
        };
        self.add(Kind::Vlan, name, Resource::Vlan(vlan), needs);
    }

    /// A provider's VLAN of an uplink (IEEE 802.1ad), with its kernel name. The kernel has one interface for a VLAN of a
    /// link, so all networks inside it share it. Networks and guests have no `+` in their names.
    fn outer_vlan(&mut self, uplink: &str, vid: u16) -> (Id, String) {
        let name = format!("{uplink}+{vid}");
        let link = names::link(self.lab(), "vlan", &name);
        let id = Id::new(Kind::Vlan, &name);
        if !self.present(std::slice::from_ref(&id)).is_empty() {
            return (id, link);
        }
        let inside =
            |n: &&Network| n.uplink.as_deref() == Some(uplink) && n.tags.len() > 1 && n.tags[0] == vid;
        let vlan = Vlan {
            place: Place::Host,
            parent: uplink.to_owned(),
            link: link.clone(),
            vid,
            protocol: VlanProtocol::Dot1ad,
            port: None,
            // What it carries has to fit.
            mtu: self.topology.networks.values().filter(inside).map(|n| n.mtu).max().unwrap_or(1500),
            addresses: Vec::new(),
            advertised: None,
        };
        let tables = self.tables.clone();
        (self.add(Kind::Vlan, name, Resource::Vlan(vlan), tables), link)
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
            upstream: match network.wiring.egress {
                Egress::None => Upstream::Nowhere,
                Egress::Routed | Egress::Masquerade => Upstream::AsHost,
            },
            routes: [network.leads(false), network.leads(true)],
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
            format!("{}/dnsmasq", names::network(&network.name)),
            Resource::Service(service),
            vec![bridge],
        );
    }
}
