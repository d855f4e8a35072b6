//! Guests: what they are made of, and their NICs' names and MAC addresses.

use std::collections::{BTreeMap, HashMap, HashSet};

use ipnetwork::IpNetwork;

use super::address::overlap;
use super::networks::Nets;
use super::nics::{self, InterfaceDraft, NicDraft};
use super::segments::Segments;
use crate::diagnostic::Sink;
use crate::resource::names;
use crate::spec::decode::{At, Slot};
use crate::spec::file::{self, ImageChoice};
use crate::spec::suggest::{listing, unknown};
use crate::spec::tree::shortened;
use crate::topology::{GuestKind, Image, Mac, Protocol, Service};

/// A guest that is not finished.
pub(super) struct GuestDraft<'f> {
    pub(super) decl: &'f file::Guest,
    pub(super) kind: GuestKind,
    pub(super) image: Image,
    pub(super) serve: Vec<Service>,
    pub(super) nics: Vec<NicDraft>,
    /// Some of it could not be read, so nothing is said about what it lacks.
    pub(super) loose: bool,
}

/// All guests by name; `None` for one that could not be read.
pub(super) type Drafts<'f> = BTreeMap<String, Option<GuestDraft<'f>>>;

/// Checks every guest and takes its addresses.
pub(super) fn check<'f>(
    file: &'f file::File,
    nets: &Nets,
    segments: &mut Segments,
    sink: &mut Sink,
) -> Drafts<'f> {
    let mut drafts = Drafts::new();
    for (name, decl) in file.guests.get().map_or(&[][..], |table| &table.entries) {
        let draft = decl.as_ref().map(|decl| one(name, decl, nets, segments, sink));
        drafts.insert(name.value.clone(), draft);
    }
    duplicate_macs(file, &drafts, sink);
    drafts
}

fn one<'f>(
    name: &At<String>,
    decl: &'f file::Guest,
    nets: &Nets,
    segments: &mut Segments,
    sink: &mut Sink,
) -> GuestDraft<'f> {
    let kind = decl.kind.get().map_or(GuestKind::Vm, |kind| kind.value);
    let mut draft = GuestDraft {
        decl,
        kind,
        image: image(name, decl, kind, sink),
        serve: serve(decl, sink),
        nics: Vec::new(),
        loose: decl.nics.is_bad(),
    };
    if let Slot::Good(list) = &decl.nics {
        draft.loose |= list.broken;
        if list.items.is_empty() && !list.broken {
            let message = format!("guest `{}` has no NIC", name.value);
            sink.hinted(list.span, message, "give it at least one: `nics: [{ network: NAME }]`");
            draft.loose = true;
        }
        for (index, nic) in list.items.iter().enumerate() {
            match nics::check(index, nic, name, nets, segments, sink) {
                Some(nic) => draft.nics.push(nic),
                None => draft.loose = true,
            }
        }
    }
    same_names(name, &draft, sink);
    same_subnets(name, &draft, segments, sink);
    draft
}

/// A guest cannot tell two segments apart whose subnets share addresses. Where both subnets are declared, their overlap
/// is noted already.
fn same_subnets(guest: &At<String>, draft: &GuestDraft<'_>, segments: &Segments, sink: &mut Sink) {
    let declared = |interface: &InterfaceDraft, net: &IpNetwork| {
        let segment = interface.segment.and_then(|id| segments.all.get(id));
        segment.is_some_and(|segment| segment.subnets.iter().any(|subnet| subnet.is_ipv4() == net.is_ipv4()))
    };
    let mut seen: Vec<(&InterfaceDraft, &IpNetwork)> = Vec::new();
    for nic in &draft.nics {
        for interface in &nic.interfaces {
            for net in &interface.statics {
                let clash = seen.iter().find(|(other, known)| {
                    other.segment != interface.segment
                        && overlap(known, net)
                        && !(declared(other, known) && declared(interface, net))
                });
                if let Some((other, known)) = clash {
                    let message = format!(
                        "guest `{}` has `{known}` on `{}` and `{net}` on `{}`, which are one subnet",
                        guest.value, other.reference, interface.reference
                    );
                    sink.hinted(nic.span, message, "take another subnet for one of the two networks");
                }
                seen.push((interface, net));
            }
        }
    }
}

/// Two interfaces of a guest must not go by one name.
fn same_names(guest: &At<String>, draft: &GuestDraft<'_>, sink: &mut Sink) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for nic in &draft.nics {
        for interface in &nic.interfaces {
            let first = *seen.entry(interface.reference.as_str()).or_insert(nic.index);
            if first != nic.index {
                let message =
                    format!("two NICs of guest `{}` go by the name `{}`", guest.value, interface.reference);
                sink.hinted(nic.span, message, "give one of them another with `name:`");
                break;
            }
        }
    }
}

