//! What surrounds the host in a sandbox: a router with a LAN, a neighbour on that LAN, and a host outside.
//!
//! ```text
//!  host eth0 .10 ──┐
//!                  ├── lan0 (bridge) router out0 ──── eth0 outside
//!   lan eth0 .20 ──┘   192.0.2.1, DHCP, RA            198.51.100.10
//! ```
//!
//! Where the kernel knows VLANs, the same cables carry two more segments, tagged, in each of which the router and the
//! neighbour stand as well:
//!
//! ```text
//!   VLAN 10                              lan .20  ── router 203.0.113.1, DHCP, RA
//!   VLAN 10 in service VLAN 100 (QinQ)   lan .148 ── router 203.0.113.129, DHCP, RA
//! ```
//!
//! The router leads from each of the three to the outside, and from none to another: a management network that is kept
//! apart. The host has no leg in the tagged ones.
//!
//! The addresses are those reserved for documentation (RFC 5737, RFC 3849), so that no lab wants them for itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::error::{Context, Result};
use crate::host::links::Links;
use crate::resource::{Place, Routes};
use crate::topology::Route;

mod build;
mod servers;

pub(super) use build::build;
pub(super) use servers::StandIn;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}
const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}

/// The host's link to the LAN.
pub const HOST_LINK: &str = "eth0";
/// Namespace of the LAN's router.
pub const ROUTER_NETNS: &str = "router";
/// Namespace of the host's neighbour on the LAN.
pub const LAN_NETNS: &str = "lan";
/// Namespace of the host beyond the router.
pub const OUTSIDE_NETNS: &str = "outside";
/// The host's own addresses: IPv4, IPv6.
pub const HOST_ADDRESSES: [IpAddr; 2] = [v4(192, 0, 2, 10), v6(1, 0x10)];
/// The router's addresses on the LAN, next hop of everyone there; IPv4, IPv6.
pub const ROUTER_ADDRESSES: [IpAddr; 2] = [v4(192, 0, 2, 1), v6(1, 1)];
/// The neighbour's addresses: IPv4, IPv6.
pub const LAN_ADDRESSES: [IpAddr; 2] = [v4(192, 0, 2, 20), v6(1, 0x20)];
/// The outside host's addresses: IPv4, IPv6.
pub const OUTSIDE_ADDRESSES: [IpAddr; 2] = [v4(198, 51, 100, 10), v6(2, 0x10)];
/// The router's addresses towards the outside host: IPv4, IPv6.
const ROUTER_OUTSIDE_ADDRESSES: [IpAddr; 2] = [v4(198, 51, 100, 1), v6(2, 1)];
/// Prefix lengths of both networks: IPv4, IPv6.
pub const PREFIX_LENGTHS: [u8; 2] = [24, 64];
/// A VLAN of the LAN, there where the kernel knows VLANs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its VIDs, the outer one (802.1ad) first where there are two.
    pub tags: &'static [u16],
    /// The router's addresses: IPv4, IPv6.
    pub router: [IpAddr; 2],
    /// The neighbour's addresses: IPv4, IPv6.
    pub lan: [IpAddr; 2],
    /// First and last address of its leases.
    leases: [IpAddr; 2],
    /// Prefix of its router advertisements.
    prefix: Ipv6Addr,
}

/// Prefix lengths in each VLAN of the LAN: IPv4, IPv6.
pub const SEGMENT_LENGTHS: [u8; 2] = [25, 64];
/// The VLANs of the LAN.
pub const SEGMENTS: [Segment; 2] = [
    Segment {
        tags: &[10],
        router: [v4(203, 0, 113, 1), v6(3, 1)],
        lan: [v4(203, 0, 113, 20), v6(3, 0x20)],
        leases: [v4(203, 0, 113, 64), v4(203, 0, 113, 126)],
        prefix: Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0),
    },
    Segment {
        tags: &[100, 10],
        router: [v4(203, 0, 113, 129), v6(4, 1)],
        lan: [v4(203, 0, 113, 148), v6(4, 0x20)],
        leases: [v4(203, 0, 113, 192), v4(203, 0, 113, 254)],
        prefix: Ipv6Addr::new(0x2001, 0xdb8, 4, 0, 0, 0, 0, 0),
    },
];

