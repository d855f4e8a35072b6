//! What surrounds the host in a sandbox: a router with a LAN, a neighbour on that LAN, and a host outside.
//!
//! ```text
//!  host eth0 .10 ──┐
//!                  ├── lan0 (bridge) router out0 ──── eth0 outside
//!   lan eth0 .20 ──┘   192.0.2.1, DHCP, RA            198.51.100.10
//! ```
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
/// What the neighbour and the outside host answer, one line with their name in it.
pub const SERVICES: [&str; 4] = ["tcp/80", "udp/53", "tcp/7", "udp/7"];

/// The LAN's subnets and the one outside.
#[must_use]
pub fn subnets() -> Vec<IpNetwork> {
    [ROUTER_ADDRESSES, ROUTER_OUTSIDE_ADDRESSES]
        .iter()
        .flat_map(|addresses| addresses.iter().zip(PREFIX_LENGTHS))
        .filter_map(|(address, length)| IpNetwork::new(*address, length).ok())
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
pub async fn set_hairpin(on: bool) -> Result<()> {
    build::set_hairpin(on).await
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
