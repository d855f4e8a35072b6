//! Dump messages of the kernel to what netloom keeps of them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgePortState, BridgeStpState, In6AddrGenMode, Inet6DevConf,
    InetDevConf, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoMacVtap, InfoPortData,
    InfoVlan, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode as KernelMode, Prop,
    State, VlanProtocol as KernelProtocol,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};

use super::ROUTE_PROTOCOL;
use super::create::ARP_IGNORE_ALL;
use super::observe::{LinkKind, LinkState};
use crate::resource::{MacvlanMode, VlanProtocol};
use crate::topology::{Mac, Route};

/// How long a bridge remembers where a station is, in hundredths of a second (`br_dev_setup`).
pub(super) const AGEING_TIME: u32 = 300 * 100;

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

pub(super) fn read_link(message: &LinkMessage) -> LinkState {
    let mut link = LinkState {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        altnames: Vec::new(),
        link_local: true,
        accepts_ra: false,
        ipv6_off: false,
        answers_arp: true,
        route_localnet: false,
        group: 0,
        kind: LinkKind::Other,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        controller: None,
        settling: false,
        isolated: false,
        odd: Vec::new(),
        lower: None,
        netns_below: None,
        addresses: Vec::new(),
        dynamic: Vec::new(),
        vlans: Vec::new(),
    };
    let mut works = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::OperState(state) => works = *state == State::Up,
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => link.lower = Some(*index),
            LinkAttribute::LinkNetNsId(id) => link.netns_below = Some(*id),
            LinkAttribute::PropList(props) => {
                link.altnames.extend(props.iter().filter_map(|prop| match prop {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                }));
            }
            LinkAttribute::AfSpecUnspec(specs) => {
                link.link_local = gives_itself_an_address(specs);
                link.accepts_ra = ipv6(specs, |settings| settings.accept_ra != 0);
                link.ipv6_off = ipv6(specs, |settings| settings.disable_ipv6 != 0);
                link.answers_arp = !ipv4(specs, |settings| settings.arp_ignore == i32::from(ARP_IGNORE_ALL));
                link.route_localnet = ipv4(specs, |settings| settings.route_localnet != 0);
            }
            LinkAttribute::LinkInfo(infos) => {
                link.kind = read_kind(infos);
                link.settling = settles(infos);
                link.isolated = isolated(infos);
                link.odd = odd(infos);
            }
            _ => {}
        }
    }
    // A port whose link does not work, or not yet, is off by itself.
    link.odd.retain(|what| *what != PORT_STATE || works);
    link
}

fn gives_itself_an_address(specs: &[AfSpecUnspec]) -> bool {
    !specs.iter().any(|spec| match spec {
        AfSpecUnspec::Inet6(items) => {
            items.iter().any(|item| matches!(item, AfSpecInet6::AddrGenMode(In6AddrGenMode::None)))
        }
        _ => false,
    })
}

/// Whether a link's settings of IPv6 are so.
fn ipv6(specs: &[AfSpecUnspec], so: impl Fn(&Inet6DevConf) -> bool) -> bool {
    let items = specs.iter().filter_map(|spec| match spec {
        AfSpecUnspec::Inet6(items) => Some(items),
        _ => None,
    });
    items.flatten().any(|item| matches!(item, AfSpecInet6::DevConf(settings) if so(settings)))
}

/// Whether a link's settings of IPv4 are so.
fn ipv4(specs: &[AfSpecUnspec], so: impl Fn(&InetDevConf) -> bool) -> bool {
    let items = specs.iter().filter_map(|spec| match spec {
        AfSpecUnspec::Inet(items) => Some(items),
        _ => None,
    });
    items.flatten().any(|item| matches!(item, AfSpecInet::DevConf(settings) if so(settings)))
}

/// What a bridge keeps of its port.
fn port_settings(infos: &[LinkInfo]) -> impl Iterator<Item = &InfoBridgePort> {
    let settings = infos.iter().filter_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(items)) => Some(items),
        _ => None,
    });
    settings.flatten()
}

fn settles(infos: &[LinkInfo]) -> bool {
    port_settings(infos).any(|item| {
        matches!(item, InfoBridgePort::State(BridgePortState::Listening | BridgePortState::Learning))
    })
}

fn isolated(infos: &[LinkInfo]) -> bool {
    port_settings(infos).any(|item| matches!(item, InfoBridgePort::Isolated(true)))
}

/// The name of a port's state among what is odd.
pub const PORT_STATE: &str = "state";

