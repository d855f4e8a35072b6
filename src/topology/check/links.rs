//! Links between networks: VLANs by name on both sides, and what becomes one segment.

use std::collections::HashMap;

use super::networks::{Net, Nets};
use super::segments::Segments;
use crate::diagnostic::Sink;
use crate::mode::Uplink;
use crate::spec::decode::{At, Slot};
use crate::spec::file::{self, TrunkChoice};
use crate::spec::suggest::listing;
use crate::topology::{Attach, SwitchLink};

/// Checks every link and joins the segments it connects.
pub(super) fn check(
    file: &file::File,
    nets: &Nets,
    segments: &mut Segments,
    sink: &mut Sink,
) -> Vec<SwitchLink> {
    let mut out = Vec::new();
    let mut pairs: HashMap<[String; 2], u32> = HashMap::new();
    let mut reach = Reach::default();
    for link in file.links.get().map_or(&[][..], |list| &list.items) {
        let Some((a, b)) = ends(link, nets, sink) else { continue };
        let mut pair = [a.network.name.clone(), b.network.name.clone()];
        pair.sort();
        if let Some(line) = pairs.insert(pair, link.at.line) {
            let message = format!(
                "networks `{}` and `{}` are already linked (line {line})",
                a.network.name, b.network.name
            );
            sink.hinted(link.at, message, "put all VLANs into one link's `trunk`");
            continue;
        }
        if reach.joined(&a.network.name, &b.network.name) && !(a.network.stp && b.network.stp) {
            let message =
                format!("the link between `{}` and `{}` closes a loop", a.network.name, b.network.name);
            sink.hinted(
                link.at,
                message,
                "remove a link of the loop, or set `stp: true` on every network of it",
            );
        }
        if a.network.mtu != b.network.mtu {
            let message = format!(
                "the linked networks `{}` and `{}` have different MTUs, {} and {}",
                a.network.name, b.network.name, a.network.mtu, b.network.mtu
            );
            sink.hinted(link.at, message, "give both the same `mtu`");
        }
        if let Some(link) = attach(link, a, b, segments, sink) {
            out.push(link);
        }
    }
    out
}

/// Which networks links already connect.
#[derive(Default)]
struct Reach {
    parent: HashMap<String, String>,
}

impl Reach {
    fn root(&self, name: &str) -> String {
        let mut at = name.to_owned();
        while let Some(next) = self.parent.get(&at) {
            at.clone_from(next);
        }
        at
    }
    /// Connects two; true when they were connected before.
    fn joined(&mut self, a: &str, b: &str) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return true;
        }
        self.parent.insert(a, b);
        false
    }
}

fn ends<'n>(link: &file::Link, nets: &'n Nets, sink: &mut Sink) -> Option<(&'n Net, &'n Net)> {
    let list = link.between.get()?;
    if list.broken {
        return None;
    }
    let [a, b] = list.items.as_slice() else {
        let message = format!("a link is between two networks, not {}", list.items.len());
        sink.hinted(list.span, message, "write `between: [first, second]`");
        return None;
    };
    if a.value == b.value {
        sink.hinted(
            b.span,
            format!("a link cannot join network `{}` to itself", a.value),
            "name two networks",
        );
        return None;
    }
    let found = (nets.find(a, sink), nets.find(b, sink));
    let (Some(a), Some(b)) = found else { return None };
    let without = [a, b].into_iter().find(|net| matches!(net.network.wiring.uplink, Uplink::Macvlan(_)));
    if let Some(net) = without {
        let message = format!(
            "network `{}` has no bridge that a link could join: mode `{}`",
            net.network.name, net.network.mode
        );
        sink.hinted(link.at, message, "take a mode with a bridge, such as `bridged` or `internal`");
        return None;
    }
    Some((a, b))
}

fn attach(
    link: &file::Link,
    a: &Net,
    b: &Net,
    segments: &mut Segments,
    sink: &mut Sink,
) -> Option<SwitchLink> {
    let between = [a.network.name.clone(), b.network.name.clone()];
    let vxlan = link.vxlan.get().map(|vni| vni.value.0);
    let (tags_a, tags_b) = (!a.network.vlans.is_empty(), !b.network.vlans.is_empty());
    let unknown = (a.vlans_loose && !tags_a) || (b.vlans_loose && !tags_b);
    match (tags_a, tags_b) {
        _ if unknown => None,
        (false, false) => {
            if let Some(span) = asked(link) {
                let message = format!("networks `{}` and `{}` have no VLANs", between[0], between[1]);
                sink.hinted(span, message, "remove `trunk` and `native`, or give both networks `vlans`");
                return None;
            }
            join(segments, a, b, None);
            Some(SwitchLink { between, attach: [Attach::Plain, Attach::Plain], vxlan })
        }
        (true, true) => trunk(link, a, b, segments, sink).map(|attach| SwitchLink {
            between,
            attach: [attach.clone(), attach],
            vxlan,
        }),
        _ => {
            let (with, without) = if tags_a { (a, b) } else { (b, a) };
            let message = format!(
                "network `{}` has VLANs and network `{}` has none, so no link can join them",
                with.network.name, without.network.name
            );
            sink.hinted(link.at, message, "give both the same `vlans`, or none");
            None
        }
    }
}

