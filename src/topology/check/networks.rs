//! Networks on their own: what the mode allows, subnets, the host's leg, VLANs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::nth_host;
use super::external;
use super::forwards;
use super::legs::{host_leg, subnets, vlans};
use super::uplinks;
use crate::diagnostic::{Sink, Span};
use crate::mode::wiring::INTERNAL;
use crate::mode::{self, Egress, Gateway, Mode, Uplink};
use crate::spec::decode::{At, Slot};
use crate::spec::file::{self, DhcpChoice, HostChoice};
use crate::spec::suggest::{unknown, unknown_mode};
use crate::spec::tree::shortened;
use crate::spec::values::ModeName;
use crate::topology::{AddressRange, Network};

/// A network and what the model does not keep.
pub(super) struct Net {
    pub(super) span: Span,
    pub(super) network: Network,
    /// Its subnets or mode could not be read, so nothing is said about addresses on it.
    pub(super) loose: bool,
    /// Some of its VLANs could not be read, so nothing is said about missing ones.
    pub(super) vlans_loose: bool,
    pub(super) dhcp: DhcpWish,
    pub(super) declared: Vec<Declared>,
    /// The file has forwards into it, whose answers leave by the gateway.
    pub(super) forwarded: bool,
}

/// Which range the network's own DHCP server shall have.
#[derive(Clone, Copy)]
pub(super) enum DhcpWish {
    No,
    Chosen,
    Range(At<AddressRange>),
}

/// A subnet and where the file declares it.
pub(super) struct Declared {
    pub(super) span: Span,
    pub(super) net: IpNetwork,
    pub(super) vid: Option<u16>,
    pub(super) label: String,
}

/// All networks by name.
pub(super) struct Nets {
    pub(super) by_name: BTreeMap<String, Net>,
    /// The networks as a whole could not be read, so nothing is said about missing ones.
    loose: bool,
}

impl Nets {
    /// The network a reference means; notes a dangling one.
    pub(super) fn find(&self, name: &At<String>, sink: &mut Sink) -> Option<&Net> {
        let found = self.by_name.get(&name.value);
        if found.is_none() && !self.loose {
            let hint = unknown(name, "networks", self.by_name.keys().map(String::as_str));
            sink.hinted(name.span, format!("there is no network `{}`", shortened(name)), hint);
        }
        found
    }
}

impl Net {
    /// The VID of a VLAN by name; notes a dangling name.
    pub(super) fn vid(&self, name: &At<String>, sink: &mut Sink) -> Option<u16> {
        if let Some(vlan) = self.network.vlans.get(&name.value) {
            return (vlan.vid != 0).then_some(vlan.vid);
        }
        if !self.vlans_loose {
            let hint = unknown(name, "VLANs", self.network.vlans.keys().map(String::as_str));
            let message = format!("network `{}` has no VLAN `{}`", self.network.name, shortened(name));
            sink.hinted(name.span, message, hint);
        }
        None
    }
}

/// Checks every network on its own.
pub(super) fn check(file: &file::File, sink: &mut Sink) -> Nets {
    let mut by_name = BTreeMap::new();
    for (name, decl) in file.networks.get().map_or(&[][..], |table| &table.entries) {
        by_name.insert(name.value.clone(), one(name, decl.as_ref(), sink));
    }
    for network in forwards::through(file) {
        if let Some(net) = by_name.get_mut(network) {
            net.forwarded = true;
        }
    }
    uplinks::shared(&by_name, file, sink);
    external::shared(&by_name, file, sink);
    Nets { by_name, loose: file.networks.is_bad() }
}