impl Segment {
    /// Name of its interface on a link: `eth0.100.10`.
    fn link(&self, parent: &str) -> String {
        self.tags.iter().fold(parent.to_owned(), |name, vid| format!("{name}.{vid}"))
    }
}

/// The neighbour's addresses that the present sandbox has: on the LAN, then in its VLANs where there are any. To be
/// called inside the sandbox.
///
/// # Errors
/// When the neighbour is gone.
pub async fn lan_addresses() -> Result<Vec<IpAddr>> {
    let state = Links::new("").observe(&Place::Netns(LAN_NETNS.to_owned())).await?;
    let found: Vec<IpAddr> =
        state.links.values().flat_map(|link| link.addresses.iter().map(IpNetwork::ip)).collect();
    let known = LAN_ADDRESSES.into_iter().chain(SEGMENTS.iter().flat_map(|segment| segment.lan));
    Ok(known.filter(|address| found.contains(address)).collect())
}

/// What the neighbour and the outside host answer, one line with their name in it.
pub const SERVICES: [&str; 4] = ["tcp/80", "udp/53", "tcp/7", "udp/7"];

/// Whether the LAN's router has this address on the LAN or in one of its VLANs.
#[must_use]
pub fn is_router(address: IpAddr) -> bool {
    ROUTER_ADDRESSES.contains(&address) || SEGMENTS.iter().any(|segment| segment.router.contains(&address))
}

/// The subnets of the LAN, of its VLANs, and the one outside.
#[must_use]
pub fn subnets() -> Vec<IpNetwork> {
    let untagged = [ROUTER_ADDRESSES, ROUTER_OUTSIDE_ADDRESSES];
    let untagged = untagged.into_iter().map(|addresses| (addresses, PREFIX_LENGTHS));
    untagged
        .chain(SEGMENTS.iter().map(|segment| (segment.router, SEGMENT_LENGTHS)))
        .flat_map(|(addresses, lengths)| addresses.into_iter().zip(lengths))
        .filter_map(|(address, length)| IpNetwork::new(address, length).ok())
        .filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok())
        .collect()
}

/// Tells the router that these networks lie behind the host, as an administrator does for routed networks. Fine when
/// it knows. To be called inside the sandbox.
///
/// # Errors
/// When the router is gone or the kernel refuses.
pub async fn add_return_routes(networks: &[IpNetwork]) -> Result<()> {
    change_return_routes(networks, &HOST_ADDRESSES, &[]).await
}

/// As [`add_return_routes`], for networks that lie behind another station of the LAN, at these addresses.
///
/// # Errors
/// When the router is gone or the kernel refuses.
pub async fn add_return_routes_via(networks: &[IpNetwork], via: &[IpAddr]) -> Result<()> {
    change_return_routes(networks, via, &[]).await
}

/// Whether the LAN's switch sends frames back to the host's port, where they came from.
///
/// # Errors
/// When the router is gone or the kernel refuses.
pub fn set_hairpin(on: bool) -> Result<()> {
    build::set_hairpin(on)
}

/// Undoes [`add_return_routes`]. Fine when the router does not know them.
///
/// # Errors
/// When the router is gone or the kernel refuses.
pub async fn remove_return_routes(networks: &[IpNetwork]) -> Result<()> {
    change_return_routes(&[], &[], networks).await
}

async fn change_return_routes(add: &[IpNetwork], via: &[IpAddr], remove: &[IpNetwork]) -> Result<()> {
    let links = Links::new("");
    let place = Place::Netns(ROUTER_NETNS.to_owned());
    let found = links.observe(&place).await?.routes;
    let mut wanted: Vec<Route> =
        found.iter().filter(|route| !remove.iter().any(|n| whole(*n) == route.to)).copied().collect();
    for network in add.iter().map(|network| whole(*network)) {
        let Some(via) = via.iter().copied().find(|via| via.is_ipv4() == network.is_ipv4()) else { continue };
        if !wanted.iter().any(|route| route.to == network) {
            wanted.push(Route { to: network, via });
        }
    }
    let changed = links.change_routes(&Routes { place, routes: wanted }, &found).await;
    changed.context(|| "cannot change the routes of the sandbox's router".into())
}

/// The network of an address with prefix length, such as a host's.
fn whole(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

/// Whether the kernel has IPv6 at all; a world without it has IPv4 only.
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
