//! Where interfaces get their addresses from, gateways and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::address::family;
use super::guests::GuestDraft;
use super::nics::{InterfaceDraft, NicDraft};
use super::segments::{Segment, Segments};
use crate::diagnostic::Sink;
use crate::spec::decode::At;
use crate::topology::{Addressing, Route};

/// Decides for every interface without addresses whether it asks for them: only where someone hands them out.
pub(super) fn addressing(draft: &mut GuestDraft<'_>, segments: &Segments) {
    for interface in draft.nics.iter_mut().flat_map(|nic| &mut nic.interfaces) {
        let Some(segment) = interface.segment.and_then(|id| segments.all.get(id)) else { continue };
        interface.addressing = match (interface.asked, segment.dynamic()) {
            (true, _) => Addressing::Static(interface.statics.clone()),
            (false, (false, false)) => Addressing::None,
            (false, (v4, v6)) => Addressing::Dynamic { v4, v6 },
        };
    }
}

/// The default route's destination.
fn everything(version: u8) -> IpNetwork {
    let v4 = || Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).map(IpNetwork::V4);
    let v6 = || Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6);
    let net = if version == 4 { v4() } else { v6() };
    net.unwrap_or_else(|_| IpNetwork::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// A guest's gateways and routes.
pub(super) fn check(name: &str, draft: &GuestDraft<'_>, segments: &Segments, sink: &mut Sink) -> Vec<Route> {
    let mut routes: Vec<(Route, u32)> = Vec::new();
    for nic in &draft.nics {
        for gateway in &nic.gateways {
            if gateway_fits(name, nic, gateway, draft, segments, sink) {
                let route = Route { to: everything(family(gateway.value)), via: gateway.value };
                add(name, route, gateway, &mut routes, sink);
            }
        }
    }
    for route in draft.decl.routes.get().map_or(&[][..], |list| &list.items) {
        let (Some(to), Some(via)) = (route.to.get(), route.via.get()) else { continue };
        let destination = to.value.0.unwrap_or_else(|| everything(family(via.value)));
        if family(destination.ip()) != family(via.value) {
            let message = format!("the next hop `{}` is of another family than `{destination}`", via.value);
            sink.hinted(via.span, message, "IPv4 goes via an IPv4 address, IPv6 via an IPv6 address");
            continue;
        }
        if hop_fits(name, via, draft.interfaces(), draft, segments, "next hop", sink) {
            add(name, Route { to: destination, via: via.value }, to, &mut routes, sink);
        }
    }
    // A gateway that was refused still says that the file chooses its own.
    for version in [4, 6] {
        let said =
            draft.nics.iter().flat_map(|nic| &nic.gateways).any(|gateway| family(gateway.value) == version);
        let default = everything(version);
        if !said
            && !routes.iter().any(|(route, _)| route.to == default)
            && let Some(via) = host_gateway(version, draft, segments)
        {
            routes.push((Route { to: default, via }, 0));
        }
    }
    routes.into_iter().map(|(route, _)| route).collect()
}

fn add<T>(name: &str, route: Route, at: &At<T>, routes: &mut Vec<(Route, u32)>, sink: &mut Sink) {
    if let Some((first, line)) = routes.iter().find(|(other, _)| other.to == route.to) {
        let what = match (route.to.prefix(), family(route.via)) {
            (0, version) => format!("IPv{version} default gateway"),
            _ => format!("route to `{}`", route.to),
        };
        let message = format!("guest `{name}` already has an {what}, `{}` (line {line})", first.via);
        let message = if route.to.prefix() == 0 { message } else { message.replace(" an route", " a route") };
        sink.hinted(at.span, message, "remove one of them");
        return;
    }
    routes.push((route, at.span.line));
}

fn gateway_fits(
    name: &str,
    nic: &NicDraft,
    gateway: &At<IpAddr>,
    draft: &GuestDraft<'_>,
    segments: &Segments,
    sink: &mut Sink,
) -> bool {
    let version = family(gateway.value);
    let dynamic = nic.interfaces.iter().any(|interface| match interface.addressing {
        Addressing::Dynamic { v4, v6 } => (version == 4 && v4) || (version == 6 && v6),
        _ => false,
    });
    if dynamic && nic.interfaces.iter().all(|interface| interface.statics.is_empty()) {
        let message = format!(
            "the gateway `{}` stands on a NIC that gets its address, and its gateway, from the network",
            gateway.value
        );
        sink.hinted(gateway.span, message, "remove `gateway`, or add `address`");
        return false;
    }
    hop_fits(name, gateway, nic.interfaces.iter(), draft, segments, "gateway", sink)
}

/// Whether a next hop is on a subnet of one of the interfaces, and somebody is there.
fn hop_fits<'d>(
    name: &str,
    hop: &At<IpAddr>,
    interfaces: impl Iterator<Item = &'d InterfaceDraft> + Clone,
    draft: &GuestDraft<'_>,
    segments: &Segments,
    noun: &str,
    sink: &mut Sink,
) -> bool {
    let ip = hop.value;
    let known = |interface: &InterfaceDraft| interface.segment.and_then(|id| segments.all.get(id));
    let loose = draft.loose
        || interfaces.clone().any(|interface| {
            known(interface).is_some_and(|segment| segment.loose)
                || (interface.asked && interface.statics.is_empty())
        });
    if draft.interfaces().any(|interface| interface.statics.iter().any(|net| net.ip() == ip)) {
        sink.hinted(
            hop.span,
            format!("the {noun} `{ip}` is guest `{name}` itself"),
            "name the address of another",
        );
        return false;
    }
    let on_link = |interface: &InterfaceDraft, segment: &Segment| {
        let of_lease = matches!(interface.addressing, Addressing::Dynamic { .. });
        interface.statics.iter().any(|net| net.contains(ip))
            || (of_lease && segment.subnets.iter().any(|net| net.contains(ip)))
    };
    let segment = interfaces.clone().find_map(|i| known(i).filter(|segment| on_link(i, segment)));
    match segment {
        Some(segment) if !segment.answers(ip) => {
            let hint =
                interfaces.clone().find_map(|interface| candidate(interface, ip, segments)).map_or_else(
                    || "name the address of a guest that forwards, or of the host".to_owned(),
                    |address| format!("did you mean `{address}`?"),
                );
            let message = format!("nobody has the address of the {noun} `{ip}` in {}", segment.label);
            sink.hinted(hop.span, message, hint);
            false
        }
        Some(_) => true,
        None if loose => false,
        None => {
            let link_local = matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80);
            let subnets: Vec<String> = interfaces
                .flat_map(|interface| &interface.statics)
                .map(|net| format!("`{}`", super::address::subnet(net)))
                .collect();
            let hint = match (link_local, subnets.is_empty()) {
                (true, _) => "name its global address: link-local ones are not known beforehand".to_owned(),
                (false, true) => "give the NIC an address in the same subnet".to_owned(),
                (false, false) => format!("it must be in {}", subnets.join(" or ")),
            };
            sink.hinted(hop.span, format!("guest `{name}` cannot reach the {noun} `{ip}` directly"), hint);
            false
        }
    }
}

