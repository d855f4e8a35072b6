//! A guest's configuration as plain lines and as `ip -batch` files, which a shell applies without understanding them.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::SeedFile;
use crate::guest::config::{GuestConfig, NicConfig};
use crate::topology::{Addressing, Interface, Protocol, Route};

/// The script that applies these files, shared by every image.
const SETUP: &str = include_str!("../setup.sh");
/// Metric of the default route learned on the first dynamic interface; each further one is higher by one.
pub(super) const FIRST_METRIC: usize = 100;

/// Files for `/etc/netloom`, by name.
pub(super) fn render(config: &GuestConfig) -> Vec<SeedFile> {
    let (placed, unplaced): (Vec<&Route>, Vec<&Route>) =
        config.routes.iter().partition(|route| interface_towards(config, route.via).is_some());
    let mut files = vec![
        file("setup.sh", SETUP.into()),
        file("guest", guest(config)),
        file("links", links(config)),
        file("addresses", addresses(config, &placed)),
    ];
    if !unplaced.is_empty() {
        files.push(file(
            "routes",
            unplaced.iter().map(|route| format!("route replace {} via {}\n", route.to, route.via)).collect(),
        ));
    }
    if let Some(ruleset) = &config.ruleset {
        files.push(file("ruleset.nft", ruleset.clone()));
    }
    if let Some(dnsmasq) = &config.dnsmasq {
        files.push(file("dnsmasq.conf", dnsmasq.clone()));
    }
    files
}

/// Every interface that is configured from outside, with the metric of its default route.
pub(super) fn dynamic(config: &GuestConfig) -> impl Iterator<Item = (&Interface, usize)> {
    let interfaces = config.nics.iter().flat_map(|nic| &nic.interfaces);
    interfaces
        .filter(|interface| matches!(interface.addressing, Addressing::Dynamic { .. }))
        .zip(FIRST_METRIC..)
}

/// Whether nothing runs IP on the NIC itself: it only carries VLANs, or is up without an address.
pub(super) fn is_bare(nic: &NicConfig) -> bool {
    nic.interfaces
        .iter()
        .filter(|interface| interface.vid.is_none())
        .all(|own| own.addressing == Addressing::None)
}

/// The interface whose static subnet holds an address.
pub(super) fn interface_towards(config: &GuestConfig, address: IpAddr) -> Option<&Interface> {
    config.nics.iter().flat_map(|nic| &nic.interfaces).find(|interface| match &interface.addressing {
        Addressing::Static(addresses) => addresses.iter().any(|own| own.contains(address)),
        _ => false,
    })
}

fn file(path: &str, text: String) -> SeedFile {
    SeedFile { path: path.into(), text }
}

fn guest(config: &GuestConfig) -> String {
    let mut out = format!("lab {}\nguest {}\n", config.lab, config.name);
    for nic in &config.nics {
        let _ = writeln!(out, "nic {} {}", nic.name, nic.mac);
    }
    for (interface, metric) in dynamic(config) {
        let v4 = matches!(interface.addressing, Addressing::Dynamic { v4: true, .. });
        let _ = writeln!(out, "dynamic {} {} {metric}", interface.name, if v4 { "v4" } else { "v6" });
    }
    for server in &config.nameservers {
        let _ = writeln!(out, "nameserver {server}");
    }
    if config.forwarding {
        out.push_str("forwards yes\n");
    }
    for service in &config.serve {
        match service.protocol {
            Protocol::Tcp => drop(writeln!(out, "serve tcp {}", service.port)),
            Protocol::Udp => drop(writeln!(out, "serve udp {}", service.port)),
            Protocol::Icmp => {} // the kernel answers
        }
    }
    out
}

fn links(config: &GuestConfig) -> String {
    let mut out = String::from("link set dev lo up\n");
    for nic in &config.nics {
        let name = &nic.name;
        let _ = writeln!(out, "link set dev {name} mtu {}", nic.mtu);
        if is_bare(nic) {
            let _ = writeln!(out, "link set dev {name} addrgenmode none");
        }
        for interface in &nic.interfaces {
            if let Some(vid) = interface.vid {
                let _ = writeln!(out, "link add link {name} name {} type vlan id {vid}", interface.name);
                if interface.addressing == Addressing::None {
                    let _ = writeln!(out, "link set dev {} addrgenmode none", interface.name);
                }
            }
        }
    }
    out
}

fn addresses(config: &GuestConfig, routes: &[&Route]) -> String {
    let mut out = String::new();
    for nic in &config.nics {
        for interface in &nic.interfaces {
            let Addressing::Static(addresses) = &interface.addressing else { continue };
            for address in addresses {
                let extra = if address.is_ipv4() { "broadcast +" } else { "nodad" };
                let _ = writeln!(out, "address add {address} {extra} dev {}", interface.name);
            }
        }
        let _ = writeln!(out, "link set dev {} up", nic.name);
        for interface in nic.interfaces.iter().filter(|interface| interface.vid.is_some()) {
            let _ = writeln!(out, "link set dev {} up", interface.name);
        }
    }
    for route in routes {
        if let Some(interface) = interface_towards(config, route.via) {
            // `onlink`: IPv6 takes a moment to see the link as up, and would refuse the gateway until then.
            let _ =
                writeln!(out, "route replace {} via {} dev {} onlink", route.to, route.via, interface.name);
        }
    }
    out
}
