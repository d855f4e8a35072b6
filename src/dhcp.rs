//! Configuration text of a network's own DHCP and DNS server (dnsmasq on the host, one for each network), and the parts
//! of it that a firewall guest's server shares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::topology::{AddressRange, Mac};

/// Lease time: short, since labs come and go.
pub(crate) const LEASE: &str = "10m";

/// Ethernet's MTU in bytes, which nobody needs to be told.
pub(crate) const USUAL_MTU: u32 = 1500;

/// What every server of ours is told. An empty `user` and `group` keep dnsmasq from changing to an account, which it
/// may not do in a user namespace and which a small guest may not have. `no-ping` saves the three seconds in which it
/// would ask whether an address is taken. The `quiet-` ones keep guests from filling the disk with lines about each of
/// their requests.
pub(crate) const COMMON: &str = "user=\ngroup=\nquiet-dhcp\nquiet-dhcp6\nquiet-ra\nno-hosts\nno-resolv\nno-ping\nbind-dynamic\nexcept-interface=lo\ndhcp-authoritative\n";

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
    /// Whether names are resolved.
    pub dns: bool,
    /// Which names besides the lab's own.
    pub upstream: Upstream,
    /// Whether the gateway routes IPv4 and IPv6 for the guests, be it the answers to forwarded connections alone: else it
    /// is not offered as their router.
    pub routes: [bool; 2],
    /// Bytes; told to the guests when it is not 1500.
    pub mtu: u32,
    /// The resolver's own address, where it has one besides `addresses`.
    pub resolver: Option<IpAddr>,
    /// Leases promised to one MAC address.
    pub reserved: Vec<(Mac, IpAddr)>,
    /// Names that resolve although no lease was given: guests with static addresses. Also `host` itself.
    pub hosts: Vec<(String, IpAddr)>,
}

/// Where a network's server asks for names that are not the lab's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// Nowhere: a network that leads nowhere must not be led out by its resolver.
    Nowhere,
    /// Where the host asks (`/etc/resolv.conf`).
    AsHost,
    /// At the servers that the host's resolver asks, since the host's own loopback is out of reach.
    Beyond,
}

/// Stands in a service's files for the file that lists resolvers other than one on the host's loopback.
pub const RESOLVERS: &str = "{resolvers}";

/// The whole configuration file. `{dir}` in it stands for the service's own directory.
#[must_use]
pub fn network_config(network: &DhcpNetwork) -> String {
    let mut out = format!("# DHCP and DNS of lab {} on {}, made by netloom.\n", network.lab, network.link);
    let upstream = if network.dns { network.upstream } else { Upstream::Nowhere };
    out.push_str(&match upstream {
        Upstream::Nowhere => COMMON.to_owned(),
        Upstream::AsHost => COMMON.replace("no-resolv\n", ""),
        Upstream::Beyond => COMMON.replace("no-resolv\n", &format!("resolv-file={RESOLVERS}\n")),
    });
    let _ = writeln!(out, "keep-in-foreground\npid-file=\nlog-facility=-\ndhcp-leasefile={{dir}}/leases");
    let _ = writeln!(out, "interface={}", network.link);
    if network.dns {
        out.push_str("port=53\n");
        out.push_str(&names(&network.lab, &network.hosts));
    } else {
        out.push_str("port=0\n");
    }
    let own = |range: &AddressRange| network.addresses.iter().find(|net| net.contains(range.first));
    if let Some((range, on)) = network.range.as_ref().and_then(|range| Some((range, own(range)?))) {
        let _ = writeln!(out, "dhcp-range={},{},{},{LEASE}", range.first, range.last, on.mask());
        // An option without a value is not sent; left out, dnsmasq would send its own address.
        let told = |yes: bool, ip: IpAddr| if yes { format!(",{ip}") } else { String::new() };
        let _ = writeln!(out, "dhcp-option=option:router{}", told(network.routes[0], on.ip()));
        let resolver = network.resolver.unwrap_or(on.ip());
        let _ = writeln!(out, "dhcp-option=option:dns-server{}", told(network.dns, resolver));
        for (mac, ip) in &network.reserved {
            let _ = writeln!(out, "dhcp-host={mac},{ip}");
        }
        if network.mtu != USUAL_MTU {
            let _ = writeln!(out, "dhcp-option=option:mtu,{}", network.mtu);
        }
    }
    if network.advertise {
        out.push_str(&advertisements(&network.link, &network.addresses, network.routes[1], network.mtu));
    }
    out
}

/// Router advertisements with a prefix for each IPv6 subnet of `addresses`; empty without any. A host that is no
/// router advertises a router lifetime of 0.
pub(crate) fn advertisements(link: &str, addresses: &[IpNetwork], router: bool, mtu: u32) -> String {
    let mut out = String::new();
    for net in addresses.iter().filter(|net| net.is_ipv6()) {
        let _ = writeln!(out, "dhcp-range={},ra-only,{},{LEASE}", net.network(), net.prefix());
    }
    if out.is_empty() {
        return out;
    }
    let mtu = if mtu == USUAL_MTU { String::new() } else { format!("mtu:{mtu},") };
    let lifetime = if router { 1800 } else { 0 };
    // Every 60 s, and at once to whoever asks.
    format!("enable-ra\nra-param={link},{mtu}60,{lifetime}\n{out}")
}

/// Answers for the lab's own names, bare and with the lab as their domain.
pub(crate) fn names(lab: &str, hosts: &[(String, IpAddr)]) -> String {
    let mut out = format!("domain={lab}\nlocal=/{lab}/\nexpand-hosts\n");
    // One record takes one address of each family; further ones get a record of their own.
    let mut by_name: BTreeMap<&str, (Vec<IpAddr>, Vec<IpAddr>)> = BTreeMap::new();
    for (name, address) in hosts {
        let entry = by_name.entry(name).or_default();
        if address.is_ipv4() { entry.0.push(*address) } else { entry.1.push(*address) }
    }
    for (name, (v4, v6)) in by_name {
        for i in 0..v4.len().max(v6.len()) {
            let pair: Vec<String> =
                [v4.get(i), v6.get(i)].into_iter().flatten().map(IpAddr::to_string).collect();
            let _ = writeln!(out, "host-record={name},{name}.{lab},{}", pair.join(","));
        }
    }
    out
}
