//! The file's mirror to the checked model. Every mistake is noted at its own place, and one cause gives one message:
//! what depends on something that is already wrong is passed over.
//!
//! The order follows what depends on what: networks, the segments they and the links make, the guests' NICs with their
//! static addresses, who serves DHCP where, what that means for the other interfaces, routes, rules, expectations.

mod address;
mod dhcp;
mod endpoint;
mod expect;
mod external;
mod firewall;
mod forwards;
mod guests;
mod legs;
mod links;
mod networks;
mod nics;
mod routes;
mod rules;
mod segments;
mod uplinks;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use self::guests::{Drafts, GuestDraft, Macs};
use self::networks::{Declared, Nets};
use self::segments::Segments;
use super::{Firewall, Guest, LoadOptions, Nic, Route, Topology};
use crate::diagnostic::Sink;
use crate::spec::file::File;

/// Memory in MiB of a guest the file says nothing about.
const MEMORY: u32 = 128;

/// Checks a file. The result counts only when `sink` stayed empty.
pub(super) fn check(file: &File, options: &LoadOptions, sink: &mut Sink) -> Topology {
    let lab = file.lab.get().map(|lab| lab.value.0.clone()).unwrap_or_default();
    let mut nets = networks::check(file, sink);
    let mut segments = Segments::new(&nets);
    let links = links::check(file, &nets, &mut segments, sink);
    overlaps(&nets, &segments, sink);
    let mut drafts = guests::check(file, &nets, &mut segments, sink);
    dhcp::announce(&nets, &mut segments, sink);
    let zones = firewall::check(&drafts, &mut segments, sink);
    dhcp::ranges(&mut nets, &mut segments, sink);
    for draft in drafts.values_mut().flatten() {
        routes::addressing(draft, &segments);
    }
    let mut routes: HashMap<String, Vec<Route>> = HashMap::new();
    let mut firewalls: HashMap<String, Firewall> = HashMap::new();
    for (name, draft) in &drafts {
        let Some(draft) = draft else { continue };
        routes.insert(name.clone(), routes::check(name, draft, &segments, sink));
        if let Some(zones) = zones.get(name) {
            firewalls.insert(name.clone(), rules::check(name, draft, zones, &drafts, sink));
        }
    }
    let expectations = expect::Expectations {
        nets: &nets,
        drafts: &drafts,
        firewalls: &firewalls,
        loose: file.guests.is_bad(),
    };
    let expect = expectations.check(file, sink);
    let outside = outside(file, sink);
    let guests = finish(&lab, drafts, routes, firewalls, options);
    forwards::check(file, &mut nets, &guests, sink);
    let networks = nets.by_name.into_iter().map(|(name, net)| (name, net.network)).collect();
    Topology { lab, networks, links, guests, expect, outside }
}

/// Subnets of different segments must not share addresses: the host and the firewalls route between them.
fn overlaps(nets: &Nets, segments: &Segments, sink: &mut Sink) {
    let mut all: Vec<(&Declared, Option<segments::Id>)> = Vec::new();
    for (name, net) in &nets.by_name {
        for declared in &net.declared {
            all.push((declared, segments.find(name, declared.vid)));
        }
    }
    // Sorted by first address, wider first, a subnet overlaps an earlier one exactly when it begins before the
    // furthest end so far.
    all.sort_by_key(|(declared, _)| {
        let net = declared.net;
        (address::family(net.ip()), address::number(net.network()), net.prefix(), declared.span)
    });
    let mut widest: Option<(&Declared, Option<segments::Id>)> = None;
    for (declared, segment) in all {
        let Some((other, home)) = widest.filter(|(other, _)| address::overlap(&other.net, &declared.net))
        else {
            widest = Some((declared, segment));
            continue;
        };
        if home == segment && segment.is_some() && other.net == declared.net {
            continue;
        }
        let (first, second) = if other.span <= declared.span { (other, declared) } else { (declared, other) };
        let message = format!(
            "the subnet `{}` of {} overlaps `{}` of {} (line {})",
            second.net, second.label, first.net, first.label, first.span.line
        );
        sink.hinted(second.span, message, "choose a subnet that shares no address with another");
    }
}

fn outside(file: &File, sink: &mut Sink) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for address in file.outside.get().map_or(&[][..], |list| &list.items) {
        if let Some(what) = address::special(address.value) {
            let message = format!("`{}` cannot be outside: it is {what}", address.value);
            sink.hinted(address.span, message, "name a host beyond your router that answers");
        } else if out.contains(&address.value) {
            sink.hinted(address.span, format!("`{}` is listed twice", address.value), "remove one of them");
        } else {
            out.push(address.value);
        }
    }
    out
}

/// Drafts to guests, in the order of their names.
fn finish(
    lab: &str,
    drafts: Drafts<'_>,
    mut routes: HashMap<String, Vec<Route>>,
    mut firewalls: HashMap<String, Firewall>,
    options: &LoadOptions,
) -> BTreeMap<String, Guest> {
    let mut macs = Macs::new(&drafts);
    let mut out = BTreeMap::new();
    for (name, draft) in drafts {
        let Some(draft) = draft else { continue };
        let GuestDraft { decl, kind, image, serve, nics, .. } = draft;
        let mut finished = Vec::with_capacity(nics.len());
        for nic in nics {
            let mac = macs.choose(lab, &name, &nic);
            finished.push(Nic {
                index: nic.index,
                network: nic.network,
                attach: nic.attach,
                mac,
                mtu: nic.mtu,
                pvlan: nic.pvlan,
                interfaces: nic.interfaces.into_iter().map(nics::InterfaceDraft::finish).collect(),
            });
        }
        let guest = Guest {
            name: name.clone(),
            kind: options.guests.unwrap_or(kind),
            image,
            memory_mib: decl.memory.get().map_or(MEMORY, |memory| memory.value.0),
            cpus: decl.cpus.get().map_or(1, |cpus| cpus.value.0),
            nics: finished,
            routes: routes.remove(&name).unwrap_or_default(),
            firewall: firewalls.remove(&name),
            serve,
            router: decl.router.get().is_some_and(|router| router.value),
        };
        out.insert(name, guest);
    }
    out
}
