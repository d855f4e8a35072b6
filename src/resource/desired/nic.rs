//! NICs of guests.

use super::{Desired, listens, static_addresses};
use crate::mode::Uplink;
use crate::resource::{Id, Kind, Macvlan, Place, Resource, Tap, Veth, VethEnd, Vlan, VlanProtocol, names};
use crate::topology::{Guest, Nic};

impl Desired<'_> {
    /// A NIC of a namespace guest with its VLAN interfaces.
    pub(super) fn namespace_nic(&mut self, guest: &Guest, nic: &Nic, place: &Place, first: &[Id]) -> Vec<Id> {
        let name = format!("{}/eth{}", guest.name, nic.index);
        let parent = format!("eth{}", nic.index);
        let listens = Some(listens(self.topology, guest));
        let untagged = nic.interfaces.iter().find(|interface| interface.vid.is_none());
        let addresses = untagged.map(|i| static_addresses(&i.addressing)).unwrap_or_default();
        if let Some(macvlan) = self.macvlan(nic, place, &parent) {
            let macvlan = Macvlan { addresses, advertised: listens, ..macvlan };
            return vec![self.add(Kind::Macvlan, name, Resource::Macvlan(macvlan), first.to_vec())];
        }
        let near = VethEnd {
            place: Place::Host,
            link: names::link(self.lab(), "veth", &name),
            mac: names::mac(self.lab(), "veth", &name),
            mtu: nic.mtu,
            port: Some(self.port(nic)),
            addresses: Vec::new(),
            advertised: None,
            route_localnet: false,
        };
        let far = VethEnd {
            place: place.clone(),
            link: parent.clone(),
            mac: nic.mac,
            mtu: nic.mtu,
            port: None,
            addresses,
            advertised: listens,
            route_localnet: false,
        };
        let mut needs = first.to_vec();
        needs.extend(self.plugged(&nic.network));
        let veth = self.add(Kind::Veth, name, Resource::Veth(Veth { ends: [near, far] }), needs);
        let mut made = vec![veth.clone()];
        for interface in &nic.interfaces {
            let Some(vid) = interface.vid else { continue };
            let vlan = Vlan {
                place: place.clone(),
                parent: parent.clone(),
                link: interface.name.clone(),
                vid,
                protocol: VlanProtocol::Dot1q,
                port: None,
                mtu: nic.mtu,
                addresses: static_addresses(&interface.addressing),
                advertised: listens,
            };
            let name = format!("{}/{}", guest.name, interface.name);
            made.push(self.add(Kind::Vlan, name, Resource::Vlan(vlan), vec![veth.clone()]));
        }
        made
    }

    /// The link that a VM's NIC is opened by, and its kernel name.
    pub(super) fn vm_nic(&mut self, guest: &Guest, nic: &Nic) -> (Id, String) {
        let name = format!("{}/eth{}", guest.name, nic.index);
        let link = names::link(self.lab(), "macvtap", &name);
        if let Some(macvlan) = self.macvlan(nic, &Place::Host, &link) {
            let macvlan = Resource::Macvlan(Macvlan { tap: true, ..macvlan });
            return (self.add(Kind::Macvlan, name, macvlan, Vec::new()), link);
        }
        let link = names::link(self.lab(), "tap", &name);
        let tap = Tap { link: link.clone(), mtu: nic.mtu, port: self.port(nic) };
        let needs = self.plugged(&nic.network);
        (self.add(Kind::Tap, name, Resource::Tap(tap), needs), link)
    }

    /// The NIC itself, on a network whose guests sit on the uplink each by itself.
    fn macvlan(&self, nic: &Nic, place: &Place, link: &str) -> Option<Macvlan> {
        let network = self.topology.networks.get(&nic.network)?;
        let (Uplink::Macvlan(mode), Some(parent)) = (network.wiring.uplink, &network.uplink) else {
            return None;
        };
        Some(Macvlan {
            place: place.clone(),
            parent: parent.clone(),
            link: link.to_owned(),
            mac: nic.mac,
            mtu: nic.mtu,
            mode,
            tap: false,
            addresses: Vec::new(),
            advertised: None,
        })
    }
}
