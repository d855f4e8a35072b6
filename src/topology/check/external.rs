//! The leg that a network's own router has on the uplink's network.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::{family, overlap, reserved, special};
use super::networks::Net;
use crate::diagnostic::Sink;
use crate::mode::{Gateway, Mode};
use crate::spec::decode::{At, Slot};
use crate::spec::file;
use crate::topology::External;

/// Reads `external`, which modes with such a router need and no other has.
pub(super) fn check(name: &At<String>, decl: &file::Network, mode: &Mode, net: &mut Net, sink: &mut Sink) {
    let needed = mode.wiring.gateway == Gateway::Router;
    match &decl.external {
        Slot::Absent if needed => {
            let message = format!(
                "network `{}` needs an external address: mode `{}` has a router of its own on the uplink",
                name.value, mode.id
            );
            let hint = "add it, such as `external: { address: 192.0.2.50/24, gateway: 192.0.2.1 }`";
            sink.hinted(name.span, message, hint);
        }
        Slot::Good(external) if !needed => {
            let message = format!("mode `{}` has no router with a leg on an uplink", mode.id);
            sink.hinted(external.at, message, "remove `external`");
        }
        Slot::Good(external) => net.network.external = Some(read(external, net, sink)),
        _ => {}
    }
}

fn read(external: &file::External, net: &Net, sink: &mut Sink) -> External {
    let mut out = External { addresses: Vec::new(), gateways: Vec::new() };
    for address in external.address.get().map_or(&[][..], |list| &list.items) {
        let value = address.value.0;
        let inner = net.network.subnets.iter().find(|subnet| overlap(subnet, &value));
        if let Some(what) = special(value.ip()).or_else(|| reserved(&value, value.ip())) {
            let message = format!("`{value}` cannot be the router's address: it is {what}");
            sink.hinted(address.span, message, "name a free address of the uplink's network");
        } else if let Some(inner) = inner {
            let message = format!("`{value}` overlaps with the network's own subnet `{inner}`");
            sink.hinted(
                address.span,
                message,
                "the router leads from one to the other: name a free address of the uplink's network, or another `subnet`",
            );
        } else if let Some(other) = out.addresses.iter().find(|o| family(o.ip()) == family(value.ip())) {
            let message = format!("the router has two addresses of one family, `{other}` and `{value}`");
            sink.hinted(address.span, message, "name at most one of each family");
        } else {
            out.addresses.push(value);
        }
    }
    for gateway in external.gateway.get().map_or(&[][..], |list| &list.items) {
        let ip = gateway.value;
        let reached = |net: &IpNetwork| net.contains(ip) && net.ip() != ip;
        if !out.addresses.iter().any(reached) {
            sink.hinted(
                gateway.span,
                format!("the router cannot reach the gateway `{ip}` directly"),
                "it must be another address in the subnet of `address`",
            );
        } else if out.gateways.iter().any(|other| family(*other) == family(ip)) {
            sink.hinted(gateway.span, "the router has two gateways of one family", "remove one of them");
        } else {
            out.gateways.push(ip);
        }
    }
    out
}

/// Routers on one uplink are stations of one network: each has addresses of its own. Anywhere else the uplink's network
/// is something that the host routes to, so that no other subnet may overlap with it.
pub(super) fn shared(by_name: &BTreeMap<String, Net>, file: &file::File, sink: &mut Sink) {
    let mut owners: HashMap<(&str, IpAddr), &str> = HashMap::new();
    for (name, decl) in file.networks.get().map_or(&[][..], |table| &table.entries) {
        let external = decl.as_ref().and_then(|decl| decl.external.get());
        let net = by_name.get(&name.value).map(|net| &net.network);
        let (Some(external), Some(net)) = (external, net) else { continue };
        let (Some(uplink), Some(own)) = (&net.uplink, &net.external) else { continue };
        let good = external.address.get().map_or(&[][..], |list| &list.items);
        for address in good.iter().filter(|address| own.addresses.contains(&address.value.0)) {
            let value = address.value.0;
            if let Some(first) = owners.insert((uplink, value.ip()), name) {
                let message = format!("`{}` is the router's address of network `{first}`, too", value.ip());
                sink.hinted(address.span, message, "give each router an address of its own");
            }
            let elsewhere = by_name.values().filter(|other| other.network.uplink.as_ref() != Some(uplink));
            let mut declared = elsewhere.flat_map(|other| &other.declared);
            if let Some(other) = declared.find(|other| overlap(&other.net, &value)) {
                let message = format!("`{value}` overlaps with `{}` of {}", other.net, other.label);
                sink.hinted(address.span, message, "choose a subnet that shares no address with another");
            }
        }
    }
}
