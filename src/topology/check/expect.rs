//! Expectations: both ends exist, have addresses, and something answers there.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::guests::{Drafts, GuestDraft};
use super::networks::Nets;
use super::nics::InterfaceDraft;
use crate::diagnostic::{Sink, Span};
use crate::spec::decode::{At, Slot};
use crate::spec::file;
use crate::spec::suggest::{did_you_mean, listing};
use crate::spec::tree::shortened;
use crate::topology::{
    Addressing, Endpoint, Expectation, ExpectedVerdict, Firewall, GuestKind, Image, Protocol, Service,
};

/// What expectations refer to.
pub(super) struct Expectations<'a> {
    pub(super) nets: &'a Nets,
    pub(super) drafts: &'a Drafts<'a>,
    pub(super) firewalls: &'a HashMap<String, Firewall>,
    /// The guests as a whole could not be read, so nothing is said about missing ones.
    pub(super) loose: bool,
}

/// Which families an end has an address of.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

const BOTH: Families = Families { v4: true, v6: true };

impl Families {
    fn has(self, family: u8) -> bool {
        if family == 4 { self.v4 } else { self.v6 }
    }
    fn none(self) -> bool {
        !self.v4 && !self.v6
    }
    fn of(address: IpAddr) -> Self {
        Families { v4: address.is_ipv4(), v6: address.is_ipv6() }
    }
    fn common(self, other: Self) -> Self {
        Families { v4: self.v4 && other.v4, v6: self.v6 && other.v6 }
    }
}

type Seen = BTreeMap<(Endpoint, Endpoint, Service, Option<String>, Option<u8>), (ExpectedVerdict, u32)>;

