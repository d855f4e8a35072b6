//! Flavour `linux`: the kernel's own packet filter (nftables) and dnsmasq.
//!
//! The script keeps to what nft 1.0.6 accepts. Interfaces are matched by name, so it can be loaded before they exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::text::{Chain, action, direction, family, nfproto, set};
use super::{Compiled, Flavour, TABLE, dnsmasq};
use crate::error::{Error, Result};
use crate::topology::{
    Addressing, Firewall, ForwardTarget, Guest, Interface, Protocol, Rule, RuleAction, Topology, ZoneRef,
};

/// nftables and dnsmasq in a Linux guest.
pub(super) struct Linux;

impl Flavour for Linux {
    fn id(&self) -> &'static str {
        "linux"
    }
    fn promise(&self) -> &'static str {
        "The Linux kernel's own packet filter (nftables) with dnsmasq for DHCP and DNS."
    }
    fn compile(&self, topology: &Topology, guest: &Guest, firewall: &Firewall) -> Result<Compiled> {
        let policy = Policy::new(topology, guest, firewall);
        Ok(Compiled { ruleset: policy.script()?, dnsmasq: dnsmasq::config(topology, guest, firewall) })
    }
}

/// Connections that are known are let through and broken ones dropped, before anything else is asked.
const KNOWN: &str = "ct state vmap { established : accept, related : accept, invalid : drop }";

struct Policy<'a> {
    topology: &'a Topology,
    guest: &'a Guest,
    firewall: &'a Firewall,
    /// Interfaces beyond which anything may be: DHCP clients, those that a default route leaves by, and those of
    /// masqueraded zones.
    outer: BTreeSet<&'a str>,
    /// All others: only their own subnets and what is routed by them may come from there.
    inner: BTreeSet<&'a str>,
}

impl<'a> Policy<'a> {
    fn new(topology: &'a Topology, guest: &'a Guest, firewall: &'a Firewall) -> Self {
        let interfaces = || guest.nics.iter().flat_map(|nic| &nic.interfaces);
        let (outer, inner): (Vec<_>, Vec<_>) =
            interfaces().partition(|interface| leads_anywhere(guest, firewall, interface));
        let names =
            |list: Vec<&'a Interface>| list.into_iter().map(|interface| interface.name.as_str()).collect();
        Self { topology, guest, firewall, outer: names(outer), inner: names(inner) }
    }

    fn script(&self) -> Result<String> {
        let mut out = format!(
            "# Firewall of guest {} in lab {}, made by netloom. Loading it replaces table inet {TABLE} at once.\n",
            self.guest.name, self.topology.lab
        );
        for (zone, interfaces) in &self.firewall.zones {
            let _ = writeln!(out, "# Zone {zone}: {}", interfaces.join(" "));
        }
        // `add` makes the `delete` right whether or not the table is there.
        let _ = writeln!(out, "add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{");
        let chains = [
            Some(self.antispoof()),
            Some(self.input()),
            Some(self.forward()?),
            self.output(),
            self.destination_nat()?,
            self.source_nat(),
        ];
        let chains: Vec<String> = chains.into_iter().flatten().collect();
        out.push_str(&chains.join("\n"));
        out.push_str("}\n");
        Ok(out)
    }

    /// After connection tracking and before destination NAT, so that a spoofed packet reaches neither NAT nor policy.
    fn antispoof(&self) -> String {
        let mut chain =
            Chain::new("antispoof", "type filter hook prerouting priority mangle; policy accept;");
        chain.rule("iifname \"lo\" accept", "loopback");
        chain.rule("ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept", "a DHCP client has no address yet");
        chain.rule(
            "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
            "nor has one that still looks for a duplicate of it",
        );
        chain.rule("ip6 saddr fe80::/10 accept", "a link-local address is of no use beyond its link");
        if !self.inner.is_empty() {
            let inner = set(&self.inner);
            chain.rule(
                &format!("iifname {inner} fib saddr . iif oif missing drop"),
                "antispoofing: the way back does not lead there",
            );
        }
        if !self.outer.is_empty() {
            let outer = set(&self.outer);
            chain.rule(
                &format!("iifname {outer} fib saddr type local drop"),
                "antispoofing: our own address from outside",
            );
            if !self.inner.is_empty() {
                chain.rule(
                    &format!("iifname {outer} fib saddr oifname {} drop", set(&self.inner)),
                    "antispoofing: an inner address from outside",
                );
            }
        }
        chain.end()
    }

