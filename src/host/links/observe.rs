//! What exists: one dump of links, bridge VLANs, addresses and routes for each place.

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteProtocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::bridge_vlan::add_bridge_vlans;
use super::read::{is_link_local, read_link, read_route};
use super::wire::{Refusal, Wire};
use super::{Links, ROUTE_PROTOCOL};
use crate::error::{Context, Result};
use crate::resource::{MacvlanMode, Place, VlanProtocol, mark, names};
use crate::topology::{Attach, Mac, Route};

/// What a link is, as far as netloom cares.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkKind {
    /// A bridge.
    Bridge {
        /// Whether it filters VLANs.
        vlan_filtering: bool,
        /// Whether it speaks STP.
        stp: bool,
        /// PVID that new ports get.
        default_pvid: u16,
    },
    /// One end of a veth pair.
    Veth,
    /// A tap or tun.
    Tun,
    /// A VLAN interface.
    Vlan {
        /// VID.
        vid: u16,
        /// How it is tagged.
        protocol: VlanProtocol,
    },
    /// A macvlan or macvtap.
    Macvlan {
        /// Whether it is a macvtap.
        tap: bool,
        /// Its mode, when it is one that netloom uses.
        mode: Option<MacvlanMode>,
    },
    /// A VXLAN tunnel.
    Vxlan {
        /// VNI.
        vni: u32,
        /// UDP port it talks to.
        port: u16,
        /// Its own address.
        local: Option<IpAddr>,
        /// The other end's.
        remote: Option<IpAddr>,
    },
    /// Anything else.
    Other,
}

/// A link as found.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkState {
    /// Index in its namespace.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Alias; empty when it has none.
    pub alias: String,
    /// Alternative names.
    pub altnames: Vec<String>,
    /// Whether it gives itself an IPv6 link-local address.
    pub link_local: bool,
    /// Whether it takes IPv6 addresses from router advertisements.
    pub accepts_ra: bool,
    /// Whether IPv6 is switched off on it.
    pub ipv6_off: bool,
    /// Whether it answers ARP at all.
    pub answers_arp: bool,
    /// Whether packets for the loopback may come in by it.
    pub route_localnet: bool,
    /// Group.
    pub group: u32,
    /// What it is.
    pub kind: LinkKind,
    /// MAC address, of Ethernet links.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// Whether it is up and its peer or lower link is, too (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// Whether it is a port that STP does not let pass frames yet (listening, learning).
    pub settling: bool,
    /// Whether it is a port that passes nothing to other isolated ports.
    pub isolated: bool,
    /// Settings of a port or a bridge that netloom leaves as the kernel has them, and that somebody changed.
    pub odd: Vec<&'static str>,
    /// Index of the link below it.
    pub lower: Option<u32>,
    /// Number of the namespace that the link below, or a tunnel's socket, is in, when it is another one.
    pub netns_below: Option<i32>,
    /// Addresses that are neither link-local nor dynamic.
    pub addresses: Vec<IpNetwork>,
    /// Addresses from DHCP clients of ours and router advertisements; not link-local.
    pub dynamic: Vec<IpNetwork>,
    /// VLANs of a bridge's port, or the bridge's own.
    pub vlans: Vec<(u16, BridgeVlanInfoFlags)>,
}

impl LinkState {
    /// Whether it is a link of `lab`. Its alias says so, or, when it has none yet or another text, the group that it was
    /// born in: on the host together with a name that only netloom gives, since a group is a number that anybody may use.
    #[must_use]
    pub fn belongs_to(&self, lab: &str, place: &Place) -> bool {
        match mark::read(&self.alias) {
            Some((other, _)) => other == lab,
            None => self.group == names::group(lab) && (*place != Place::Host || names::is_link(&self.name)),
        }
    }

    /// Its VLANs as a port's attachment, on a bridge that filters.
    #[must_use]
    pub fn attach(&self) -> Attach {
        let untagged = |flags: BridgeVlanInfoFlags| flags.contains(BridgeVlanInfoFlags::Untagged);
        let native = self
            .vlans
            .iter()
            .find(|(_, flags)| flags.contains(BridgeVlanInfoFlags::Pvid) && untagged(*flags))
            .map(|(vid, _)| *vid);
        let mut tagged: Vec<u16> =
            self.vlans.iter().filter(|(_, flags)| !untagged(*flags)).map(|(vid, _)| *vid).collect();
        tagged.sort_unstable();
        match native {
            Some(vid) if tagged.is_empty() => Attach::Access(vid),
            _ => Attach::Trunk { tagged, native },
        }
    }
}