impl Expectations<'_> {
    /// Checks all of them.
    pub(super) fn check(&self, file: &file::File, sink: &mut Sink) -> Vec<Expectation> {
        let mut seen = Seen::new();
        let mut out = Vec::new();
        for decl in file.expect.get().map_or(&[][..], |list| &list.items) {
            if let Some(expectation) = self.one(decl, sink) {
                repeated(&expectation, decl.at, &mut seen, sink);
                out.push(expectation);
            }
        }
        out
    }

    fn one(&self, decl: &file::Expect, sink: &mut Sink) -> Option<Expectation> {
        let from = decl.from.get().and_then(|text| self.start(text, sink));
        let to = decl.to.get().and_then(|text| {
            let (host, port) = super::endpoint::split(text, sink)?;
            Some((self.endpoint(host, text.span, sink)?, port))
        });
        let (from, (to, port)) = (from?, to?);
        let (from_span, to_span) = (decl.from.get()?.span, decl.to.get()?.span);
        if from == to {
            sink.hinted(
                to_span,
                format!("the expectation is from `{from}` to itself"),
                "name two different ends",
            );
            return None;
        }
        let service = service(decl, port, to_span, sink)?;
        let via = match &decl.via {
            Slot::Absent => None,
            Slot::Bad => return None,
            Slot::Good(via) => Some(self.via(&to, via, sink)?),
        };
        if decl.family.is_bad() {
            return None;
        }
        let family = decl.family.get().map(|family| family.value.0);
        let ends = self.families(&from, None, family, from_span, sink)?;
        let target = self.families(&to, via.as_deref(), family, to_span, sink)?;
        if ends.common(target).none() {
            let message = format!("`{from}` and `{to}` have no IP family in common");
            sink.hinted(to_span, message, "give both an address of one family");
            return None;
        }
        self.answered(&to, service, decl, to_span, sink);
        let verdict = decl.verdict.get()?.value;
        let line = usize::try_from(decl.at.line).unwrap_or(0);
        Some(Expectation { from, to, service, via, family, verdict, line })
    }

    /// Where a probe starts.
    fn start(&self, text: &At<String>, sink: &mut Sink) -> Option<Endpoint> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let owner = self.owner(address);
            let hint = owner.map_or_else(
                || "name a guest, `host`, `lan` or `outside`".to_owned(),
                |guest| format!("write `from: {guest}`, the guest with this address"),
            );
            sink.hinted(text.span, "a probe cannot start at an address", hint);
            return None;
        }
        let (host, port) = super::endpoint::split(text, sink)?;
        if let Some(port) = port {
            let hint = format!("write `from: {host}`, and the port to `to` or `service`");
            sink.hinted(text.span, format!("a probe does not start at a port (`:{port}`)"), hint);
            return None;
        }
        self.endpoint(host, text.span, sink)
    }

    fn owner(&self, address: IpAddr) -> Option<&String> {
        let has = |draft: &GuestDraft<'_>| {
            draft.interfaces().any(|i| i.statics.iter().any(|net| net.ip() == address))
        };
        self.drafts.iter().find(|(_, draft)| draft.as_ref().is_some_and(has)).map(|(name, _)| name)
    }

    fn endpoint(&self, text: &str, span: Span, sink: &mut Sink) -> Option<Endpoint> {
        match text {
            "host" => return Some(Endpoint::Host),
            "lan" => return Some(Endpoint::Lan),
            "outside" => return Some(Endpoint::Outside),
            _ => {}
        }
        if let Ok(address) = text.parse() {
            return Some(Endpoint::Address(address));
        }
        if self.drafts.contains_key(text) {
            return Some(Endpoint::Guest(text.to_owned()));
        }
        if self.loose {
            return None;
        }
        let guests = || self.drafts.keys().map(String::as_str);
        let hint = did_you_mean(text, guests().chain(["host", "lan", "outside"])).unwrap_or_else(|| {
            format!(
                "name `host`, `lan`, `outside`, an address or a guest; the guests are: {}",
                listing(guests())
            )
        });
        sink.hinted(span, format!("there is no guest `{}`", shortened(text)), hint);
        None
    }

    fn draft(&self, endpoint: &Endpoint) -> Option<(&str, &GuestDraft<'_>)> {
        let Endpoint::Guest(name) = endpoint else { return None };
        let (name, draft) = self.drafts.get_key_value(name)?;
        Some((name, draft.as_ref()?))
    }

    /// The target's interface by its whole name.
    fn via(&self, to: &Endpoint, via: &At<String>, sink: &mut Sink) -> Option<String> {
        match to {
            Endpoint::Guest(_) => {
                let (name, draft) = self.draft(to)?;
                Some(draft.resolve(via, name, sink)?.reference.clone())
            }
            Endpoint::Host => {
                let (network, vlan) = match via.split_once('.') {
                    Some((network, vlan)) => (network, Some(vlan)),
                    None => (via.as_str(), None),
                };
                let name = At { value: network.to_owned(), span: via.span };
                let net = self.nets.find(&name, sink)?;
                let leg = match vlan {
                    Some(vlan) => net.network.vlans.get(vlan).is_some_and(|vlan| !vlan.host.is_empty()),
                    None => !net.network.host.is_empty(),
                };
                if !leg && !net.loose {
                    let legs = self.nets.by_name.values().filter(|net| !net.network.host.is_empty());
                    let names = legs.map(|net| net.network.name.as_str());
                    let hint = format!("networks with the host's leg: {}", listing(names));
                    sink.hinted(via.span, format!("the host has no address on `{}`", shortened(via)), hint);
                }
                Some(via.value.clone())
            }
            _ => {
                let message =
                    format!("`via` chooses among the addresses of a guest or of the host, not of `{to}`");
                sink.hinted(via.span, message, "remove `via`");
                None
            }
        }
    }

    /// The families an end has addresses of; notes an end that has none of what is asked.
    fn families(
        &self,
        end: &Endpoint,
        via: Option<&str>,
        family: Option<u8>,
        span: Span,
        sink: &mut Sink,
    ) -> Option<Families> {
        let found = match end {
            Endpoint::Guest(_) => {
                let (_, draft) = self.draft(end)?;
                if draft.loose || draft.interfaces().any(|i| i.asked && i.statics.is_empty()) {
                    return Some(BOTH);
                }
                of_guest(draft.interfaces().filter(|i| via.is_none_or(|via| i.reference == via)))
            }
            Endpoint::Address(address) => Families::of(*address),
            _ => BOTH,
        };
        let place = via.map_or_else(String::new, |via| format!(" on `{via}`"));
        if found.none() {
            let message = format!("`{end}` has no address{place} to probe");
            let hint = "give it an `address`, or let the network or a firewall hand one out";
            sink.hinted(span, message, hint);
            return None;
        }
        if let Some(family) = family.filter(|family| !found.has(*family)) {
            let other = if family == 4 { 6 } else { 4 };
            let message = format!("`{end}` has no IPv{family} address{place}");
            sink.hinted(span, message, format!("give it one, or write `family: {other}`"));
            return None;
        }
        Some(found)
    }

    /// Notes a probe to a port where nothing answers: it would neither be reachable nor be proven blocked.
    fn answered(&self, to: &Endpoint, service: Service, decl: &file::Expect, span: Span, sink: &mut Sink) {
        let Some((name, draft)) = self.draft(to) else { return };
        let own_image = draft.kind == GuestKind::Vm && draft.image != Image::BuiltIn;
        let unread = draft.decl.serve.is_bad()
            || draft.decl.serve.get().is_some_and(|list| list.broken)
            || draft.decl.firewall.is_bad();
        if service.protocol == Protocol::Icmp || own_image || unread || draft.serve.contains(&service) {
            return;
        }
        if let Some(firewall) = self.firewalls.get(name) {
            let rules = draft.decl.firewall.get().and_then(|firewall| firewall.rules.get());
            let broken =
                rules.is_some_and(|list| list.broken || list.items.iter().any(|rule| rule.forward.is_bad()));
            let forwards = firewall
                .rules
                .iter()
                .any(|rule| !rule.forward.is_empty() && rule.services.contains(&service));
            let resolver = service.port == 53 && !firewall.dhcp.is_empty();
            if broken || forwards || resolver {
                return;
            }
        }
        let at = decl.service.get().map_or(span, |service| service.span);
        let mend = format!("add `serve: [{service}]` to guest `{name}`");
        let hint = if draft.decl.firewall.is_absent() {
            mend
        } else {
            format!("{mend}, or forward the port to a guest that serves it")
        };
        sink.hinted(
            at,
            format!("guest `{name}` does not serve `{service}`, so the probe would prove nothing"),
            hint,
        );
    }
}