fn one(name: &At<String>, decl: Option<&file::Network>, sink: &mut Sink) -> Net {
    let mut net = Net {
        span: name.span,
        network: Network {
            name: name.value.clone(),
            mode: String::new(),
            wiring: INTERNAL,
            subnets: Vec::new(),
            vlans: BTreeMap::new(),
            host: Vec::new(),
            gateway: Vec::new(),
            resolver: None,
            external: None,
            forwards: Vec::new(),
            reserved: Vec::new(),
            dhcp: None,
            mtu: 1500,
            stp: false,
            uplink: None,
            tags: Vec::new(),
        },
        loose: true,
        vlans_loose: true,
        dhcp: DhcpWish::No,
        declared: Vec::new(),
        forwarded: false,
    };
    let Some(decl) = decl else { return net };
    let mode = decl.mode.get().and_then(|id| find_mode(id, sink));
    net.vlans_loose = decl.vlans.is_bad();
    net.loose = mode.is_none() || decl.subnet.is_bad() || decl.host.is_bad();
    let label = format!("network `{}`", name.value);
    net.network.subnets = subnets(&decl.subnet, &label, None, &mut net.declared, &mut net.loose, sink);
    net.network.stp = decl.stp.get().is_some_and(|stp| stp.value);
    if let Some(mode) = mode {
        mode.id.clone_into(&mut net.network.mode);
        net.network.wiring = mode.wiring;
        net.network.mtu = mode.defaults.mtu;
        allowed(name, decl, mode, sink);
        default_subnet(name, decl, mode, &mut net);
        choices(decl, mode, &mut net, sink);
    }
    vlans(decl, mode, &mut net, sink);
    net.network.wiring.forwards =
        mode.is_some_and(|mode| mode.wiring.forwards) && net.network.vlans.is_empty();
    match mode {
        Some(mode) if !decl.vlans.is_absent() => with_vlans(name, decl, mode, &mut net, sink),
        Some(mode) => without_vlans(name, decl, mode, &mut net, sink),
        None => {}
    }
    mtu(decl, &mut net, sink);
    uplinks::uplink(name, decl, mode, &mut net, sink);
    uplinks::tags(decl, mode, &mut net, sink);
    if let Some(mode) = mode {
        external::check(name, decl, mode, &mut net, sink);
    }
    net
}

/// The subnet a system gives such a network unless told otherwise.
fn default_subnet(name: &At<String>, decl: &file::Network, mode: &Mode, net: &mut Net) {
    let Some(subnet) = mode.defaults.subnet.and_then(|text| text.parse::<IpNetwork>().ok()) else { return };
    if decl.vlans.is_absent() && !decl.subnet.is_bad() && !net.network.subnets.iter().any(IpNetwork::is_ipv4)
    {
        let label = format!("network `{}`", name.value);
        net.declared.push(Declared { span: name.span, net: subnet, vid: None, label });
        net.network.subnets.insert(0, subnet);
    }
}

/// What the file may choose about the gateway.
fn choices(decl: &file::Network, mode: &Mode, net: &mut Net, sink: &mut Sink) {
    let gateway = mode.wiring.has_gateway();
    let refuse = |span, key: &str, sink: &mut Sink| {
        let message = format!("mode `{}` has no gateway, so there is no `{key}` to choose", mode.id);
        sink.hinted(span, message, format!("remove `{key}`; modes with a gateway are `nat` and `routed`"));
    };
    let engine = mode.wiring.gateway == Gateway::Engine;
    let unknown_there = |span, sink: &mut Sink| {
        let message =
            format!("mode `{}` is a NAT engine: nobody beyond it knows its guests' addresses", mode.id);
        sink.hinted(span, message, "remove it, or take the mode `routed`; `forward` leads single ports in");
    };
    if let (Uplink::Port, Slot::Good(HostChoice::Is(part))) = (mode.wiring.uplink, &decl.host) {
        net.network.wiring.barred = !part.value;
    }
    if let Some(egress) = decl.egress.get() {
        match gateway {
            true if engine && egress.value == Egress::Routed => unknown_there(egress.span, sink),
            true => net.network.wiring.egress = egress.value,
            false => refuse(egress.span, "egress", sink),
        }
    }
    if let Some(ingress) = decl.ingress.get() {
        match gateway {
            true if engine && ingress.value => unknown_there(ingress.span, sink),
            true => net.network.wiring.ingress = ingress.value,
            false if mode.wiring.uplink == Uplink::Port => net.network.wiring.guarded = !ingress.value,
            false => refuse(ingress.span, "ingress", sink),
        }
    }
    if let (Some(list), false) = (decl.forward.get(), mode.wiring.forwards) {
        let message = format!("mode `{}` has no port forwards", mode.id);
        sink.hinted(list.span, message, "remove `forward`, or take a mode that has them, such as `nat`");
    }
}

