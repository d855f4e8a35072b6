//! One resource as wanted against the same as found.

use std::fmt::{Debug, Display};

use ipnetwork::IpNetwork;

use crate::host::service;
use crate::inventory::Found;
use crate::resource::{Bridge, Domain, Macvlan, Port, Resource, Tap, Veth, Vlan, Vxlan, names};
use crate::topology::Attach;

/// How they differ.
#[derive(Debug, PartialEq)]
pub(super) enum Difference {
    /// They do not.
    None,
    /// It can be changed in place.
    Update(Vec<String>),
    /// It must be made anew.
    Replace(Vec<String>),
}

/// Digest of what a resource is made from, for those that the kernel shows only in part.
#[must_use]
pub fn digest(resource: &Resource) -> Option<String> {
    match resource {
        Resource::Ruleset(ruleset) => Some(names::sha256(ruleset.script.as_bytes())),
        Resource::Service(service) => Some(service::digest(service)),
        Resource::Domain(domain) => {
            let text = serde_json::to_string(domain).unwrap_or_default();
            Some(names::sha256(text.as_bytes())[..16].to_owned())
        }
        _ => None,
    }
}

pub(super) fn between(wanted: &Resource, found: &Found) -> Difference {
    let mut reasons = found.defects.clone();
    let mut replace = false;
    match (wanted, &found.resource) {
        (Resource::Bridge(wanted), Resource::Bridge(found)) => bridge(wanted, found, &mut reasons),
        (Resource::Tap(wanted), Resource::Tap(found)) => replace = tap(wanted, found, &mut reasons),
        (Resource::Veth(wanted), Resource::Veth(found)) => replace = veth(wanted, found, &mut reasons),
        (Resource::Vlan(wanted), Resource::Vlan(found)) => replace = vlan(wanted, found, &mut reasons),
        (Resource::Macvlan(wanted), Resource::Macvlan(found)) => {
            replace = macvlan(wanted, found, &mut reasons);
        }
        (Resource::Vxlan(wanted), Resource::Vxlan(found)) => replace = vxlan(wanted, found, &mut reasons),
        (Resource::Routes(wanted), Resource::Routes(found)) => {
            let text = |r: &crate::topology::Route| format!("{} via {}", r.to, r.via);
            lists("route", &wanted.routes, &found.routes, text, &mut reasons);
        }
        (Resource::Sysctls(wanted), Resource::Sysctls(found)) => {
            for (path, value) in &wanted.values {
                let now = found.values.get(path).map_or("absent", String::as_str);
                differ(&format!("net/{path}"), now, value.as_str(), &mut reasons);
            }
            let over = found.values.keys().filter(|path| !wanted.values.contains_key(*path));
            reasons.extend(over.map(|path| format!("net/{path} is no longer needed")));
        }
        (Resource::Uplink(wanted), Resource::Uplink(found)) => {
            differ("link", &found.link, &wanted.link, &mut reasons);
            let there = reasons.len();
            differ("bridge", &found.bridge, &wanted.bridge, &mut reasons);
            if there == reasons.len() {
                differ("port", attach(&found.attach), attach(&wanted.attach), &mut reasons);
            }
            replace = wanted.link != found.link;
        }
        (Resource::Namespace(_), Resource::Namespace(_)) => replace = !reasons.is_empty(),
        (Resource::Ruleset(_), Resource::Ruleset(_)) => {
            if digest(wanted) != found.digest {
                reasons.push("its rules differ".to_owned());
            }
        }
        (Resource::Service(_), Resource::Service(old)) => {
            if digest(wanted) != found.digest {
                reasons.push(service_reason(wanted, old));
            }
            replace = true;
        }
        (Resource::Domain(new), Resource::Domain(old)) => {
            if digest(wanted) != found.digest {
                domain(new, old, &mut reasons);
            }
            replace = true;
        }
        _ => reasons.push("is something else".to_owned()),
    }
    match (reasons.is_empty(), replace) {
        (true, _) => Difference::None,
        (false, true) => Difference::Replace(reasons),
        (false, false) => Difference::Update(reasons),
    }
}

fn differ<T: PartialEq + Display>(what: &str, found: T, wanted: T, reasons: &mut Vec<String>) {
    if found != wanted {
        reasons.push(format!("{what} {found} → {wanted}"));
    }
}

fn lists<T: PartialEq>(
    what: &str,
    wanted: &[T],
    found: &[T],
    text: impl Fn(&T) -> String,
    reasons: &mut Vec<String>,
) {
    reasons
        .extend(found.iter().filter(|x| !wanted.contains(x)).map(|x| format!("{what} {} is extra", text(x))));
    reasons.extend(
        wanted.iter().filter(|x| !found.contains(x)).map(|x| format!("{what} {} is missing", text(x))),
    );
}

