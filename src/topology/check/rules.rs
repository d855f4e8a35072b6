//! Firewall rules and port forwards.

use std::collections::HashMap;
use std::net::IpAddr;

use super::address::family;
use super::firewall::Zones;
use super::guests::{Drafts, GuestDraft};
use crate::diagnostic::{Sink, Span};
use crate::spec::decode::{At, List};
use crate::spec::file;
use crate::spec::suggest::unknown;
use crate::spec::tree::shortened;
use crate::topology::{Firewall, ForwardTarget, Protocol, Rule, RuleAction, Service, ZoneRef};

/// A firewall and everything its rules may mean.
struct Rules<'a> {
    name: &'a str,
    draft: &'a GuestDraft<'a>,
    zones: &'a Zones,
    drafts: &'a Drafts<'a>,
    /// Where a service of a zone is forwarded first.
    forwards: HashMap<(String, Service), Span>,
}

/// Finishes a firewall.
pub(super) fn check(
    name: &str,
    draft: &GuestDraft<'_>,
    zones: &Zones,
    drafts: &Drafts<'_>,
    sink: &mut Sink,
) -> Firewall {
    let mut rules = Rules { name, draft, zones, drafts, forwards: HashMap::new() };
    let decl = draft.decl.firewall.get().and_then(|firewall| firewall.rules.get());
    let mut out = Vec::new();
    for rule in decl.map_or(&[][..], |list| &list.items) {
        rules.one(rule, &mut out, sink);
    }
    Firewall {
        flavour: zones.flavour.clone(),
        zones: zones.interfaces.clone(),
        masquerade: zones.masquerade.clone(),
        dhcp: zones.dhcp.clone(),
        rules: out,
    }
}

