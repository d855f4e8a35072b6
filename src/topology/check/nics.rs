//! NICs: the port on the bridge, the interfaces in the guest, their addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::networks::{Net, Nets};
use super::segments::{Id, Segments};
use crate::diagnostic::{Sink, Span};
use crate::mode::Uplink;
use crate::spec::decode::{At, Many, Slot};
use crate::spec::file::{self, TrunkChoice};
use crate::spec::suggest::{listing, unknown};
use crate::spec::tree::shortened;
use crate::spec::{addresses, values};
use crate::topology::{Addressing, Attach, Interface, Mac, Pvlan};

/// A NIC that is not finished: where its addresses come from is known only when every guest has been read.
pub(super) struct NicDraft {
    pub(super) span: Span,
    pub(super) index: usize,
    pub(super) network: String,
    pub(super) attach: Attach,
    pub(super) mac: Option<At<Mac>>,
    pub(super) mtu: u32,
    pub(super) pvlan: Pvlan,
    pub(super) gateways: Vec<At<IpAddr>>,
    pub(super) interfaces: Vec<InterfaceDraft>,
}

/// An IP interface that is not finished.
pub(super) struct InterfaceDraft {
    pub(super) name: String,
    pub(super) reference: String,
    /// A shorter reference, where it is not ambiguous.
    pub(super) alias: Option<String>,
    pub(super) vid: Option<u16>,
    /// `None` for the NIC below a trunk without native VLAN.
    pub(super) segment: Option<Id>,
    pub(super) statics: Vec<IpNetwork>,
    /// The file gives it addresses, perhaps wrong ones.
    pub(super) asked: bool,
    pub(super) addressing: Addressing,
}

/// One interface still to be named: VLAN name, VID and whether its frames are tagged.
struct Lane {
    vlan: Option<At<String>>,
    vid: Option<u16>,
    tagged: bool,
}

/// Checks one NIC and takes its addresses.
pub(super) fn check(
    index: usize,
    nic: &file::Nic,
    guest: &str,
    nets: &Nets,
    segments: &mut Segments,
    sink: &mut Sink,
) -> Option<NicDraft> {
    let net = nets.find(nic.network.get()?, sink)?;
    let base = base_name(nic, net, sink)?;
    let (attach, lanes) = port(nic, net, sink)?;
    let trunk = matches!(attach, Attach::Trunk { .. });
    let mut interfaces = Vec::new();
    if trunk && lanes.iter().all(|lane| lane.tagged) {
        interfaces.push(InterfaceDraft {
            name: format!("eth{index}"),
            reference: base.clone(),
            alias: None,
            vid: None,
            segment: None,
            statics: Vec::new(),
            asked: false,
            addressing: Addressing::None,
        });
    }
    for lane in &lanes {
        interfaces.push(interface(index, &base, lane, trunk, net, nic, guest, segments, sink));
    }
    misplaced(nic, trunk, &lanes, net, sink);
    Some(NicDraft {
        span: nic.at,
        index,
        network: net.network.name.clone(),
        attach,
        mac: nic.mac.get().copied(),
        mtu: mtu(nic, net, sink),
        pvlan: pvlan(nic, net, sink),
        gateways: nic.gateway.get().map_or_else(Vec::new, |list| list.items.clone()),
        interfaces,
    })
}

fn base_name(nic: &file::Nic, net: &Net, sink: &mut Sink) -> Option<String> {
    match &nic.name {
        Slot::Absent => Some(net.network.name.clone()),
        Slot::Bad => None,
        Slot::Good(name) => match values::check_name(name, "NIC", &[]) {
            Ok(()) => Some(name.value.clone()),
            Err(wrong) => {
                sink.maybe(name.span, wrong.message.unwrap_or_default(), wrong.hint);
                None
            }
        },
    }
}