fn addresses(wanted: &[IpNetwork], found: &[IpNetwork], reasons: &mut Vec<String>) {
    lists("address", wanted, found, ToString::to_string, reasons);
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn bridge(wanted: &Bridge, found: &Bridge, reasons: &mut Vec<String>) {
    differ("name", found.link.as_str(), wanted.link.as_str(), reasons);
    differ("MAC", found.mac, wanted.mac, reasons);
    differ("MTU", found.mtu, wanted.mtu, reasons);
    differ("VLAN filtering", on_off(found.vlan_filtering), on_off(wanted.vlan_filtering), reasons);
    differ("STP", on_off(found.stp), on_off(wanted.stp), reasons);
    differ("host leg", on_off(found.host_leg), on_off(wanted.host_leg), reasons);
    // Those of an uplink are not ours; but before it joins, all are.
    if !wanted.uplinked || !found.uplinked {
        addresses(&wanted.addresses, &found.addresses, reasons);
    }
    if wanted.vlan_filtering {
        let native = |vid: Option<u16>| vid.map_or("none".to_owned(), |vid| vid.to_string());
        differ("the host's native VLAN", native(found.own_native), native(wanted.own_native), reasons);
        lists("the host's VLAN", &wanted.own_vids, &found.own_vids, ToString::to_string, reasons);
    }
}

fn attach(attach: &Attach) -> String {
    match attach {
        Attach::Plain => "no VLAN".to_owned(),
        Attach::Access(vid) => format!("access {vid}"),
        Attach::Trunk { tagged, native } => {
            let native = native.map(|vid| format!(" native {vid}")).unwrap_or_default();
            format!("trunk [{}]{native}", runs(tagged))
        }
    }
}

/// VIDs as people write them, runs of three and more as `3-5`.
fn runs(vids: &[u16]) -> String {
    let runs = vids.chunk_by(|a, b| a + 1 == *b).flat_map(|run| match run {
        [first, _, .., last] => vec![format!("{first}-{last}")],
        few => few.iter().map(ToString::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(",")
}

fn port(wanted: Option<&Port>, found: Option<&Port>, reasons: &mut Vec<String>) {
    let bridge = |port: Option<&Port>| match port {
        Some(port) if !port.bridge.is_empty() => format!("`{}`", port.bridge),
        _ => "none".to_owned(),
    };
    let before = reasons.len();
    differ("bridge", bridge(found), bridge(wanted), reasons);
    if let (Some(wanted), Some(found), true) = (wanted, found, before == reasons.len()) {
        differ("port", attach(&found.attach), attach(&wanted.attach), reasons);
        differ("port isolation", on_off(found.isolated), on_off(wanted.isolated), reasons);
    }
}

fn tap(wanted: &Tap, found: &Tap, reasons: &mut Vec<String>) -> bool {
    differ("name", found.link.as_str(), wanted.link.as_str(), reasons);
    let replace = found.link != wanted.link;
    differ("MTU", found.mtu, wanted.mtu, reasons);
    port(Some(&wanted.port), Some(&found.port), reasons);
    replace
}

fn veth(wanted: &Veth, found: &Veth, reasons: &mut Vec<String>) -> bool {
    let mut replace = false;
    let listens = wanted.ends.iter().any(|end| end.advertised == Some(true));
    for (wanted, found) in wanted.ends.iter().zip(&found.ends) {
        if (&wanted.place, &wanted.link) != (&found.place, &found.link) {
            reasons.push(format!("end `{}` is elsewhere", wanted.link));
            replace = true;
        }
        differ("MAC", found.mac, wanted.mac, reasons);
        differ("MTU", found.mtu, wanted.mtu, reasons);
        port(wanted.port.as_ref(), found.port.as_ref(), reasons);
        replace |= stale(wanted.port.as_ref(), found.port.as_ref(), listens);
        addresses(&wanted.addresses, &found.addresses, reasons);
        replace |= advertisements(wanted.advertised, found.advertised, reasons);
        let told = |on: bool| if on { "let in" } else { "kept out" };
        differ("packets for the loopback", told(found.route_localnet), told(wanted.route_localnet), reasons);
    }
    replace
}

/// Whether a guest behind a port that moves would keep what it learnt at the old one: neighbours of another network,
/// or addresses that were advertised in another VLAN.
fn stale(wanted: Option<&Port>, found: Option<&Port>, listens: bool) -> bool {
    match (wanted, found) {
        (Some(wanted), Some(found)) => {
            wanted.bridge != found.bridge || (listens && wanted.attach != found.attach)
        }
        _ => false,
    }
}

/// An interface asks for advertisements, or not, from its birth on, and keeps what it was told.
fn advertisements(wanted: Option<bool>, found: Option<bool>, reasons: &mut Vec<String>) -> bool {
    let word = |advertised: Option<bool>| if advertised == Some(true) { "heeded" } else { "ignored" };
    differ("router advertisements", word(found), word(wanted), reasons);
    wanted != found
}

fn vlan(wanted: &Vlan, found: &Vlan, reasons: &mut Vec<String>) -> bool {
    let before = reasons.len();
    differ("name", found.link.as_str(), wanted.link.as_str(), reasons);
    differ("VID", found.vid, wanted.vid, reasons);
    differ("tags", found.protocol.word(), wanted.protocol.word(), reasons);
    differ("parent", found.parent.as_str(), wanted.parent.as_str(), reasons);
    let replace = before != reasons.len();
    differ("MTU", found.mtu, wanted.mtu, reasons);
    port(wanted.port.as_ref(), found.port.as_ref(), reasons);
    addresses(&wanted.addresses, &found.addresses, reasons);
    advertisements(wanted.advertised, found.advertised, reasons) || replace
}

fn macvlan(wanted: &Macvlan, found: &Macvlan, reasons: &mut Vec<String>) -> bool {
    let before = reasons.len();
    differ("parent", found.parent.as_str(), wanted.parent.as_str(), reasons);
    if (&wanted.place, &wanted.link) != (&found.place, &found.link) {
        reasons.push(format!("`{}` is elsewhere", wanted.link));
    }
    let kind = |tap: bool| if tap { "macvtap" } else { "macvlan" };
    differ("kind", kind(found.tap), kind(wanted.tap), reasons);
    let replace = before != reasons.len();
    differ("mode", found.mode.word(), wanted.mode.word(), reasons);
    differ("MAC", found.mac, wanted.mac, reasons);
    differ("MTU", found.mtu, wanted.mtu, reasons);
    addresses(&wanted.addresses, &found.addresses, reasons);
    advertisements(wanted.advertised, found.advertised, reasons) || replace
}

fn vxlan(wanted: &Vxlan, found: &Vxlan, reasons: &mut Vec<String>) -> bool {
    differ("name", found.link.as_str(), wanted.link.as_str(), reasons);
    differ("VNI", found.vni, wanted.vni, reasons);
    if wanted.underlay != found.underlay {
        reasons.push("its packets travel elsewhere".to_owned());
    }
    let family = wanted.remote.is_ipv4() != found.remote.is_ipv4();
    let replace =
        family || (&wanted.link, wanted.vni, &wanted.underlay) != (&found.link, found.vni, &found.underlay);
    differ("local", found.local, wanted.local, reasons);
    differ("remote", found.remote, wanted.remote, reasons);
    differ("MTU", found.mtu, wanted.mtu, reasons);
    port(Some(&wanted.port), Some(&found.port), reasons);
    replace
}

fn service_reason(wanted: &Resource, old: &crate::resource::Service) -> String {
    match wanted {
        Resource::Service(new) if new.argv != old.argv && !old.argv.is_empty() => {
            format!("command `{}` → `{}`", old.argv.join(" "), new.argv.join(" "))
        }
        _ => "its configuration differs".to_owned(),
    }
}

fn domain(wanted: &Domain, found: &Domain, reasons: &mut Vec<String>) {
    let before = reasons.len();
    if found.cpus != 0 {
        differ("memory", format!("{} MiB", found.memory_mib), format!("{} MiB", wanted.memory_mib), reasons);
        differ("cpus", found.cpus, wanted.cpus, reasons);
        named("image", &found.image, &wanted.image, reasons);
        named("NICs", &found.nics, &wanted.nics, reasons);
        let (old, new) = (&found.config, &wanted.config);
        named("firewall rules", &old.ruleset, &new.ruleset, reasons);
        named("DHCP service", &old.dnsmasq, &new.dnsmasq, reasons);
        named("services", &old.serve, &new.serve, reasons);
        named("routes", &old.routes, &new.routes, reasons);
        named("addresses", &old.nics, &new.nics, reasons);
        named("name servers", &old.nameservers, &new.nameservers, reasons);
        named("forwarding", &old.forwarding, &new.forwarding, reasons);
    }
    if reasons.len() == before {
        reasons.push("its description differs".to_owned());
    }
}

fn named<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T, reasons: &mut Vec<String>) {
    if found != wanted {
        reasons.push(format!("{what} differ"));
    }
}
