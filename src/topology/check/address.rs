//! Arithmetic and rules of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// The address as a number; compare only within one family.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of a number, in the family of `like`.
pub(super) fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// 4 or 6.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// First and last address a guest or the host may have, as numbers.
pub(super) fn usable(net: &IpNetwork) -> (u128, u128) {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    match net {
        IpNetwork::V4(v4) if v4.prefix() >= 31 => (first, last),
        IpNetwork::V4(_) => (first + 1, last - 1),
        // The first address of an IPv6 subnet is its routers' anycast address (RFC 4291, 2.6.1).
        IpNetwork::V6(v6) if v6.prefix() >= 127 => (first, last),
        IpNetwork::V6(_) => (first + 1, last),
    }
}

/// The first usable address, with prefix length.
pub(super) fn first_host(net: &IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(address(usable(net).0, net.network()), net.prefix()).ok()
}

/// The usable address at a position, 1 the first; the first where the subnet is too small.
pub(super) fn nth_host(net: &IpNetwork, position: u32) -> Option<IpNetwork> {
    let (first, last) = usable(net);
    let wanted = first + u128::from(position.saturating_sub(1));
    let chosen = if wanted <= last { wanted } else { first };
    IpNetwork::new(address(chosen, net.network()), net.prefix()).ok()
}

/// Whether two subnets share addresses.
pub(super) fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// Same subnet, all host bits zero.
pub(super) fn subnet(net: &IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(*net)
}

/// Why an address cannot belong to a guest or to the host at all.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("in 0.0.0.0/8, which means \"this network\""),
        IpAddr::V4(v4) if v4.octets()[0] == 127 => Some("a loopback address"),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => Some("in 240.0.0.0/4, which is reserved"),
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80 => {
            Some("a link-local address, which every NIC has by itself")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        _ => None,
    }
}

/// Why an address of a subnet cannot be a host's: it is the network or the broadcast address.
pub(super) fn reserved(net: &IpNetwork, of: IpAddr) -> Option<&'static str> {
    let (first, last) = usable(net);
    let value = number(of);
    if value < first {
        return Some(if of.is_ipv4() { "network address" } else { "routers' anycast address" });
    }
    (value > last).then_some("broadcast address")
}