    fn input(&self) -> String {
        let mut chain = Chain::new("input", "type filter hook input priority filter; policy drop;");
        chain.rule("iifname \"lo\" accept", "loopback");
        chain.rule(KNOWN, "known connections");
        chain.rule(
            "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
            "IPv6 neighbours and routers",
        );
        chain.rule(
            "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
            "IPv6 multicast",
        );
        let (dynamic4, dynamic6) = self.dynamic();
        if !dynamic4.is_empty() {
            let rule = format!("iifname {} udp sport 67 udp dport 68 accept", set(&dynamic4));
            chain.rule(&rule, "DHCP answers to us");
        }
        if !dynamic6.is_empty() {
            let rule = format!("iifname {} udp sport 547 udp dport 546 accept", set(&dynamic6));
            chain.rule(&rule, "DHCPv6 answers to us");
        }
        for zone in self.firewall.dhcp.keys() {
            if let Some(from) = self.interfaces(&[ZoneRef::Zone(zone.clone())]) {
                chain.rule(
                    &format!("iifname {from} udp dport 67 accept"),
                    &format!("{zone} -> self: our DHCP"),
                );
            }
        }
        for rule in self.firewall.rules.iter().filter(|rule| rule.forward.is_empty()) {
            let (true, Some(from)) = (rule.to.contains(&ZoneRef::Itself), self.interfaces(&rule.from)) else {
                continue;
            };
            chain.decide(&format!("iifname {from}"), rule);
        }
        for zone in self.firewall.dhcp.keys() {
            if let Some(from) = self.interfaces(&[ZoneRef::Zone(zone.clone())]) {
                let comment = format!("{zone} -> self: our DNS");
                chain.rule(&format!("iifname {from} udp dport 53 accept"), &comment);
                chain.rule(&format!("iifname {from} tcp dport 53 accept"), &comment);
            }
        }
        if let Some(any) = self.interfaces(&[ZoneRef::Any]) {
            chain.rule(&format!("iifname {any} icmp type echo-request accept"), "any -> self: ping");
            chain.rule(&format!("iifname {any} icmpv6 type echo-request accept"), "any -> self: ping");
        }
        chain.end()
    }

    fn forward(&self) -> Result<String> {
        let mut chain = Chain::new("forward", "type filter hook forward priority filter; policy drop;");
        chain.rule(KNOWN, "known connections");
        for rule in &self.firewall.rules {
            let Some(from) = self.interfaces(&rule.from) else { continue };
            let to = self.interfaces(&rule.to);
            if rule.forward.is_empty() {
                if let Some(to) = to {
                    chain.decide(&format!("iifname {from} oifname {to}"), rule);
                }
                continue;
            }
            // `to: self` with a forward limits nothing: the target decides where it leaves.
            let to = to.map(|to| format!(" oifname {to}")).unwrap_or_default();
            for forwarded in self.forwarded(rule)? {
                let Forwarded { target, protocol, .. } = &forwarded;
                let action = action(rule.action);
                chain.rule(
                    &format!(
                        "iifname {from}{to} ct status dnat {} daddr {} {protocol} dport {} {action}",
                        family(target.address),
                        target.address,
                        target.port,
                    ),
                    &format!("{}: forwarded to {}", direction(rule), self.owner(target.address)),
                );
            }
        }
        Ok(chain.end())
    }

    /// What the firewall sends itself is let through, save what rules from `self` say; without any there is no chain.
    fn output(&self) -> Option<String> {
        let mut chain = Chain::new("output", "type filter hook output priority filter; policy accept;");
        chain.rule(KNOWN, "known connections");
        let mut any = false;
        for rule in self.firewall.rules.iter().filter(|rule| rule.from.contains(&ZoneRef::Itself)) {
            let Some(to) = self.interfaces(&rule.to) else { continue };
            chain.decide(&format!("oifname {to}"), rule);
            any = true;
        }
        any.then(|| chain.end())
    }

    fn destination_nat(&self) -> Result<Option<String>> {
        let mut chain =
            Chain::new("destination_nat", "type nat hook prerouting priority dstnat; policy accept;");
        let mut any = false;
        for rule in self.firewall.rules.iter().filter(|rule| rule.action == RuleAction::Accept) {
            let Some(from) = self.interfaces(&rule.from) else { continue };
            for Forwarded { target, protocol, port } in self.forwarded(rule)? {
                let (nfproto, family) = (nfproto(target.address), family(target.address));
                let to = std::net::SocketAddr::new(target.address, target.port);
                chain.rule(
                    &format!(
                        "iifname {from} fib daddr type local meta nfproto {nfproto} {protocol} dport {port} dnat {family} to {to}"
                    ),
                    &format!("{}: to {}", direction(rule), self.owner(target.address)),
                );
                any = true;
            }
        }
        Ok(any.then(|| chain.end()))
    }