/// How the NIC's port sits on its bridge, and the VLANs the guest sees.
fn port(nic: &file::Nic, net: &Net, sink: &mut Sink) -> Option<(Attach, Vec<Lane>)> {
    let name = &net.network.name;
    if net.network.vlans.is_empty() {
        if net.vlans_loose {
            return None;
        }
        let asked = [
            nic.vlan.get().map(|vlan| vlan.span),
            trunk_span(&nic.trunk),
            nic.native.get().map(|vlan| vlan.span),
        ];
        if let Some(span) = asked.into_iter().flatten().next() {
            let hint = format!(
                "remove it, or give the network `vlans`, such as `{name}: {{ …, vlans: {{ lan: 10 }} }}`"
            );
            sink.hinted(span, format!("network `{name}` has no VLANs"), hint);
            return None;
        }
        return Some((Attach::Plain, vec![Lane { vlan: None, vid: None, tagged: false }]));
    }
    match (&nic.vlan, &nic.trunk) {
        (Slot::Bad, _) | (_, Slot::Bad) => None,
        (Slot::Good(vlan), Slot::Good(_)) => {
            let hint = "an access port has `vlan`, a trunk port `trunk` (and perhaps `native`)";
            sink.hinted(vlan.span, "a NIC cannot have `vlan` and `trunk` at once", hint);
            None
        }
        (Slot::Absent, Slot::Absent) => {
            let vlans = listing(net.network.vlans.keys().map(String::as_str));
            let message = format!("network `{name}` has VLANs, but the NIC says none");
            let hint = format!("add `vlan: NAME` or `trunk: [NAME, …]`; the VLANs are: {vlans}");
            sink.hinted(nic.network.get().map_or(nic.at, |network| network.span), message, hint);
            None
        }
        (Slot::Good(vlan), Slot::Absent) => {
            if let Some(native) = nic.native.get() {
                let hint = "remove `native`: the frames of an access port are untagged anyway";
                sink.hinted(native.span, "`native` is for trunk ports", hint);
            }
            let vid = net.vid(vlan, sink)?;
            Some((
                Attach::Access(vid),
                vec![Lane { vlan: Some(vlan.clone()), vid: Some(vid), tagged: false }],
            ))
        }
        (Slot::Absent, Slot::Good(trunk)) => trunk_port(nic, trunk, net, sink),
    }
}

fn trunk_span(trunk: &Slot<TrunkChoice>) -> Option<Span> {
    match trunk.get()? {
        TrunkChoice::All(span) => Some(*span),
        TrunkChoice::Names(list) => Some(list.span),
    }
}

fn trunk_port(
    nic: &file::Nic,
    trunk: &TrunkChoice,
    net: &Net,
    sink: &mut Sink,
) -> Option<(Attach, Vec<Lane>)> {
    let native = match &nic.native {
        Slot::Absent => None,
        Slot::Bad => return None,
        Slot::Good(name) => Some((name, net.vid(name, sink)?)),
    };
    let mut tagged: Vec<(u16, At<String>)> = Vec::new();
    match trunk {
        TrunkChoice::All(span) => {
            for (name, vlan) in &net.network.vlans {
                if native.is_none_or(|(native, _)| native.value != *name) {
                    tagged.push((vlan.vid, At { value: name.clone(), span: *span }));
                }
            }
        }
        TrunkChoice::Names(list) => {
            for name in &list.items {
                let Some(vid) = net.vid(name, sink) else { continue };
                if native.is_some_and(|(_, native)| native == vid) {
                    let message = format!("VLAN `{}` cannot be tagged and native on one port", name.value);
                    sink.hinted(name.span, message, "remove it from `trunk`, or remove `native`");
                } else if tagged.iter().any(|(other, _)| *other == vid) {
                    sink.hinted(
                        name.span,
                        format!("VLAN `{}` is listed twice", name.value),
                        "remove one of them",
                    );
                } else {
                    tagged.push((vid, name.clone()));
                }
            }
            if list.items.is_empty() && !list.broken {
                let vlans = listing(net.network.vlans.keys().map(String::as_str));
                sink.hinted(
                    list.span,
                    "the trunk carries no VLAN",
                    format!("list VLANs, or write `all`; there are: {vlans}"),
                );
                return None;
            }
        }
    }
    tagged.sort_by_key(|(vid, _)| *vid);
    let attach = Attach::Trunk {
        tagged: tagged.iter().map(|(vid, _)| *vid).collect(),
        native: native.map(|(_, vid)| vid),
    };
    let first = native.map(|(name, vid)| Lane { vlan: Some(name.clone()), vid: Some(vid), tagged: false });
    let rest = tagged.into_iter().map(|(vid, name)| Lane { vlan: Some(name), vid: Some(vid), tagged: true });
    Some((attach, first.into_iter().chain(rest).collect()))
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is a different thing")]
fn interface(
    index: usize,
    base: &str,
    lane: &Lane,
    trunk: bool,
    net: &Net,
    nic: &file::Nic,
    guest: &str,
    segments: &mut Segments,
    sink: &mut Sink,
) -> InterfaceDraft {
    let (asked, wanted) = wanted(lane, trunk, nic);
    let segment = segments.find(&net.network.name, lane.vid);
    let mut statics = Vec::new();
    let who = format!("guest `{guest}`");
    for address in wanted.map_or(&[][..], |list| &list.items) {
        let address = At { value: address.value.0, span: address.span };
        if let Some(segment) = segment.and_then(|id| segments.all.get_mut(id))
            && segment.take(address, &who, sink)
        {
            statics.push(address.value);
        }
    }
    let vid = lane.vid.filter(|_| lane.tagged);
    InterfaceDraft {
        name: vid.map_or_else(|| format!("eth{index}"), |vid| format!("eth{index}.{vid}")),
        reference: lane
            .vlan
            .as_ref()
            .map_or_else(|| base.to_owned(), |vlan| format!("{base}.{}", vlan.value)),
        alias: (!trunk && lane.vlan.is_some()).then(|| base.to_owned()),
        vid,
        segment,
        statics,
        asked,
        addressing: Addressing::None,
    }
}

/// The addresses the file gives an interface; the first says whether it gives any, readable or not.
fn wanted<'n>(
    lane: &Lane,
    trunk: bool,
    nic: &'n file::Nic,
) -> (bool, Option<&'n Many<At<addresses::Interface>>>) {
    if !trunk {
        return (!nic.address.is_absent(), nic.address.get());
    }
    let Slot::Good(table) = &nic.addresses else { return (nic.addresses.is_bad(), None) };
    let named = |name: &At<String>| lane.vlan.as_ref().is_some_and(|vlan| vlan.value == name.value);
    match table.entries.iter().find(|(name, _)| named(name)) {
        Some((_, list)) => (true, list.as_ref()),
        None => (false, None),
    }
}

