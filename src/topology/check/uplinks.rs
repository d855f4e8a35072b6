//! Uplinks: links of the host that networks join, whole or one VLAN of them.

use std::collections::{BTreeMap, HashMap};

use super::networks::Net;
use crate::diagnostic::Sink;
use crate::mode::{Gateway, Mode, Uplink};
use crate::spec::decode::{At, Slot};
use crate::spec::file::{self, HostChoice};
use crate::spec::suggest::did_you_mean;
use crate::spec::tree::shortened;

/// A link can be a port of one bridge only, and has no macvlans then.
pub(super) fn shared(by_name: &BTreeMap<String, Net>, file: &file::File, sink: &mut Sink) {
    let mut seen: HashMap<(&str, &[u16]), (&str, bool)> = HashMap::new();
    let mut carried: HashMap<(&str, u16), &str> = HashMap::new();
    for (name, decl) in file.networks.get().map_or(&[][..], |table| &table.entries) {
        let uplink = decl.as_ref().and_then(|decl| decl.uplink.get());
        let Some(uplink) =
            uplink.filter(|_| by_name.get(&name.value).is_some_and(|net| net.network.uplink.is_some()))
        else {
            continue;
        };
        // Macvlans share a link among themselves; a bridge wants it for itself.
        let Some(net) = by_name.get(&name.value).map(|net| &net.network) else { continue };
        let alone = net.wiring.uplink == Uplink::Port;
        // A frame with this tag goes to one of them only.
        let vids: Vec<u16> = match net.tags.first() {
            Some(outer) => vec![*outer],
            None => net.vlans.values().map(|vlan| vlan.vid).collect(),
        };
        // Within a provider's VLAN they have VLANs of their own, or else are told below.
        let same = |first: &str| {
            let shares = |other: &Net| other.network.tags.len() == net.tags.len() && !net.tags.is_empty();
            by_name.get(first).is_some_and(shares)
        };
        for vid in vids {
            let first = *carried.entry((&uplink.value, vid)).or_insert(name);
            if first != name.value && !same(first) {
                let message =
                    format!("VLAN {vid} of `{}` is already carried by network `{first}`", uplink.value);
                sink.hinted(uplink.span, message, "put the guests on one network");
            }
        }
        let key = (uplink.value.as_str(), net.tags.as_slice());
        match seen.get(&key) {
            Some((first, other)) if alone || *other => {
                let which = match net.tags.last() {
                    None => format!("`{}`", uplink.value),
                    Some(vid) => format!("VLAN {vid} of `{}`", uplink.value),
                };
                let message = format!("{which} is already the uplink of network `{first}`");
                let hint = "a link can be a port of one bridge only: put the guests on one network";
                sink.hinted(uplink.span, message, hint);
            }
            _ => {
                seen.insert(key, (name, alone));
            }
        }
    }
}

/// Which VLAN of its uplink the network is.
pub(super) fn tags(decl: &file::Network, mode: Option<&'static Mode>, net: &mut Net, sink: &mut Sink) {
    let (Some(list), Some(mode)) = (decl.tag.get(), mode) else { return };
    if mode.wiring.uplink != Uplink::Port {
        let message = format!("mode `{}` has no bridge with an uplink whose frames could be tagged", mode.id);
        sink.hinted(
            list.span,
            message,
            "remove `tag`; modes that have one are `bridged` and `esxi/port-group`",
        );
        return;
    }
    if list.items.is_empty() && !list.broken {
        sink.hinted(list.span, "`tag` names no VLAN", "name one, such as `tag: 10`, or remove `tag`");
        return;
    }
    if list.items.len() > 2 {
        sink.hinted(list.span, "a frame has at most two tags here", "write `[outer, inner]`, or one VID");
        return;
    }
    if !decl.vlans.is_absent() {
        let message =
            format!("network `{}` has `vlans`, so it cannot be one VLAN of its uplink", net.network.name);
        sink.hinted(list.span, message, "remove `tag` or `vlans`");
        return;
    }
    if let Slot::Good(HostChoice::Is(At { value: true, span })) = &decl.host {
        let hint = "remove `host`, or give the host a leg in a VLAN: `vlans: { NAME: { id: 10, subnet: 10.0.0.0/24, host: true } }`";
        sink.hinted(*span, "the host has no address in a VLAN of its uplink", hint);
    }
    net.network.tags = list.items.iter().map(|vid| vid.value.0).collect();
}

/// The link of the host that the network joins.
pub(super) fn uplink(
    name: &At<String>,
    decl: &file::Network,
    mode: Option<&'static Mode>,
    net: &mut Net,
    sink: &mut Sink,
) {
    let Some(mode) = mode else { return };
    let needs = mode.wiring.uplink != Uplink::None || mode.wiring.gateway == Gateway::Router;
    match &decl.uplink {
        Slot::Absent if needs => {
            let message = format!(
                "network `{}` needs an uplink: mode `{}` joins a link of the host",
                name.value, mode.id
            );
            sink.hinted(name.span, message, "name the link, such as `uplink: eth0` (`ip link` lists them)");
        }
        Slot::Good(uplink) if !needs => {
            let message = format!("mode `{}` has no uplink", mode.id);
            let hint = "remove `uplink`, or take the mode `bridged`, which joins a link of the host";
            sink.hinted(uplink.span, message, hint);
        }
        // What the kernel takes as a link's name (`dev_valid_name`).
        Slot::Good(uplink)
            if uplink.len() > 15
                || uplink.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
                || [".", ".."].contains(&uplink.as_str()) =>
        {
            let message = format!("`{}` cannot be the name of a link", shortened(uplink));
            let hint = did_you_mean(uplink, ["eth0", "ens3"])
                .unwrap_or_else(|| "a link's name has 1 to 15 characters, no space, `/` or `:`".to_owned());
            sink.hinted(uplink.span, message, hint);
        }
        Slot::Good(uplink) => net.network.uplink = Some(uplink.value.clone()),
        _ => {}
    }
}
