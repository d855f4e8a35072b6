//! Segments: the broadcast domains of a lab. Each network without VLANs is one, each VLAN of a network is one, and
//! links join them. What addresses mean is a matter of the segment.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::{family, number, overlap, reserved, special, subnet};
use super::networks::Nets;
use crate::diagnostic::{Sink, Span};
use crate::mode::{Egress, Uplink};
use crate::spec::decode::At;
use crate::topology::AddressRange;

/// Index of a segment.
pub(super) type Id = usize;

/// One broadcast domain.
#[derive(Default)]
pub(super) struct Segment {
    /// How messages call it: `network `wan`` or `VLAN `dmz` of network `core``.
    pub(super) label: String,
    /// Subnets the file declares here.
    pub(super) subnets: Vec<IpNetwork>,
    /// The gateways' addresses that lead out of the lab.
    pub(super) exits: Vec<IpAddr>,
    /// Whether an uplink joins it, so that others unknown to the file are on it.
    pub(super) open: bool,
    /// Whether mistakes about it were noted, so that nothing more is said about its addresses.
    pub(super) loose: bool,
    /// Who has which address.
    pub(super) taken: HashMap<IpAddr, Owner>,
    /// Who serves IPv4 DHCP here.
    pub(super) dhcp: Option<Dhcp>,
    /// Whether router advertisements give IPv6 addresses.
    pub(super) advertised: bool,
    /// Subnets that addresses imply, by family and first address: prefix length and the first such address.
    implied: BTreeMap<(u8, u128), (IpNetwork, Owner)>,
}

/// A DHCP server of a segment.
pub(super) struct Dhcp {
    /// `network `wan`` or `firewall `fw``.
    pub(super) server: String,
    /// Whether its leases bring a default gateway.
    pub(super) routes: bool,
    /// `None` until every static address is known and the range can be chosen.
    pub(super) range: Option<AddressRange>,
}

/// Who has an address, and where the file says so.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) who: String,
    pub(super) line: u32,
}

impl Owner {
    /// `guest `web` (line 12)`.
    pub(super) fn shown(&self) -> String {
        if self.line == 0 { self.who.clone() } else { format!("{} (line {})", self.who, self.line) }
    }
}

/// All segments.
pub(super) struct Segments {
    ids: HashMap<(String, Option<u16>), Id>,
    parent: Vec<Id>,
    pub(super) all: Vec<Segment>,
}

impl Segments {
    /// One segment for each network without VLANs and for each VLAN.
    pub(super) fn new(nets: &Nets) -> Self {
        let mut segments = Self { ids: HashMap::new(), parent: Vec::new(), all: Vec::new() };
        for (name, net) in &nets.by_name {
            let wiring = net.network.wiring;
            let leads_out = wiring.egress != Egress::None || wiring.ingress || net.forwarded;
            let exits = |host: &[IpNetwork]| -> Vec<IpAddr> {
                if leads_out { host.iter().map(IpNetwork::ip).collect() } else { Vec::new() }
            };
            if net.network.vlans.is_empty() {
                let six = |net: &IpNetwork| net.is_ipv6() && net.prefix() == 64;
                let segment = Segment {
                    label: format!("network `{name}`"),
                    subnets: net.network.subnets.clone(),
                    exits: exits(&net.network.gateway),
                    open: net.network.wiring.uplink != Uplink::None,
                    loose: net.loose,
                    advertised: net.network.wiring.dhcp && net.network.subnets.iter().any(six),
                    ..Segment::default()
                };
                let id = segments.all.len();
                segments.add(name, None, segment, &net.network.host, net.span.line);
                let router = net.network.gateway.iter().chain(&net.network.resolver);
                for address in router.filter(|address| !net.network.host.contains(address)) {
                    let owner = Owner { who: format!("the router of network `{name}`"), line: net.span.line };
                    segments.all[id].taken.insert(address.ip(), owner);
                }
            }
            for (vlan_name, vlan) in &net.network.vlans {
                let segment = Segment {
                    label: format!("VLAN `{vlan_name}` of network `{name}`"),
                    subnets: vlan.subnets.clone(),
                    exits: exits(&vlan.host),
                    open: net.network.wiring.uplink != Uplink::None,
                    loose: net.loose,
                    ..Segment::default()
                };
                segments.add(name, Some(vlan.vid), segment, &vlan.host, net.span.line);
            }
        }
        segments
    }

    fn add(&mut self, network: &str, vid: Option<u16>, mut segment: Segment, host: &[IpNetwork], line: u32) {
        for address in host {
            segment.taken.insert(address.ip(), Owner { who: "the host".to_owned(), line });
        }
        let id = self.all.len();
        self.ids.insert((network.to_owned(), vid), id);
        self.parent.push(id);
        self.all.push(segment);
    }

    /// The segment a port is on.
    pub(super) fn find(&self, network: &str, vid: Option<u16>) -> Option<Id> {
        let mut id = *self.ids.get(&(network.to_owned(), vid))?;
        while self.parent[id] != id {
            id = self.parent[id];
        }
        Some(id)
    }

