//! What a guest is told about itself. One description serves both kinds: a VM gets it through its NoCloud seed, a
//! namespace guest has it applied from the host.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::topology::{Interface, Mac, Route, Service};

/// A guest's whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Lab.
    pub lab: String,
    /// Guest; also the host name.
    pub name: String,
    /// NICs in order.
    pub nics: Vec<NicConfig>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Whether the guest forwards IPv4 and IPv6. Switched on only after `ruleset` is loaded.
    pub forwarding: bool,
    /// DNS servers for interfaces that are not configured by DHCP.
    pub nameservers: Vec<IpAddr>,
    /// A whole nftables script for `nft -f`.
    pub ruleset: Option<String>,
    /// A whole dnsmasq configuration for the zones the guest serves, without paths of files.
    pub dnsmasq: Option<String>,
    /// Services answered with one line, `LAB/GUEST tcp/80`.
    pub serve: Vec<Service>,
}

/// One NIC as the guest sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NicConfig {
    /// Kernel name: `eth0`.
    pub name: String,
    /// By which the guest finds it.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// The NIC's own IP interface (without VID) and one for each tagged VLAN.
    pub interfaces: Vec<Interface>,
}