fn of_guest<'d>(interfaces: impl Iterator<Item = &'d InterfaceDraft>) -> Families {
    let mut out = Families { v4: false, v6: false };
    for interface in interfaces {
        match &interface.addressing {
            Addressing::Static(nets) => {
                out.v4 |= nets.iter().any(ipnetwork::IpNetwork::is_ipv4);
                out.v6 |= nets.iter().any(ipnetwork::IpNetwork::is_ipv6);
            }
            Addressing::Dynamic { v4, v6 } => {
                out.v4 |= v4;
                out.v6 |= v6;
            }
            Addressing::None => {}
        }
    }
    out
}

/// What is probed: `service`, or the port of `to`, or ICMP.
fn service(decl: &file::Expect, port: Option<u16>, span: Span, sink: &mut Sink) -> Option<Service> {
    match (&decl.service, port) {
        (Slot::Bad, _) => None,
        (Slot::Good(service), Some(port)) => {
            let message = format!("the service is said twice: port {port} and `{}`", service.value);
            sink.hinted(span, message, format!("remove `service`, or `:{port}` (which means `tcp/{port}`)"));
            None
        }
        (Slot::Good(service), None) => Some(service.value),
        (Slot::Absent, Some(port)) => Some(Service { protocol: Protocol::Tcp, port }),
        (Slot::Absent, None) => Some(Service { protocol: Protocol::Icmp, port: 0 }),
    }
}

/// Notes an expectation that was there before, or its opposite.
fn repeated(expectation: &Expectation, at: Span, seen: &mut Seen, sink: &mut Sink) {
    let Expectation { from, to, service, via, family, verdict, .. } = expectation.clone();
    let key = (from, to, service, via, family);
    match seen.get(&key) {
        Some((first, line)) if *first == verdict => {
            sink.hinted(at, format!("the expectation of line {line} is repeated"), "remove one of them");
        }
        Some((_, line)) => {
            sink.hinted(at, format!("the expectation contradicts that of line {line}"), "remove one of them");
        }
        None => {
            seen.insert(key, (verdict, at.line));
        }
    }
}
