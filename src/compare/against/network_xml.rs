//! What libvirt is told: the network, and a domain's NIC on it. The element names are those of libvirt's network and
//! domain formats, <https://libvirt.org/formatnetwork.html>, <https://libvirt.org/formatdomain.html>.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use quick_xml::Writer;

use super::things::{Backend, Make, Thing};
use crate::error::{Context, Result};
use crate::host::libvirt::xml::{Xml, leaf, node};
use crate::topology::{Forward, Mac, Network, Protocol};

/// libvirt's name for the network.
pub const NAME: &str = "real";

/// The network's XML; `None` where libvirt knows none. `bridge` is the kernel name that its bridge gets, or has.
///
/// # Errors
/// When it cannot be written.
pub fn network(thing: &Thing, network: &Network, bridge: &str, uplink: &str) -> Result<Option<String>> {
    let mut w = writer();
    let written = match thing.make {
        Make::User(_) | Make::Managed => return Ok(None),
        Make::Network(mode) => node(&mut w, "network", &[], |w| own(w, mode, network, bridge)),
        Make::HostBridge => node(&mut w, "network", &[], |w| {
            name(w)?;
            leaf(w, "forward", &[("mode", "bridge")])?;
            leaf(w, "bridge", &[("name", bridge)])
        }),
        Make::Direct(mode) => node(&mut w, "network", &[], |w| {
            name(w)?;
            node(w, "forward", &[("mode", mode)], |w| leaf(w, "interface", &[("dev", uplink)]))
        }),
    };
    written.context(failed)?;
    text(w).map(Some)
}

/// A network whose bridge libvirt makes: the addresses and the DHCP range are those of netloom's own.
fn own(w: &mut Xml, mode: &str, network: &Network, bridge: &str) -> io::Result<()> {
    name(w)?;
    match mode {
        "none" => {}
        // Without this it hides guests behind the host's IPv4 address alone, and routes IPv6.
        "nat" => node(w, "forward", &[("mode", mode)], |w| leaf(w, "nat", &[("ipv6", "yes")]))?,
        _ => leaf(w, "forward", &[("mode", mode)])?,
    }
    leaf(w, "bridge", &[("name", bridge), ("stp", "on"), ("delay", "0")])?;
    for host in &network.host {
        let (address, prefix) = (host.ip().to_string(), host.prefix().to_string());
        let family = family(host.ip());
        let attributes = [("family", family), ("address", address.as_str()), ("prefix", prefix.as_str())];
        match network.dhcp.filter(|_| host.is_ipv4()) {
            None => leaf(w, "ip", &attributes)?,
            Some(range) => node(w, "ip", &attributes, |w| {
                let (first, last) = (range.first.to_string(), range.last.to_string());
                node(w, "dhcp", &[], |w| leaf(w, "range", &[("start", &first), ("end", &last)]))
            })?,
        }
    }
    Ok(())
}

/// A domain's XML with a NIC in it. `own` are the addresses that a NIC of its own engine is for.
///
/// # Errors
/// When it cannot be written.
pub fn with_nic(
    domain: &str,
    thing: &Thing,
    mac: Mac,
    own: &[IpNetwork],
    forwards: &[&Forward],
) -> Result<String> {
    let mut w = writer();
    let mac = mac.to_string();
    let written = match thing.make {
        Make::User(backend) => node(&mut w, "interface", &[("type", "user")], |w| {
            leaf(w, "mac", &[("address", &mac)])?;
            user(w, backend, own, forwards)?;
            model(w)
        }),
        _ => node(&mut w, "interface", &[("type", "network")], |w| {
            leaf(w, "mac", &[("address", &mac)])?;
            leaf(w, "source", &[("network", NAME)])?;
            model(w)?;
            if thing.isolated { leaf(w, "port", &[("isolated", "yes")]) } else { Ok(()) }
        }),
    };
    written.context(failed)?;
    let nic = text(w)?;
    let (before, after) = domain.rsplit_once("</devices>").unwrap_or((domain, ""));
    Ok(format!("{before}{nic}\n</devices>{after}"))
}

fn model(w: &mut Xml) -> io::Result<()> {
    leaf(w, "model", &[("type", "virtio")])?;
    leaf(w, "rom", &[("enabled", "no")]) // nothing boots from the network
}

fn user(w: &mut Xml, backend: Backend, own: &[IpNetwork], forwards: &[&Forward]) -> io::Result<()> {
    for address in own {
        // slirp is told its network, passt the guest's address.
        let ip = if backend == Backend::Slirp { address.network() } else { address.ip() };
        let (ip, prefix) = (ip.to_string(), address.prefix().to_string());
        leaf(w, "ip", &[("family", family(address.ip())), ("address", &ip), ("prefix", &prefix)])?;
    }
    if backend == Backend::Slirp {
        return Ok(());
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        // One entry serves both families.
        let mut ranges: Vec<(u16, u16)> =
            forwards.iter().filter(|f| f.protocol == protocol).map(|f| (f.ports.0, f.port)).collect();
        ranges.dedup();
        let proto = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
        if !ranges.is_empty() {
            node(w, "portForward", &[("proto", proto)], |w| {
                for (outer, inner) in ranges {
                    leaf(w, "range", &[("start", &outer.to_string()), ("to", &inner.to_string())])?;
                }
                Ok(())
            })?;
        }
    }
    leaf(w, "backend", &[("type", "passt")])
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ipv4" } else { "ipv6" }
}

fn name(w: &mut Xml) -> io::Result<()> {
    crate::host::libvirt::xml::text(w, "name", &[], NAME)
}

fn writer() -> Xml {
    Writer::new_with_indent(Vec::new(), b' ', 2)
}

fn text(w: Xml) -> Result<String> {
    String::from_utf8(w.into_inner()).context(failed)
}

fn failed() -> String {
    "cannot describe libvirt's network".to_owned()
}