/// Who the file may have meant: the host's exit, else the lowest address on the subnet that another has.
fn candidate(interface: &InterfaceDraft, like: IpAddr, segments: &Segments) -> Option<IpAddr> {
    let segment = segments.all.get(interface.segment?)?;
    let home = interface.statics.iter().find(|net| net.contains(like))?;
    let fits = |ip: &&IpAddr| home.contains(**ip) && home.ip() != **ip;
    segment.exits.iter().find(fits).or_else(|| segment.taken.keys().filter(fits).min()).copied()
}

/// The host as default gateway: at the first NIC that leads out, unless addresses come with a gateway there.
fn host_gateway(version: u8, draft: &GuestDraft<'_>, segments: &Segments) -> Option<IpAddr> {
    for interface in draft.interfaces() {
        let Some(segment) = interface.segment.and_then(|id| segments.all.get(id)) else { continue };
        match &interface.addressing {
            Addressing::Dynamic { v4, .. } if version == 4 => {
                if *v4 && (segment.open || segment.dhcp.as_ref().is_some_and(|dhcp| dhcp.routes)) {
                    return None;
                }
            }
            Addressing::Dynamic { v6, .. } => {
                if *v6 && !segment.exits.is_empty() {
                    return None;
                }
            }
            Addressing::Static(nets) => {
                let exit = segment
                    .exits
                    .iter()
                    .find(|exit| family(**exit) == version && nets.iter().any(|net| net.contains(**exit)));
                if let Some(exit) = exit {
                    return Some(*exit);
                }
            }
            Addressing::None => {}
        }
    }
    None
}