/// A route of ours as found.
pub type RouteState = Route;

/// A place's links, by index, and our routes, sorted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlaceState {
    /// Links by index.
    pub links: BTreeMap<u32, LinkState>,
    /// Routes with netloom's protocol number.
    pub routes: Vec<RouteState>,
}

impl PlaceState {
    /// A link by its kernel name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&LinkState> {
        self.links.values().find(|link| link.name == name)
    }
    /// The kernel name of a link by index.
    #[must_use]
    pub fn name(&self, index: Option<u32>) -> Option<&str> {
        index.and_then(|i| self.links.get(&i)).map(|link| link.name.as_str())
    }
}

impl Links {
    /// Everything a place holds.
    ///
    /// # Errors
    /// When the place does not exist or a dump fails.
    pub async fn observe(&self, place: &Place) -> Result<PlaceState> {
        self.observe_now(place)
    }

    /// The same; the kernel answers on the spot.
    ///
    /// # Errors
    /// As for [`Links::observe`].
    pub(crate) fn observe_now(&self, place: &Place) -> Result<PlaceState> {
        look(&*self.at(place)?).context(|| format!("cannot list the links of {place:?}"))
    }

    /// The host as it was seen, with these links as they are now. For a host on which no bridge filtered VLANs then: the kernel
    /// lists those of all ports at once.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) fn observe_again(&self, seen: &PlaceState, links: &BTreeSet<String>) -> Result<PlaceState> {
        look_again(&*self.at(&Place::Host)?, seen, links).context(|| "cannot look at links again".into())
    }
}

fn look_again(wire: &Wire, seen: &PlaceState, links: &BTreeSet<String>) -> Result<PlaceState, Refusal> {
    let mut state = seen.clone();
    state.links.retain(|_, link| !links.contains(&link.name));
    for name in links {
        let Some(link) = wire.link(name)?.map(|message| read_link(&message)) else { continue };
        let index = link.index;
        state.links.insert(index, link);
        // Kernels before 4.20 list the addresses of all links.
        for message in wire.addresses_of(index)?.iter().filter(|message| message.header.index == index) {
            add_address(message, &mut state);
        }
    }
    add_bridge_vlans(wire, &mut state)?;
    sort_addresses(&mut state);
    Ok(state)
}

/// Everything in the network namespace that the calling thread is in, which has this name.
///
/// # Errors
/// When a dump fails.
pub fn look_here(name: &str) -> Result<PlaceState> {
    let wire = Wire::open().context(|| "cannot open a netlink socket".into())?;
    look(&wire).context(|| format!("cannot list the links of namespace `{name}`"))
}

/// Everything in the network namespace of a socket.
pub(crate) fn look(wire: &Wire) -> Result<PlaceState, Refusal> {
    let mut state = PlaceState::default();
    let mut request = LinkMessage::default();
    // Counters of packets are half of what the kernel says of a link.
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let links = wire.links(request, |message| read_link(&message))?;
    state.links = links.into_iter().map(|link| (link.index, link)).collect();
    add_bridge_vlans(wire, &mut state)?;
    for message in wire.addresses()? {
        add_address(&message, &mut state);
    }
    sort_addresses(&mut state);
    let routes = wire.routes_by(AddressFamily::Unspec, RouteProtocol::from(ROUTE_PROTOCOL))?;
    state.routes = routes.iter().filter_map(read_route).collect();
    state.routes.sort_by_key(|route| (route.to, route.via));
    Ok(state)
}

fn add_address(message: &AddressMessage, state: &mut PlaceState) {
    let mut ip = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            // IFA_LOCAL is the address; IFA_ADDRESS is the peer's on point-to-point links.
            AddressAttribute::Local(address) => ip = Some(*address),
            AddressAttribute::Address(address) if ip.is_none() => ip = Some(*address),
            AddressAttribute::Flags(found) => flags = *found,
            _ => {}
        }
    }
    let Some(link) = state.links.get_mut(&message.header.index) else { return };
    let Some(network) = ip.and_then(|ip| IpNetwork::new(ip, message.header.prefix_len).ok()) else {
        return;
    };
    if is_link_local(network.ip()) {
        return;
    }
    // Leases (the DHCP hook gives addresses the lease's lifetime) and advertised prefixes are not permanent.
    if flags.contains(AddressFlags::Permanent) {
        link.addresses.push(network);
    } else if !flags.contains(AddressFlags::Tentative) {
        link.dynamic.push(network);
    }
}

fn sort_addresses(state: &mut PlaceState) {
    for link in state.links.values_mut() {
        link.addresses.sort();
        link.dynamic.sort();
    }
}