fn image(name: &At<String>, decl: &file::Guest, kind: GuestKind, sink: &mut Sink) -> Image {
    let (source, sha256, span) = match &decl.image {
        Slot::Absent | Slot::Bad => return Image::BuiltIn,
        Slot::Good(ImageChoice::Source(source)) => (Some(source), None, source.span),
        Slot::Good(ImageChoice::Full(full)) => (full.source.get(), full.sha256.get(), full.at),
    };
    if kind == GuestKind::Namespace {
        let message = format!("guest `{}` is a namespace and has no image", name.value);
        sink.hinted(span, message, "remove `image`, or `kind: namespace`");
    }
    let Some(source) = source else { return Image::BuiltIn };
    let sha256_bad = matches!(&decl.image, Slot::Good(ImageChoice::Full(full)) if full.sha256.is_bad());
    let scheme = source.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("http" | "https" | "file") if sha256.is_none() && !sha256_bad => {
            let hint = format!("write `image: {{ source: \"{}\", sha256: … }}`", shortened(source));
            sink.hinted(source.span, "an image from a URL needs its checksum", hint);
        }
        Some("http" | "https" | "file") | None => {}
        Some(other) => {
            let message = format!("an image cannot be fetched with `{}:`", shortened(other));
            sink.hinted(source.span, message, "use `https:`, or download it and name its path");
        }
    }
    Image::Disk { source: source.value.clone(), sha256: sha256.map(|sum| sum.value.0.clone()) }
}

fn serve(decl: &file::Guest, sink: &mut Sink) -> Vec<Service> {
    let mut out: Vec<Service> = Vec::new();
    let own_dhcp = decl.firewall.get().is_some_and(|firewall| !firewall.dhcp.is_absent());
    for service in decl.serve.get().map_or(&[][..], |list| &list.items) {
        let taken =
            own_dhcp && ((service.port == 53) || (service.protocol == Protocol::Udp && service.port == 67));
        if service.protocol == Protocol::Icmp {
            let hint = "remove it: every guest answers ICMP echo by itself";
            sink.hinted(service.span, "`icmp` has no port to serve", hint);
        } else if out.contains(&service.value) {
            sink.hinted(service.span, format!("`{}` is served twice", service.value), "remove one of them");
        } else if taken {
            let message = format!("`{}` is taken by the firewall's own DHCP and DNS server", service.value);
            sink.hinted(service.span, message, "remove it, or remove the firewall's `dhcp`");
        } else {
            out.push(service.value);
        }
    }
    out
}

fn duplicate_macs(file: &file::File, drafts: &Drafts<'_>, sink: &mut Sink) {
    let mut seen: HashMap<Mac, (&str, u32)> = HashMap::new();
    for (name, _) in file.guests.get().map_or(&[][..], |table| &table.entries) {
        let Some(Some(draft)) = drafts.get(&name.value) else { continue };
        for mac in draft.nics.iter().filter_map(|nic| nic.mac) {
            if let Some((guest, line)) = seen.get(&mac.value) {
                let message = format!(
                    "the MAC address `{}` is already that of guest `{guest}` (line {line})",
                    mac.value
                );
                sink.hinted(
                    mac.span,
                    message,
                    "change one of them, or leave `mac` out: a stable one is chosen",
                );
            } else {
                seen.insert(mac.value, (name, mac.span.line));
            }
        }
    }
}

/// MAC addresses for NICs the file gives none. They come from a digest of 24 bits, so among thousands of NICs two may
/// meet; the later then gets another, in the order of the guests' names.
pub(super) struct Macs {
    used: HashSet<Mac>,
}

impl Macs {
    pub(super) fn new(drafts: &Drafts<'_>) -> Self {
        let all = drafts.values().flatten().flat_map(|draft| &draft.nics);
        Self { used: all.filter_map(|nic| nic.mac.map(|mac| mac.value)).collect() }
    }
    pub(super) fn choose(&mut self, lab: &str, guest: &str, nic: &NicDraft) -> Mac {
        if let Some(mac) = nic.mac {
            return mac.value;
        }
        let mut mac = names::mac(lab, "nic", &format!("{guest}/{}", nic.index));
        let mut attempt = 1;
        while !self.used.insert(mac) {
            mac = names::mac(lab, "nic", &format!("{guest}/{}/{attempt}", nic.index));
            attempt += 1;
        }
        mac
    }
}

impl GuestDraft<'_> {
    /// Every IP interface.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &InterfaceDraft> + Clone {
        self.nics.iter().flat_map(|nic| &nic.interfaces)
    }

    /// The interface a reference means; notes what is wrong with it.
    pub(super) fn resolve(
        &self,
        reference: &At<String>,
        guest: &str,
        sink: &mut Sink,
    ) -> Option<&InterfaceDraft> {
        let text = reference.value.as_str();
        let exact = self.interfaces().find(|interface| interface.reference == text);
        if let Some(found) = exact {
            if found.segment.is_some() {
                return Some(found);
            }
            let prefix = format!("{text}.");
            let lanes =
                self.interfaces().map(|i| i.reference.as_str()).filter(|name| name.starts_with(&prefix));
            let message = format!("the NIC `{text}` of guest `{guest}` is a trunk");
            sink.hinted(reference.span, message, format!("name one of its VLANs: {}", listing(lanes)));
            return None;
        }
        let mut short = self.interfaces().filter(|interface| interface.alias.as_deref() == Some(text));
        match (short.next(), short.next()) {
            (Some(found), None) => return Some(found),
            (Some(_), Some(_)) => {
                let all = self
                    .interfaces()
                    .filter(|i| i.alias.as_deref() == Some(text))
                    .map(|i| i.reference.as_str());
                let message =
                    format!("`{}` is ambiguous: guest `{guest}` has several such NICs", shortened(text));
                sink.hinted(reference.span, message, format!("write one of: {}", listing(all)));
            }
            _ if self.loose => {}
            _ => {
                let all = self.interfaces().filter(|i| i.segment.is_some()).map(|i| i.reference.as_str());
                let message = format!("guest `{guest}` has no NIC `{}`", shortened(text));
                sink.hinted(reference.span, message, unknown(text, "guest's NICs", all));
            }
        }
        None
    }
}
