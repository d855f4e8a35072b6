//! What a guest is told about itself. One description serves both kinds: a VM gets it through its NoCloud seed, a
//! namespace guest has it applied from the host.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::firewall::Compiled;
use crate::topology::{Guest, Interface, Mac, Route, Service, Topology};

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

/// Describes a guest from the checked model; the firewall's policy is already compiled.
#[must_use]
pub fn describe(topology: &Topology, guest: &Guest, compiled: Option<Compiled>) -> GuestConfig {
    let nics = guest
        .nics
        .iter()
        .map(|nic| NicConfig {
            name: format!("eth{}", nic.index),
            mac: nic.mac,
            mtu: nic.mtu,
            interfaces: nic.interfaces.clone(),
        })
        .collect();
    let mut nameservers: Vec<IpAddr> = guest
        .nics
        .iter()
        .filter_map(|nic| topology.networks.get(&nic.network))
        .filter(|network| network.wiring.dns)
        .flat_map(|network| match network.resolver {
            Some(resolver) => vec![resolver.ip()],
            None => network.gateway.iter().map(ipnetwork::IpNetwork::ip).collect(),
        })
        .collect();
    nameservers.dedup();
    let (ruleset, dnsmasq) = compiled.map_or((None, None), |c| (Some(c.ruleset), c.dnsmasq));
    GuestConfig {
        lab: topology.lab.clone(),
        name: guest.name.clone(),
        nics,
        routes: guest.routes.clone(),
        forwarding: guest.firewall.is_some() || guest.router,
        nameservers,
        ruleset,
        dnsmasq,
        serve: guest.serve.clone(),
    }
}

impl GuestConfig {
    /// A configuration that says nothing.
    #[must_use]
    pub fn empty(lab: &str, name: &str) -> Self {
        Self {
            lab: lab.to_owned(),
            name: name.to_owned(),
            nics: Vec::new(),
            routes: Vec::new(),
            forwarding: false,
            nameservers: Vec::new(),
            ruleset: None,
            dnsmasq: None,
            serve: Vec::new(),
        }
    }
}
