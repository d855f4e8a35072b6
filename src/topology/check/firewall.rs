//! Firewalls: zones, masquerade, DHCP; rules are in `rules`.

use std::collections::{BTreeMap, HashMap};

use ipnetwork::IpNetwork;

use super::dhcp;
use super::guests::{Drafts, GuestDraft};
use super::nics::InterfaceDraft;
use super::segments::{Dhcp, Segments};
use crate::diagnostic::Sink;
use crate::spec::decode::{At, Slot};
use crate::spec::file;
use crate::spec::suggest::unknown;
use crate::spec::tree::shortened;
use crate::topology::AddressRange;

/// The flavour of a firewall that names none.
const LINUX: &str = "linux";

/// A firewall's zones, and what else is known before its rules.
pub(super) struct Zones {
    pub(super) flavour: String,
    /// Kernel names of the interfaces, by zone.
    pub(super) interfaces: BTreeMap<String, Vec<String>>,
    pub(super) masquerade: Vec<String>,
    pub(super) dhcp: BTreeMap<String, AddressRange>,
    /// Some zones could not be read, so nothing is said about missing ones.
    loose: bool,
}

impl Zones {
    /// Whether there is such a zone; notes a dangling name.
    pub(super) fn known(&self, name: &At<String>, guest: &str, sink: &mut Sink) -> bool {
        let known = self.interfaces.contains_key(&name.value);
        if !known && !self.loose {
            let message = format!("firewall `{guest}` has no zone `{}`", shortened(name));
            sink.hinted(
                name.span,
                message,
                unknown(name, "zones", self.interfaces.keys().map(String::as_str)),
            );
        }
        known
    }
}

/// Reads the zones and DHCP servers of every firewall.
pub(super) fn check(drafts: &Drafts<'_>, segments: &mut Segments, sink: &mut Sink) -> HashMap<String, Zones> {
    let mut out = HashMap::new();
    for (name, draft) in drafts {
        let Some(draft) = draft else { continue };
        if let Slot::Good(router) = &draft.decl.router
            && !router.value
            && !draft.decl.firewall.is_absent()
        {
            let message = format!("guest `{name}` is a firewall, and firewalls forward");
            sink.hinted(router.span, message, "remove `router: false`");
        }
        if let Slot::Good(firewall) = &draft.decl.firewall {
            out.insert(name.clone(), one(name, draft, firewall, segments, sink));
        }
    }
    out
}

fn one(
    name: &str,
    draft: &GuestDraft<'_>,
    decl: &file::Firewall,
    segments: &mut Segments,
    sink: &mut Sink,
) -> Zones {
    let mut zones = Zones {
        flavour: decl.flavour.get().map_or(LINUX, |flavour| flavour.value.0).to_owned(),
        interfaces: BTreeMap::new(),
        masquerade: Vec::new(),
        dhcp: BTreeMap::new(),
        loose: decl.zones.is_bad(),
    };
    let members = members(name, draft, decl, &mut zones, sink);
    for zone in decl.masquerade.get().map_or(&[][..], |list| &list.items) {
        if zones.masquerade.contains(&zone.value) {
            sink.hinted(zone.span, format!("zone `{}` is listed twice", zone.value), "remove one of them");
        } else if zones.known(zone, name, sink) {
            zones.masquerade.push(zone.value.clone());
        }
    }
    for (zone, range) in decl.dhcp.get().map_or(&[][..], |table| &table.entries) {
        if !zones.known(zone, name, sink) {
            continue;
        }
        let Some(range) = range else { continue };
        let interfaces = members.get(zone.value.as_str()).map_or(&[][..], Vec::as_slice);
        if serve(name, zone, range, interfaces, draft.loose, segments, sink) {
            zones.dhcp.insert(zone.value.clone(), range.value);
        }
    }
    zones
}

type Members<'d> = HashMap<&'d str, Vec<&'d InterfaceDraft>>;

fn members<'d>(
    name: &str,
    draft: &'d GuestDraft<'_>,
    decl: &'d file::Firewall,
    zones: &mut Zones,
    sink: &mut Sink,
) -> Members<'d> {
    let mut members = Members::new();
    let Some(table) = decl.zones.get() else { return members };
    if table.entries.is_empty() {
        let hint = "name at least one, such as `zones: { wan: [wan] }`";
        sink.hinted(table.span, format!("firewall `{name}` has no zones"), hint);
        zones.loose = true;
    }
    let mut taken: HashMap<&str, &str> = HashMap::new();
    for (zone, list) in &table.entries {
        let kernel = zones.interfaces.entry(zone.value.clone()).or_default();
        let Some(list) = list else { continue };
        if list.items.is_empty() && !list.broken {
            let message = format!("zone `{}` has no NIC", zone.value);
            sink.hinted(list.span, message, "name the firewall's NICs in it, or remove the zone");
        }
        for reference in &list.items {
            let Some(interface) = draft.resolve(reference, name, sink) else { continue };
            if let Some(first) = taken.insert(&interface.name, &zone.value) {
                let message = if first == zone.value {
                    format!("`{}` is listed twice in zone `{first}`", reference.value)
                } else {
                    format!("`{}` is already in zone `{first}`", reference.value)
                };
                sink.hinted(reference.span, message, "each NIC or VLAN belongs to one zone");
                continue;
            }
            kernel.push(interface.name.clone());
            members.entry(&zone.value).or_default().push(interface);
        }
    }
    members
}

/// Whether the firewall can serve this range in this zone.
fn serve(
    name: &str,
    zone: &At<String>,
    range: &At<AddressRange>,
    interfaces: &[&InterfaceDraft],
    loose: bool,
    segments: &mut Segments,
    sink: &mut Sink,
) -> bool {
    let fixed = |interface: &InterfaceDraft| interface.statics.iter().find(|net| net.is_ipv4()).copied();
    let servers: Vec<(&InterfaceDraft, IpNetwork)> =
        interfaces.iter().filter_map(|interface| Some((*interface, fixed(interface)?))).collect();
    let [(interface, address)] = servers.as_slice() else {
        let unread =
            loose || interfaces.iter().any(|interface| interface.asked && interface.statics.is_empty());
        if servers.is_empty() && !unread && !interfaces.is_empty() {
            let message = format!(
                "firewall `{name}` cannot serve DHCP in zone `{}`: it has no static IPv4 address there",
                zone.value
            );
            sink.hinted(zone.span, message, "give its NIC (or VLAN) in the zone an `address`");
        } else if servers.len() > 1 {
            let message = format!(
                "firewall `{name}` has {} addresses in zone `{}`, so one DHCP range is not enough",
                servers.len(),
                zone.value
            );
            sink.hinted(zone.span, message, "make a zone of each NIC that needs DHCP");
        }
        return false;
    };
    let Some(segment) = interface.segment.and_then(|id| segments.all.get_mut(id)) else { return false };
    let server = format!("firewall `{name}`");
    let hint = "set `dhcp: false` on the network, or remove the range here";
    let entry = Dhcp { server, routes: true, range: Some(range.value) };
    if !dhcp::claim(segment, entry, zone.span, hint, sink) {
        return false;
    }
    dhcp::fits(range, &super::address::subnet(address), segment, sink);
    true
}
