//! nftables' words: sets, matches, rules and chains as they are written in a script.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::topology::{Protocol, Rule, RuleAction, Service, ZoneRef};

/// nftables keeps at most this many bytes of a rule's comment, its NUL included (`NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX: usize = 127;

/// `"eth0"`, or `{ "eth0", "eth1.10" }`.
pub(super) fn set(names: &BTreeSet<&str>) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}

pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

pub(super) fn nfproto(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// A refusal tells that it comes from a firewall, so that it is not taken for a missing server.
pub(super) fn action(action: RuleAction) -> &'static str {
    match action {
        RuleAction::Accept => "accept",
        RuleAction::Drop => "drop",
        RuleAction::Reject => "reject with icmpx type admin-prohibited",
    }
}

/// `lan, dmz -> wan`.
pub(super) fn direction(rule: &Rule) -> String {
    let words = |zones: &[ZoneRef]| {
        let words: Vec<&str> = zones
            .iter()
            .map(|zone| match zone {
                ZoneRef::Zone(name) => name.as_str(),
                ZoneRef::Itself => "self",
                ZoneRef::Any => "any",
            })
            .collect();
        words.join(", ")
    };
    format!("{} -> {}", words(&rule.from), words(&rule.to))
}

/// Matches for services, one for each protocol; a single empty one for all traffic.
fn matches(services: &[Service]) -> Vec<String> {
    let mut ports: BTreeMap<Protocol, BTreeSet<u16>> = BTreeMap::new();
    for service in services {
        ports.entry(service.protocol).or_default().insert(service.port);
    }
    if ports.is_empty() {
        return vec![String::new()];
    }
    let of = |(protocol, ports): (Protocol, BTreeSet<u16>)| {
        let name = match protocol {
            Protocol::Icmp => return " meta l4proto { icmp, ipv6-icmp }".to_owned(),
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let list: Vec<String> = ports.iter().map(u16::to_string).collect();
        match list.as_slice() {
            [one] => format!(" {name} dport {one}"),
            many => format!(" {name} dport {{ {} }}", many.join(", ")),
        }
    };
    ports.into_iter().map(of).collect()
}

/// A base chain as it is written.
pub(super) struct Chain(String);

impl Chain {
    pub(super) fn new(name: &str, hook: &str) -> Self {
        Self(format!("\tchain {name} {{\n\t\t{hook}\n"))
    }

    pub(super) fn rule(&mut self, text: &str, comment: &str) {
        let mut comment = comment.to_owned();
        if comment.len() > COMMENT_MAX {
            comment.truncate(COMMENT_MAX - 3); // names are ASCII
            comment.push_str("...");
        }
        let _ = writeln!(self.0, "\t\t{text} comment \"{comment}\"");
    }

    /// A rule of the file, for the traffic that `ends` matches.
    pub(super) fn decide(&mut self, ends: &str, rule: &Rule) {
        for service in matches(&rule.services) {
            self.rule(&format!("{ends}{service} {}", action(rule.action)), &direction(rule));
        }
    }

    pub(super) fn end(mut self) -> String {
        self.0.push_str("\t}\n");
        self.0
    }
}
