//! VLANs, subnets and the host's legs in them.

use std::collections::HashMap;

use ipnetwork::IpNetwork;

use super::address::{family, first_host, nth_host, reserved, special};
use super::networks::{Declared, Net, asked};
use crate::diagnostic::Sink;
use crate::mode::{Mode, Uplink};
use crate::spec::addresses::Subnet;
use crate::spec::decode::{At, Many, Slot};
use crate::spec::file::{self, HostChoice, VlanChoice};
use crate::topology::Vlan;

/// Reads the VLANs of a network.
pub(super) fn vlans(decl: &file::Network, mode: Option<&'static Mode>, net: &mut Net, sink: &mut Sink) {
    let Some(table) = decl.vlans.get() else { return };
    if table.entries.is_empty() {
        sink.hinted(
            table.span,
            "`vlans` names no VLAN",
            "name one, such as `vlans: { lan: 10 }`, or remove `vlans`",
        );
        net.vlans_loose = true;
    }
    let mut seen: HashMap<u16, String> = HashMap::new();
    for (name, choice) in &table.entries {
        let (id, more) = match choice {
            Some(VlanChoice::Id(id)) => (Some(*id), None),
            Some(VlanChoice::Full(full)) => (full.id.get().copied(), Some(full)),
            None => (None, None),
        };
        // VID 0 stands for one that could not be read; such a topology is never returned.
        let vid = id.map_or(0, |id| id.value.0);
        if let Some(id) = id
            && let Some(first) = seen.insert(vid, name.value.clone())
        {
            let message = format!("VID {vid} is already VLAN `{first}` of network `{}`", net.network.name);
            sink.hinted(id.span, message, "each VLAN of a network has a VID of its own");
        }
        let mut vlan = Vlan { vid, subnets: Vec::new(), host: Vec::new() };
        if let Some(full) = more {
            vlan_more(name, full, mode, &mut vlan, net, sink);
        }
        net.network.vlans.insert(name.value.clone(), vlan);
    }
}

fn vlan_more(
    name: &At<String>,
    full: &file::Vlan,
    mode: Option<&'static Mode>,
    vlan: &mut Vlan,
    net: &mut Net,
    sink: &mut Sink,
) {
    let label = format!("VLAN `{}` of network `{}`", name.value, net.network.name);
    net.loose |= full.subnet.is_bad() || full.host.is_bad();
    vlan.subnets = subnets(&full.subnet, &label, Some(vlan.vid), &mut net.declared, &mut net.loose, sink);
    let Some(span) = asked(&full.host) else { return };
    match mode {
        Some(mode) if !mode.wiring.host_leg && mode.wiring.uplink != Uplink::Port => {
            let message = format!("mode `{}` gives the host no leg in {label}", mode.id);
            sink.hinted(
                span,
                message,
                "remove `host`; the modes that give one are `nat`, `routed`, `host-only` and `bridged`",
            );
        }
        Some(_) if vlan.subnets.is_empty() && !net.loose => {
            let message = format!("the host's leg in {label} needs a subnet");
            sink.hinted(
                span,
                message,
                format!("add it: `{}: {{ id: {}, subnet: 10.0.0.0/24, host: true }}`", name.value, vlan.vid),
            );
            net.loose = true;
        }
        _ => vlan.host = host_leg(&full.host, None, &vlan.subnets, &label, &mut net.loose, sink),
    }
}

/// Reads the subnets of a network or VLAN: at most one of each family, each with room for guests.
pub(super) fn subnets(
    slot: &Slot<Many<At<Subnet>>>,
    label: &str,
    vid: Option<u16>,
    declared: &mut Vec<Declared>,
    loose: &mut bool,
    sink: &mut Sink,
) -> Vec<IpNetwork> {
    let mut out: Vec<IpNetwork> = Vec::new();
    let Some(list) = slot.get() else { return out };
    *loose |= list.broken;
    if list.items.is_empty() && !list.broken {
        *loose = true;
        sink.hinted(
            list.span,
            format!("the list of subnets of {label} is empty"),
            "remove `subnet`, or name one",
        );
    }
    for At { value: Subnet(net), span } in &list.items {
        let version = family(net.ip());
        let most = if net.is_ipv4() { 30 } else { 126 };
        if let Some(what) = special(net.ip()) {
            sink.hinted(*span, format!("`{net}` cannot be a subnet: it is {what}"), private(version));
            *loose = true;
        } else if net.prefix() > most {
            let hint = format!("the prefix length is at most {most}");
            sink.hinted(*span, format!("the subnet `{net}` has no room for two hosts"), hint);
            *loose = true;
        } else if let Some(other) = out.iter().find(|other| family(other.ip()) == version) {
            let message = format!("{label} has two IPv{version} subnets, `{other}` and `{net}`");
            sink.hinted(*span, message, "a network or VLAN has at most one subnet of each family");
        } else {
            out.push(*net);
            declared.push(Declared { span: *span, net: *net, vid, label: label.to_owned() });
        }
    }
    out.sort();
    out
}

fn private(version: u8) -> &'static str {
    if version == 4 {
        "take a private one, such as `10.0.0.0/24` or `192.168.7.0/24`"
    } else {
        "take a private one, such as `fd00:1::/64`"
    }
}

/// The host's addresses on an untagged network or VLAN, in the order of the subnets; those the file does not choose
/// are at position `default`.
pub(super) fn host_leg(
    choice: &Slot<HostChoice>,
    default: Option<u32>,
    subnets: &[IpNetwork],
    label: &str,
    loose: &mut bool,
    sink: &mut Sink,
) -> Vec<IpNetwork> {
    let list = match choice {
        Slot::Absent if default.is_some() => None,
        Slot::Good(HostChoice::Is(is)) if is.value => None,
        Slot::Good(HostChoice::Addresses(list)) => Some(list),
        _ => return Vec::new(),
    };
    let mut chosen: Vec<(u8, IpNetwork)> = Vec::new();
    for address in list.map_or(&[][..], |list| &list.items) {
        let version = family(address.value);
        let Some(net) = subnets.iter().find(|net| net.contains(address.value)) else {
            let all: Vec<String> = subnets.iter().map(IpNetwork::to_string).collect();
            let message = format!("the host's address `{}` is not in the subnet of {label}", address.value);
            sink.hinted(address.span, message, format!("choose one in {}", all.join(" or ")));
            *loose = true;
            continue;
        };
        if let Some(what) = reserved(net, address.value) {
            let message = format!("`{}` is the {what} of `{net}`", address.value);
            let hint = first_host(net).map(|first| format!("choose another, such as `{}`", first.ip()));
            sink.maybe(address.span, message, hint);
            *loose = true;
        } else if chosen.iter().any(|(taken, _)| *taken == version) {
            let message = format!("the host has two IPv{version} addresses in {label}");
            sink.hinted(address.span, message, "give it at most one of each family");
        } else if let Ok(address) = IpNetwork::new(address.value, net.prefix()) {
            chosen.push((version, address));
        }
    }
    let pick = |net: &IpNetwork| {
        let wanted = family(net.ip());
        chosen
            .iter()
            .find(|(version, _)| *version == wanted)
            .map(|(_, address)| *address)
            .or_else(|| nth_host(net, default.unwrap_or(1)))
    };
    subnets.iter().filter_map(pick).collect()
}