fn asked(link: &file::Link) -> Option<crate::diagnostic::Span> {
    match (&link.trunk, &link.native) {
        (Slot::Good(TrunkChoice::All(span)), _) => Some(*span),
        (Slot::Good(TrunkChoice::Names(list)), _) => Some(list.span),
        (_, Slot::Good(native)) => Some(native.span),
        _ => None,
    }
}

fn join(segments: &mut Segments, a: &Net, b: &Net, vid: Option<u16>) {
    if let (Some(a), Some(b)) = (segments.find(&a.network.name, vid), segments.find(&b.network.name, vid)) {
        segments.join(a, b);
    }
}

fn trunk(link: &file::Link, a: &Net, b: &Net, segments: &mut Segments, sink: &mut Sink) -> Option<Attach> {
    let native = match &link.native {
        Slot::Good(name) => Some(common(name, a, b, sink)?),
        _ => None,
    };
    let tagged = match &link.trunk {
        Slot::Absent if native.is_some() => Vec::new(),
        Slot::Absent => {
            let both: Vec<&str> = a
                .network
                .vlans
                .keys()
                .filter(|name| b.network.vlans.contains_key(*name))
                .map(String::as_str)
                .collect();
            let hint = format!("add `trunk: all`, or a list of VLANs that both have: {}", listing(both));
            sink.hinted(link.at, "the link says no VLANs", hint);
            return None;
        }
        Slot::Bad => return None,
        Slot::Good(TrunkChoice::All(span)) => {
            let both = a.network.vlans.keys().filter(|name| b.network.vlans.contains_key(*name));
            let vids: Option<Vec<u16>> =
                both.map(|name| common(&At { value: name.clone(), span: *span }, a, b, sink)).collect();
            let mut vids = vids?;
            vids.retain(|vid| Some(*vid) != native);
            vids
        }
        Slot::Good(TrunkChoice::Names(list)) => {
            let mut vids = Vec::new();
            for name in &list.items {
                let Some(vid) = common(name, a, b, sink) else { continue };
                if Some(vid) == native {
                    let message =
                        format!("VLAN `{}` cannot travel tagged and untagged on one link", name.value);
                    sink.hinted(name.span, message, "remove it from `trunk`, or remove `native`");
                } else if vids.contains(&vid) {
                    sink.hinted(
                        name.span,
                        format!("VLAN `{}` is listed twice", name.value),
                        "remove one of them",
                    );
                } else {
                    vids.push(vid);
                }
            }
            vids
        }
    };
    if tagged.is_empty() && native.is_none() {
        let broken = matches!(&link.trunk, Slot::Good(TrunkChoice::Names(list)) if list.broken || !list.items.is_empty());
        if !broken {
            let message =
                format!("the link between `{}` and `{}` carries no VLAN", a.network.name, b.network.name);
            sink.hinted(
                asked(link).unwrap_or(link.at),
                message,
                "list at least one VLAN that both networks have",
            );
        }
        return None;
    }
    for vid in tagged.iter().copied().chain(native) {
        join(segments, a, b, Some(vid));
    }
    let mut tagged = tagged;
    tagged.sort_unstable();
    Some(Attach::Trunk { tagged, native })
}

/// The VID of a VLAN that both networks have, with the same VID.
fn common(name: &At<String>, a: &Net, b: &Net, sink: &mut Sink) -> Option<u16> {
    let (on_a, on_b) = (a.vid(name, sink), b.vid(name, sink));
    let (on_a, on_b) = (on_a?, on_b?);
    if on_a != on_b {
        let message = format!(
            "VLAN `{}` has VID {on_a} on network `{}` and VID {on_b} on network `{}`",
            name.value, a.network.name, b.network.name
        );
        sink.hinted(name.span, message, "a trunk does not change VIDs: give the VLAN the same VID on both");
        return None;
    }
    Some(on_a)
}