/// What of a port or a bridge is not as the kernel makes it; only what changes who hears whom.
fn odd(infos: &[LinkInfo]) -> Vec<&'static str> {
    let port = port_settings(infos).filter_map(|item| match item {
        InfoBridgePort::State(BridgePortState::Disabled) => Some(PORT_STATE),
        InfoBridgePort::HairpinMode(true) => Some("hairpin"),
        InfoBridgePort::Guard(true) => Some("guard"),
        InfoBridgePort::Protect(true) => Some("root block"),
        InfoBridgePort::Learning(false) => Some("learning"),
        InfoBridgePort::UnicastFlood(false) => Some("flood"),
        InfoBridgePort::MulticastFlood(false) => Some("multicast flood"),
        InfoBridgePort::BroadcastFlood(false) => Some("broadcast flood"),
        InfoBridgePort::ProxyARP(true) | InfoBridgePort::ProxyARPWifi(true) => Some("ARP proxy"),
        InfoBridgePort::NeighSupress(true) => Some("neighbour suppression"),
        InfoBridgePort::Locked(true) => Some("lock"),
        _ => None,
    });
    let data = infos.iter().filter_map(|info| match info {
        LinkInfo::Data(InfoData::Bridge(items)) => Some(items),
        _ => None,
    });
    let bridge = data.flatten().filter_map(|item| match item {
        InfoBridge::AgeingTime(time) if *time != AGEING_TIME => Some("ageing time"),
        InfoBridge::GroupFwdMask(1..) => Some("forwarding of link-local groups"),
        InfoBridge::NfCallIpTables(true) => Some("iptables' hold on IPv4"),
        InfoBridge::NfCallIp6Tables(true) => Some("iptables' hold on IPv6"),
        InfoBridge::NfCallArpTables(true) => Some("arptables' hold"),
        _ => None,
    });
    port.chain(bridge).collect()
}

fn read_kind(infos: &[LinkInfo]) -> LinkKind {
    let mut kind = LinkKind::Other;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => kind = LinkKind::Veth,
            LinkInfo::Kind(InfoKind::Tun) => kind = LinkKind::Tun,
            LinkInfo::Data(InfoData::Bridge(data)) => {
                let mut read = (false, false, 1);
                for item in data {
                    match item {
                        InfoBridge::VlanFiltering(on) => read.0 = *on,
                        InfoBridge::StpState(state) => read.1 = *state != BridgeStpState::Disabled,
                        InfoBridge::VlanDefaultPvid(pvid) => read.2 = *pvid,
                        _ => {}
                    }
                }
                kind = LinkKind::Bridge { vlan_filtering: read.0, stp: read.1, default_pvid: read.2 };
            }
            LinkInfo::Data(InfoData::Vlan(data)) => {
                let mut read = (0, VlanProtocol::Dot1q);
                for item in data {
                    match item {
                        InfoVlan::Id(vid) => read.0 = *vid,
                        InfoVlan::Protocol(KernelProtocol::Ieee8021Ad) => read.1 = VlanProtocol::Dot1ad,
                        _ => {}
                    }
                }
                kind = LinkKind::Vlan { vid: read.0, protocol: read.1 };
            }
            LinkInfo::Data(InfoData::MacVlan(data)) => {
                let mode = data.iter().find_map(|item| match item {
                    InfoMacVlan::Mode(mode) => macvlan_mode(*mode),
                    _ => None,
                });
                kind = LinkKind::Macvlan { tap: false, mode };
            }
            LinkInfo::Data(InfoData::MacVtap(data)) => {
                let mode = data.iter().find_map(|item| match item {
                    InfoMacVtap::Mode(mode) => macvlan_mode(*mode),
                    _ => None,
                });
                kind = LinkKind::Macvlan { tap: true, mode };
            }
            LinkInfo::Data(InfoData::Vxlan(data)) => kind = read_vxlan(data),
            _ => {}
        }
    }
    kind
}

fn read_vxlan(data: &[InfoVxlan]) -> LinkKind {
    let (mut vni, mut port, mut local, mut remote) = (0, 0, None, None);
    for item in data {
        match item {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::Local(ip) => local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::V6(*ip)),
            InfoVxlan::Group(ip) => remote = Some(IpAddr::V4(*ip)),
            InfoVxlan::Group6(ip) => remote = Some(IpAddr::V6(*ip)),
            _ => {}
        }
    }
    LinkKind::Vxlan { vni, port, local, remote }
}

fn macvlan_mode(mode: KernelMode) -> Option<MacvlanMode> {
    match mode {
        KernelMode::Bridge => Some(MacvlanMode::Bridge),
        KernelMode::Vepa => Some(MacvlanMode::Vepa),
        KernelMode::Private => Some(MacvlanMode::Private),
        _ => None,
    }
}

pub(super) fn read_route(message: &RouteMessage) -> Option<Route> {
    if message.header.protocol != RouteProtocol::from(ROUTE_PROTOCOL) {
        return None;
    }
    let mut to = None;
    let mut via = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = address_of(address),
            RouteAttribute::Gateway(address) => via = address_of(address),
            _ => {}
        }
    }
    let via = via?;
    let unspecified = match via {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let to = IpNetwork::new(to.unwrap_or(unspecified), message.header.destination_prefix_length).ok()?;
    Some(Route { to, via })
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