    fn source_nat(&self) -> Option<String> {
        let mut chain = Chain::new("source_nat", "type nat hook postrouting priority srcnat; policy accept;");
        let mut any = false;
        for zone in &self.firewall.masquerade {
            let own = self.firewall.zones.get(zone).map(Vec::as_slice).unwrap_or_default();
            let others: BTreeSet<&str> = self
                .firewall
                .zones
                .values()
                .flatten()
                .filter(|name| !own.contains(name))
                .map(String::as_str)
                .collect();
            let Some(out) = self.interfaces(&[ZoneRef::Zone(zone.clone())]) else { continue };
            if !others.is_empty() {
                let rule = format!("iifname {} oifname {out} masquerade", set(&others));
                chain.rule(&rule, &format!("other zones -> {zone}: behind our own address"));
                any = true;
            }
        }
        for rule in self.firewall.rules.iter().filter(|rule| !rule.forward.is_empty()) {
            // A guest that takes a port forward back into its own zone must get the answer from us.
            let (from, to) = (self.names(&rule.from), self.names(&rule.to));
            for name in from.intersection(&to) {
                let comment = format!("{}: a forward back to where it came from", direction(rule));
                chain.rule(
                    &format!("iifname \"{name}\" oifname \"{name}\" ct status dnat masquerade"),
                    &comment,
                );
                any = true;
            }
        }
        any.then(|| chain.end())
    }

    /// Names of the interfaces of zones; the firewall itself has none.
    fn names(&self, zones: &[ZoneRef]) -> BTreeSet<&'a str> {
        let of = |zone: &ZoneRef| -> Vec<&'a String> {
            match zone {
                ZoneRef::Zone(name) => self.firewall.zones.get(name).into_iter().flatten().collect(),
                ZoneRef::Any => self.firewall.zones.values().flatten().collect(),
                ZoneRef::Itself => Vec::new(),
            }
        };
        zones.iter().flat_map(of).map(String::as_str).collect()
    }

    /// The same as an nftables expression; `None` without any.
    fn interfaces(&self, zones: &[ZoneRef]) -> Option<String> {
        let names = self.names(zones);
        (!names.is_empty()).then(|| set(&names))
    }

    /// Interfaces that are DHCPv4 clients, and those that take IPv6 from the network.
    fn dynamic(&self) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
        let mut found = (BTreeSet::new(), BTreeSet::new());
        for interface in self.guest.nics.iter().flat_map(|nic| &nic.interfaces) {
            if matches!(interface.addressing, Addressing::Dynamic { .. }) {
                found.0.insert(interface.name.as_str());
                found.1.insert(interface.name.as_str());
            }
        }
        found
    }

    fn forwarded(&self, rule: &Rule) -> Result<Vec<Forwarded>> {
        let mut found = Vec::new();
        for target in &rule.forward {
            let mut services = rule.services.iter().peekable();
            if services.peek().is_none() {
                return Err(self.no_port());
            }
            for service in services {
                let protocol = match service.protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Icmp => return Err(self.no_port()),
                };
                // With several services the target's one port says nothing: each keeps its own.
                let port = if rule.services.len() == 1 { target.port } else { service.port };
                let target = ForwardTarget { address: target.address, port };
                found.push(Forwarded { target, protocol, port: service.port });
            }
        }
        Ok(found)
    }

    fn no_port(&self) -> Error {
        Error::input(format!("a port forward of firewall `{}` has no port to forward", self.guest.name))
            .hint("name a service such as tcp/80")
    }

    /// Name of the guest with this static address, else the address.
    fn owner(&self, address: IpAddr) -> String {
        let has = |guest: &&Guest| {
            guest.nics.iter().flat_map(|nic| &nic.interfaces).any(|interface| {
                matches!(&interface.addressing, Addressing::Static(list) if list.iter().any(|net| net.ip() == address))
            })
        };
        let guest = self.topology.guests.values().find(has);
        guest.map_or_else(|| address.to_string(), |guest| guest.name.clone())
    }
}

struct Forwarded {
    target: ForwardTarget,
    protocol: &'static str,
    /// Port on the firewall.
    port: u16,
}

/// Whether anything may be behind an interface: a second way out has no default route of its own, but is masqueraded.
fn leads_anywhere(guest: &Guest, firewall: &Firewall, interface: &Interface) -> bool {
    let masqueraded = firewall.masquerade.iter().filter_map(|zone| firewall.zones.get(zone)).flatten();
    let Addressing::Static(own) = &interface.addressing else {
        return matches!(interface.addressing, Addressing::Dynamic { .. });
    };
    let default = guest.routes.iter().filter(|route| route.to.prefix() == 0);
    masqueraded.into_iter().any(|name| *name == interface.name)
        || default.into_iter().any(|route| own.iter().any(|subnet| subnet.contains(route.via)))
}