    /// Makes one segment of two, because a link joins them.
    pub(super) fn join(&mut self, a: Id, b: Id) {
        if a == b {
            return;
        }
        self.parent[b] = a;
        let other = std::mem::take(&mut self.all[b]);
        let segment = &mut self.all[a];
        segment.subnets.extend(other.subnets);
        segment.subnets.sort();
        segment.subnets.dedup();
        segment.exits.extend(other.exits);
        segment.taken.extend(other.taken);
        segment.open |= other.open;
        segment.loose |= other.loose;
        segment.advertised |= other.advertised;
    }
}

impl Segment {
    /// Whether an address of this family comes by itself here.
    pub(super) fn dynamic(&self) -> (bool, bool) {
        (self.dhcp.is_some() || self.open, self.advertised)
    }

    /// Takes an address for a guest's interface, noting what is wrong with it.
    pub(super) fn take(&mut self, address: At<IpNetwork>, who: &str, sink: &mut Sink) -> bool {
        let At { value: net, span } = address;
        let ip = net.ip();
        if let Some(what) = special(ip) {
            sink.hinted(
                span,
                format!("`{ip}` cannot be a guest's address: it is {what}"),
                "choose another address",
            );
            return false;
        }
        if self.loose {
            return true;
        }
        if !self.fits(net, span, sink) {
            return false;
        }
        let owner = Owner { who: who.to_owned(), line: span.line };
        if let Some(first) = self.taken.get(&ip) {
            let message = format!("the address `{ip}` is already taken by {}", first.shown());
            sink.maybe(
                span,
                message,
                self.free(ip).map(|free| format!("choose another, such as `{free}/{}`", net.prefix())),
            );
            return false;
        }
        if !self.agrees(net, span, &owner, sink) {
            return false;
        }
        self.taken.insert(ip, owner);
        true
    }

    /// Whether the address lies in a declared subnet and has its prefix length.
    fn fits(&self, net: IpNetwork, span: Span, sink: &mut Sink) -> bool {
        let ip = net.ip();
        let mut same_family =
            self.subnets.iter().filter(|subnet| subnet.is_ipv4() == net.is_ipv4()).peekable();
        if same_family.peek().is_some() {
            let Some(home) = same_family.clone().find(|subnet| subnet.contains(ip)) else {
                let all: Vec<String> = same_family.map(|subnet| format!("`{subnet}`")).collect();
                let message = format!("the address `{ip}` is outside the subnet of {}", self.label);
                sink.hinted(span, message, format!("the subnet is {}", all.join(" or ")));
                return false;
            };
            if home.prefix() != net.prefix() {
                let message = format!("the prefix length of `{net}` is not that of its subnet `{home}`");
                sink.hinted(span, message, format!("write `{ip}/{}`", home.prefix()));
                return false;
            }
        }
        if let Some(what) = reserved(&net, ip) {
            let message = format!("`{ip}` is the {what} of `{}`", subnet(&net));
            sink.maybe(
                span,
                message,
                self.free(ip).map(|free| format!("choose another, such as `{free}/{}`", net.prefix())),
            );
            return false;
        }
        true
    }

    /// Whether addresses on one segment agree where their subnet begins and ends, also where nothing declares it.
    fn agrees(&mut self, net: IpNetwork, span: Span, owner: &Owner, sink: &mut Sink) -> bool {
        let own = subnet(&net);
        let key = (family(own.ip()), number(own.network()));
        let upper = (key.0, number(own.broadcast()));
        let before = self.implied.range(..=key).next_back();
        let inside = self.implied.range(key..=upper).next();
        let clash =
            before.into_iter().chain(inside).find(|(_, (other, _))| *other != own && overlap(other, &own));
        if let Some((_, (other, first))) = clash {
            let message = format!(
                "`{net}` and {} in `{other}` disagree about the subnet of {}",
                first.shown(),
                self.label
            );
            sink.hinted(
                span,
                message,
                format!(
                    "addresses of one subnet have one prefix length: write `{}/{}`",
                    net.ip(),
                    other.prefix()
                ),
            );
            return false;
        }
        self.implied.entry(key).or_insert_with(|| (own, owner.clone()));
        true
    }

    /// An address near `like` that nobody has.
    fn free(&self, like: IpAddr) -> Option<IpAddr> {
        let prefix = if like.is_ipv4() { 24 } else { 64 };
        let home = self.subnets.iter().find(|subnet| subnet.contains(like)).copied();
        let home = home.or_else(|| IpNetwork::new(like, prefix).ok())?;
        let (first, last) = super::address::usable(&home);
        let lease = |value| {
            self.dhcp.as_ref().and_then(|dhcp| dhcp.range).is_some_and(|range| {
                like.is_ipv4() && (number(range.first)..=number(range.last)).contains(&value)
            })
        };
        (first..=last)
            .skip(9)
            .take(1024)
            .filter(|value| !lease(*value))
            .map(|value| super::address::address(value, like))
            .find(|address| !self.taken.contains_key(address))
    }

    /// Whether a next hop can be there: a known address, or an address among those the file does not know.
    pub(super) fn answers(&self, hop: IpAddr) -> bool {
        self.open || self.loose || self.taken.contains_key(&hop)
    }
}
