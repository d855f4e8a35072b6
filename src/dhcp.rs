//! Configuration text of a network's own DHCP and DNS server (dnsmasq on the host, one for each network).

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::topology::AddressRange;

/// A network that gets a DHCP or DNS server.
#[derive(Debug, Clone, PartialEq)]
pub struct DhcpNetwork {
    /// Lab; also the DNS domain of the guests' names.
    pub lab: String,
    /// Kernel name of the host's leg: the bridge.
    pub link: String,
    /// The host's own addresses on it, with prefix length.
    pub addresses: Vec<IpNetwork>,
    /// IPv4 addresses handed out; `None` for no DHCP.
    pub range: Option<AddressRange>,
    /// Whether routers are advertised and prefixes handed out (SLAAC) for the IPv6 subnets of `addresses`.
    pub advertise: bool,
    /// Whether names are resolved: the guests' and, through the host's own resolver, all others.
    pub dns: bool,
    /// Whether the host leads anywhere (the network's egress is not none): else it is not offered as the router.
    pub router: bool,
    /// Bytes; told to the guests when it is not 1500.
    pub mtu: u32,
    /// Names that resolve although no lease was given: guests with static addresses. Also `host` itself.
    pub hosts: Vec<(String, IpAddr)>,
}

/// The whole configuration file. `{dir}` in it stands for the service's own directory.
#[must_use]
pub fn network_config(network: &DhcpNetwork) -> String {
    let _ = network;
    String::new()
}