fn find_mode(name: &At<ModeName>, sink: &mut Sink) -> Option<&'static Mode> {
    let id = name.value.0.as_str();
    if let Some(mode) = mode::by_id(id) {
        return Some(mode);
    }
    sink.hinted(name.span, format!("there is no mode `{}`", shortened(id)), unknown_mode(id));
    None
}

/// What the mode does not have.
fn allowed(name: &At<String>, decl: &file::Network, mode: &Mode, sink: &mut Sink) {
    let (id, wiring) = (mode.id, mode.wiring);
    if wiring.gateway != Gateway::Host {
        if let Some(span) = asked(&decl.host) {
            let message = format!("mode `{id}` gives the host no leg on network `{}`", name.value);
            sink.hinted(span, message, "remove `host`: the network has a router of its own");
        }
        return;
    }
    if wiring.host_leg {
        if let Slot::Good(HostChoice::Is(At { value: false, span })) = &decl.host {
            let message = format!("mode `{id}` needs the host's leg on network `{}`", name.value);
            sink.hinted(*span, message, "remove `host`, or take the mode `internal`, which has no leg");
        }
        return;
    }
    let instead = "the modes that do are `nat`, `routed` and `host-only`";
    if let (Uplink::Port, Slot::Good(HostChoice::Is(_))) = (wiring.uplink, &decl.host) {
        // Whether the host, a station of the uplink's network like the guests, takes part: see `choices`.
    } else if let Some(span) = asked(&decl.host) {
        let message = format!("mode `{id}` gives the host no leg on network `{}`", name.value);
        sink.hinted(span, message, format!("remove `host`; {instead}"));
    }
    if let Some(span) = asked_dhcp(&decl.dhcp) {
        let message = format!("mode `{id}` has no DHCP server on network `{}`", name.value);
        let hint = match wiring.uplink != Uplink::None {
            true => "remove `dhcp`: the uplink's own network hands out addresses".to_owned(),
            false => format!("remove `dhcp`, or let a firewall guest serve it; {instead}"),
        };
        sink.hinted(span, message, hint);
    }
    if let Slot::Good(At { value: true, span }) = &decl.dns {
        let message = format!("mode `{id}` has no DNS server on network `{}`", name.value);
        sink.hinted(*span, message, format!("remove `dns`; {instead}"));
    }
}

/// Where the file asks for a leg of the host.
pub(super) fn asked(host: &Slot<HostChoice>) -> Option<Span> {
    match host {
        Slot::Good(HostChoice::Is(is)) => is.value.then_some(is.span),
        Slot::Good(HostChoice::Addresses(list)) => Some(list.span),
        _ => None,
    }
}

fn asked_dhcp(dhcp: &Slot<DhcpChoice>) -> Option<Span> {
    match dhcp {
        Slot::Good(DhcpChoice::Is(is)) => is.value.then_some(is.span),
        Slot::Good(DhcpChoice::Range(range)) => Some(range.span),
        _ => None,
    }
}

/// A network whose frames are all untagged.
fn without_vlans(name: &At<String>, decl: &file::Network, mode: &Mode, net: &mut Net, sink: &mut Sink) {
    let wiring = mode.wiring;
    let no_subnet = net.network.subnets.is_empty();
    net.network.wiring.dhcp = false;
    net.network.wiring.dns = false;
    if !wiring.has_gateway() {
        return;
    }
    if no_subnet {
        if !net.loose {
            let message = format!(
                "network `{}` needs a subnet: mode `{}` gives {} an address",
                name.value,
                mode.id,
                if wiring.host_leg { "the host" } else { "the network's router" }
            );
            sink.hinted(name.span, message, "add one, such as `subnet: 10.0.0.0/24`");
            net.loose = true;
        }
        return;
    }
    let label = format!("network `{}`", name.value);
    let position = mode.defaults.gateway;
    let subnets = &net.network.subnets;
    net.network.gateway = host_leg(&decl.host, Some(position), subnets, &label, &mut net.loose, sink);
    if wiring.host_leg {
        net.network.host.clone_from(&net.network.gateway);
    }
    net.network.resolver = mode.defaults.dns.and_then(|position| {
        subnets.iter().find(|subnet| subnet.is_ipv4()).and_then(|subnet| nth_host(subnet, position))
    });
    net.dhcp = match &decl.dhcp {
        Slot::Absent if wiring.dhcp => DhcpWish::Chosen,
        Slot::Good(DhcpChoice::Is(is)) if is.value => DhcpWish::Chosen,
        Slot::Good(DhcpChoice::Range(range)) => DhcpWish::Range(*range),
        _ => DhcpWish::No,
    };
    net.network.wiring.dhcp = !matches!(net.dhcp, DhcpWish::No);
    net.network.wiring.dns = decl.dns.get().map_or(wiring.dns, |dns| dns.value);
    if let DhcpWish::Range(range) = net.dhcp
        && !net.loose
        && !net.network.subnets.iter().any(IpNetwork::is_ipv4)
    {
        let message = format!("network `{}` has a DHCP range but no IPv4 subnet", name.value);
        sink.hinted(range.span, message, "add the IPv4 subnet the range lies in, or remove `dhcp`");
        net.dhcp = DhcpWish::Chosen;
    }
}