impl Rules<'_> {
    fn one(&mut self, rule: &file::Rule, out: &mut Vec<Rule>, sink: &mut Sink) {
        let from = rule.from.get().map(|list| self.zone_refs(list, "from", sink));
        let to = rule.to.get().map(|list| self.zone_refs(list, "to", sink));
        let services = self.services(rule, sink);
        let action = rule.action.get().map_or(RuleAction::Accept, |action| action.value);
        if let (Some([ZoneRef::Itself]), Some([ZoneRef::Itself])) = (from.as_deref(), to.as_deref()) {
            sink.hinted(
                rule.at,
                "the rule is from the firewall to itself, which is never filtered",
                "name a zone",
            );
        }
        let (Some(from), Some(to)) = (from, to) else { return };
        let Some(forward) = rule.forward.get() else {
            out.push(Rule { from, to, services, action, forward: Vec::new() });
            return;
        };
        if let Some(span) =
            rule.action.get().filter(|action| action.value != RuleAction::Accept).map(|a| a.span)
        {
            sink.hinted(span, "a port forward cannot drop or reject", "remove `action`, or `forward`");
        }
        self.forward_sides(rule, &from, &to, sink);
        if services.is_empty() {
            if rule.service.is_absent() {
                let hint = "add the port that is forwarded, such as `service: tcp/80`";
                sink.hinted(forward.span, "a port forward needs a service", hint);
            }
            return;
        }
        let Some((target, port)) = self.target(forward, &to, sink) else { return };
        for service in self.forwardable(rule, &services, port, forward.span, sink) {
            self.claim(&from, service, rule, sink);
            let targets = target
                .iter()
                .map(|address| ForwardTarget { address: *address, port: port.unwrap_or(service.port) });
            out.push(Rule {
                from: from.clone(),
                to: to.clone(),
                services: vec![service],
                action: RuleAction::Accept,
                forward: targets.collect(),
            });
        }
    }

    fn zone_refs(&self, list: &List<At<String>>, key: &str, sink: &mut Sink) -> Vec<ZoneRef> {
        let mut out = Vec::new();
        if list.items.is_empty() && !list.broken {
            sink.hinted(list.span, format!("`{key}` names no zone"), "name a zone, `any` or `self`");
        }
        for name in &list.items {
            let zone = match name.as_str() {
                "any" => ZoneRef::Any,
                "self" => ZoneRef::Itself,
                _ if self.zones.known(name, self.name, sink) => ZoneRef::Zone(name.value.clone()),
                _ => continue,
            };
            if out.contains(&zone) {
                sink.hinted(name.span, format!("`{}` is listed twice", name.value), "remove one of them");
            } else {
                out.push(zone);
            }
        }
        out
    }

    fn services(&self, rule: &file::Rule, sink: &mut Sink) -> Vec<Service> {
        let mut out = Vec::new();
        let Some(list) = rule.service.get() else { return out };
        if list.items.is_empty() && !list.broken {
            sink.hinted(list.span, "`service` names no service", "remove `service` to mean all traffic");
        }
        for service in &list.items {
            if out.contains(&service.value) {
                sink.hinted(
                    service.span,
                    format!("`{}` is listed twice", service.value),
                    "remove one of them",
                );
            } else {
                out.push(service.value);
            }
        }
        out
    }

    fn forward_sides(&self, rule: &file::Rule, from: &[ZoneRef], to: &[ZoneRef], sink: &mut Sink) {
        let span = |list: Option<&List<At<String>>>| list.map_or(rule.at, |list| list.span);
        if from.contains(&ZoneRef::Itself) {
            let at = span(rule.from.get().map(|many| &many.0));
            sink.hinted(
                at,
                "a port forward cannot come from the firewall itself",
                "name the zones it comes from",
            );
        }
        if to.contains(&ZoneRef::Itself) {
            let at = span(rule.to.get().map(|many| &many.0));
            let hint =
                "name the zone the target is in; without `forward`, `to: self` opens a port of the firewall";
            sink.hinted(at, "a port forward cannot lead to the firewall itself", hint);
        }
    }

    /// The services of a forward: TCP and UDP; with a port of its own, one alone.
    fn forwardable(
        &self,
        rule: &file::Rule,
        services: &[Service],
        port: Option<u16>,
        at: Span,
        sink: &mut Sink,
    ) -> Vec<Service> {
        let place = rule.service.get().map_or(at, |list| list.span);
        let (ports, icmp): (Vec<Service>, Vec<Service>) =
            services.iter().partition(|s| s.protocol != Protocol::Icmp);
        if !icmp.is_empty() {
            sink.hinted(place, "`icmp` has no port that could be forwarded", "forward `tcp/…` or `udp/…`");
        }
        if let Some(port) = port
            && ports.len() > 1
        {
            let message = format!("{} services cannot be forwarded to the one port {port}", ports.len());
            sink.hinted(place, message, "write a rule for each service, or leave the target's port out");
        }
        ports
    }

    /// Notes forwards of the same port of the same zone.
    fn claim(&mut self, from: &[ZoneRef], service: Service, rule: &file::Rule, sink: &mut Sink) {
        let zones: Vec<String> = if from.contains(&ZoneRef::Any) {
            self.zones.interfaces.keys().cloned().collect()
        } else {
            let name = |zone: &ZoneRef| match zone {
                ZoneRef::Zone(name) => Some(name.clone()),
                _ => None,
            };
            from.iter().filter_map(name).collect()
        };
        let span = rule.forward.get().map_or(rule.at, |forward| forward.span);
        for zone in zones {
            let first = *self.forwards.entry((zone.clone(), service)).or_insert(span);
            if first != span {
                let message =
                    format!("`{service}` from zone `{zone}` is already forwarded (line {})", first.line);
                sink.hinted(span, message, "forward another port, or remove one of them");
                return;
            }
        }
    }

    /// The target's addresses, one of each family, and its port where the file says one.
    fn target(
        &self,
        forward: &At<String>,
        to: &[ZoneRef],
        sink: &mut Sink,
    ) -> Option<(Vec<IpAddr>, Option<u16>)> {
        let (host, port) = super::endpoint::split(forward, sink)?;
        if let Ok(address) = host.parse::<IpAddr>() {
            self.in_zone(address, forward, to, sink).then_some(())?;
            return Some((vec![address], port));
        }
        let Some(entry) = self.drafts.get(host) else {
            let message = format!("there is no guest `{}` to forward to", shortened(host));
            sink.hinted(
                forward.span,
                message,
                unknown(host, "guests", self.drafts.keys().map(String::as_str)),
            );
            return None;
        };
        if host == self.name {
            let hint = "name the guest behind it; a rule with `to: self` opens a port of the firewall";
            sink.hinted(forward.span, "a firewall cannot forward to itself", hint);
            return None;
        }
        let guest = entry.as_ref()?;
        let addresses = self.reachable_addresses(guest);
        if addresses.is_empty() {
            let unread = guest.loose || guest.interfaces().any(|i| i.asked && i.statics.is_empty());
            if !unread {
                let message = format!("guest `{host}` has no static address to forward to");
                sink.hinted(forward.span, message, format!("give a NIC of `{host}` an `address`"));
            }
            return None;
        }
        addresses.iter().all(|address| self.in_zone(*address, forward, to, sink)).then_some((addresses, port))
    }

    /// A guest's static addresses, one of each family; those on the firewall's own segments first.
    fn reachable_addresses(&self, guest: &GuestDraft<'_>) -> Vec<IpAddr> {
        let near = |id| self.draft.interfaces().any(|own| own.segment == id);
        let mut all: Vec<(bool, IpAddr)> = guest
            .interfaces()
            .flat_map(|interface| interface.statics.iter().map(move |net| (interface.segment, net.ip())))
            .map(|(segment, ip)| (!near(segment), ip))
            .collect();
        all.sort_by_key(|(far, _)| *far);
        let mut out: Vec<IpAddr> = Vec::new();
        for (_, ip) in all {
            if !out.iter().any(|other| family(*other) == family(ip)) {
                out.push(ip);
            }
        }
        out.sort();
        out
    }

    /// Whether a target in a subnet of the firewall is in a zone the rule names.
    fn in_zone(&self, address: IpAddr, forward: &At<String>, to: &[ZoneRef], sink: &mut Sink) -> bool {
        let own = self
            .draft
            .interfaces()
            .find(|interface| interface.statics.iter().any(|net| net.contains(address)));
        let Some(interface) = own else { return true };
        if interface.statics.iter().any(|net| net.ip() == address) {
            let message = format!("`{address}` is firewall `{}` itself", self.name);
            sink.hinted(forward.span, message, "name the guest behind it");
            return false;
        }
        let zone = self
            .zones
            .interfaces
            .iter()
            .find(|(_, names)| names.contains(&interface.name))
            .map(|(zone, _)| zone);
        let named = to.contains(&ZoneRef::Any)
            || zone.is_some_and(|zone| to.contains(&ZoneRef::Zone(zone.clone())))
            || to.contains(&ZoneRef::Itself)
            || to.is_empty();
        match zone {
            _ if named => true,
            Some(zone) => {
                let message =
                    format!("the forward's target `{address}` is in zone `{zone}`, which `to` does not name");
                sink.hinted(
                    forward.span,
                    message,
                    format!("write `to: {zone}`, or name a target in the zone of `to`"),
                );
                false
            }
            None => {
                let message = format!(
                    "the forward's target `{address}` is behind `{}`, which is in no zone",
                    interface.reference
                );
                sink.hinted(
                    forward.span,
                    message,
                    format!("put `{}` into a zone and name the zone in `to`", interface.reference),
                );
                false
            }
        }
    }
}