/// `address` on a trunk, `addresses` elsewhere, addresses for VLANs the port does not carry.
fn misplaced(nic: &file::Nic, trunk: bool, lanes: &[Lane], net: &Net, sink: &mut Sink) {
    let carried = || lanes.iter().filter_map(|lane| lane.vlan.as_ref()).map(|vlan| vlan.value.as_str());
    if trunk && let Some(list) = nic.address.get() {
        let first = carried().next().unwrap_or("lan");
        let written = list.items.first().map_or_else(String::new, |address| address.value.0.to_string());
        let hint = format!("say for which VLAN: `addresses: {{ {first}: {written} }}`");
        sink.hinted(list.span, "a trunk port has addresses by VLAN", hint);
    }
    let Some(table) = nic.addresses.get() else { return };
    if !trunk {
        sink.hinted(
            table.span,
            "`addresses` is for trunk ports",
            "write `address: …`, which takes one or a list",
        );
        return;
    }
    for (name, _) in &table.entries {
        let unread = net.network.vlans.get(&name.value).is_some_and(|vlan| vlan.vid == 0);
        if unread || carried().any(|vlan| vlan == name.value) {
            continue;
        }
        if net.network.vlans.contains_key(&name.value) {
            let message = format!("VLAN `{}` is not on this port", name.value);
            sink.hinted(
                name.span,
                message,
                format!("add it to `trunk`; the port carries: {}", listing(carried())),
            );
        } else if !net.vlans_loose {
            let message = format!("network `{}` has no VLAN `{}`", net.network.name, shortened(name));
            sink.hinted(
                name.span,
                message,
                unknown(name, "VLANs", net.network.vlans.keys().map(String::as_str)),
            );
        }
    }
}

/// Kernel ports can be told apart only where they are ports of one bridge.
fn pvlan(nic: &file::Nic, net: &Net, sink: &mut Sink) -> Pvlan {
    let usual = if net.network.wiring.isolated { Pvlan::Isolated } else { Pvlan::Promiscuous };
    let Some(asked) = nic.pvlan.get() else { return usual };
    if let Uplink::Macvlan(_) = net.network.wiring.uplink {
        let message =
            format!("mode `{}` has no bridge whose ports could be a private VLAN", net.network.mode);
        sink.hinted(
            asked.span,
            message,
            "remove `pvlan`; `libvirt/macvtap-private` keeps guests from each other",
        );
        return usual;
    }
    asked.value.clone()
}

fn mtu(nic: &file::Nic, net: &Net, sink: &mut Sink) -> u32 {
    let Some(mtu) = nic.mtu.get() else { return net.network.mtu };
    if mtu.value.0 > net.network.mtu {
        let message = format!(
            "an MTU of {} is more than network `{}` carries, {}",
            mtu.value.0, net.network.name, net.network.mtu
        );
        sink.hinted(mtu.span, message, "lower it, or raise the network's `mtu`");
    }
    let lists = nic.address.get().into_iter().chain(
        nic.addresses
            .get()
            .into_iter()
            .flat_map(|table| table.entries.iter().filter_map(|(_, list)| list.as_ref())),
    );
    if mtu.value.0 < 1280 && lists.flat_map(|list| &list.items).any(|address| address.value.0.is_ipv6()) {
        let message = format!("an MTU of {} is too small for IPv6", mtu.value.0);
        sink.hinted(mtu.span, message, "IPv6 needs at least 1280 (RFC 8200)");
    }
    mtu.value.0
}

impl InterfaceDraft {
    /// The finished interface.
    pub(super) fn finish(self) -> Interface {
        Interface { name: self.name, reference: self.reference, vid: self.vid, addressing: self.addressing }
    }
}