/// A network whose frames are all in VLANs: what would be untagged has no place.
fn with_vlans(name: &At<String>, decl: &file::Network, mode: &Mode, net: &mut Net, sink: &mut Sink) {
    let id = &name.value;
    net.network.wiring.dhcp = false;
    net.network.wiring.dns = false;
    if mode.wiring.gateway != Gateway::Host {
        let message = format!("network `{id}` cannot have VLANs: mode `{}` has a router of its own", mode.id);
        sink.hinted(
            name.span,
            message,
            "take the mode `internal`, and let a firewall guest lead out of the VLANs",
        );
        return;
    }
    if let Uplink::Macvlan(_) = mode.wiring.uplink {
        let hint = "take the mode `bridged` for a network with VLANs and an uplink";
        let message = format!("network `{id}` cannot have VLANs: mode `{}` has no bridge", mode.id);
        sink.hinted(name.span, message, hint);
        return;
    }
    let legs = net.network.vlans.values().any(|vlan| !vlan.host.is_empty());
    let untagged = |key: &str| format!("`{key}` is for untagged frames, and network `{id}` has VLANs only");
    if let Some(list) = decl.subnet.get() {
        let hint = "give the VLAN its subnet: `vlans: { NAME: { id: 10, subnet: 10.0.0.0/24 } }`";
        sink.hinted(list.span, untagged("subnet"), hint);
    }
    let uplinked = mode.wiring.uplink == Uplink::Port;
    if uplinked {
        // The host's own frames stay untagged, where no guest is: what brings it to them is a leg.
        net.network.wiring.barred = !legs;
    }
    if (mode.wiring.host_leg || uplinked)
        && let Some(span) = asked(&decl.host)
    {
        let hint =
            "give the host a leg in a VLAN: `vlans: { NAME: { id: 10, subnet: 10.0.0.0/24, host: true } }`";
        sink.hinted(span, untagged("host"), hint);
    }
    if mode.wiring.host_leg {
        if let Some(span) = asked_dhcp(&decl.dhcp) {
            sink.hinted(
                span,
                untagged("dhcp"),
                "remove `dhcp`: give the guests addresses, or let a firewall guest serve DHCP",
            );
        }
        if let Slot::Good(At { value: true, span }) = &decl.dns {
            sink.hinted(*span, untagged("dns"), "remove `dns`");
        }
        if !legs && !net.loose && !net.vlans_loose && decl.subnet.is_absent() && decl.host.is_absent() {
            let message = format!("mode `{}` gives the host a leg, but network `{id}` has none", mode.id);
            let hint = "give a VLAN `subnet` and `host: true`, or take the mode `internal`";
            sink.hinted(name.span, message, hint);
            net.loose = true;
        }
    }
}

fn mtu(decl: &file::Network, net: &mut Net, sink: &mut Sink) {
    let Some(mtu) = decl.mtu.get() else { return };
    net.network.mtu = mtu.value.0;
    let ipv6 = net.declared.iter().any(|declared| matches!(declared.net.ip(), IpAddr::V6(_)));
    if ipv6 && mtu.value.0 < 1280 {
        let message = format!("an MTU of {} is too small for IPv6", mtu.value.0);
        sink.hinted(mtu.span, message, "IPv6 needs at least 1280 (RFC 8200)");
    }
}
