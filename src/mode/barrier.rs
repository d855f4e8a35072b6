//! Bridges to the host's one nftables table of family `bridge`: what keeps the host, or the rest of the uplink's network,
//! from the guests' ports, and communities of a private VLAN from each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnetwork::IpNetwork;

use crate::resource::names;

/// A network as a barrier sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Barrier {
    /// Name in the file, for comments.
    pub network: String,
    /// Kernel names of the guests' ports.
    pub ports: Vec<String>,
    /// Whether the host is kept from them, and they from it.
    pub barred: bool,
    /// Whether new connections from the uplink are kept from them.
    pub guarded: bool,
    /// Of the ports those in a community, by its name.
    pub communities: BTreeMap<String, Vec<String>>,
    /// Of the ports the isolated ones. From each other the kernel keeps them.
    pub isolated: Vec<String>,
    /// The host's own addresses there, with prefix length, where it shall not route between guests that the bridge keeps
    /// apart.
    pub unrouted: Vec<IpNetwork>,
}

impl Barrier {
    fn is_needed(&self) -> bool {
        let rules = self.barred || self.guarded || !self.communities.is_empty() || !self.unrouted.is_empty();
        !self.ports.is_empty() && rules
    }
}

/// The script for `nft -f` that replaces the lab's bridge table in one transaction; `None` when no network needs one.
///
/// Rules name the guests' ports and nothing else, since the family's hooks see the frames of every bridge.
#[must_use]
pub fn bridge_ruleset(lab: &str, networks: &[Barrier]) -> Option<String> {
    let networks: Vec<&Barrier> = networks.iter().filter(|barrier| barrier.is_needed()).collect();
    if networks.is_empty() {
        return None;
    }
    let table = names::table(lab);
    let mut out = format!(
        "# Bridges of lab {lab}, made by netloom. Loading it replaces table bridge {table} at once.\n\
         add table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n"
    );
    if networks.iter().any(|barrier| barrier.guarded) {
        out.push_str(&asked());
    }
    for (chain, direction) in [("input", "iifname"), ("output", "oifname")] {
        let barred = networks.iter().filter(|barrier| barrier.barred);
        let mut rules: String = barred
            .map(|barrier| {
                let Barrier { network, ports, .. } = barrier;
                format!("\t\t{direction} {} drop comment \"{network}: the host takes no part\"\n", set(ports))
            })
            .collect();
        if chain == "input" {
            rules.extend(networks.iter().map(|barrier| unrouted(barrier)));
        }
        if !rules.is_empty() {
            let _ = write!(
                out,
                "\tchain {chain} {{\n\t\ttype filter hook {chain} priority filter; policy accept;\n{rules}\t}}\n"
            );
        }
    }
    let apart: String = networks.iter().map(|barrier| apart(barrier)).collect();
    let guarded: String = networks.iter().filter(|barrier| barrier.guarded).map(|b| guard(b)).collect();
    if !(apart.is_empty() && guarded.is_empty()) {
        // What a guard accepts is decided: who is kept apart comes first.
        let _ = write!(
            out,
            "\tchain forward {{\n\t\ttype filter hook forward priority filter; policy accept;\n{apart}{guarded}\t}}\n"
        );
    }
    out.push_str("}\n");
    Some(out)
}

/// What a guest hands to the host for another guest. Here and not where packets are forwarded: with `br_netfilter` those
/// that the bridge may pass come by there, too, and look the same.
fn unrouted(barrier: &Barrier) -> String {
    let Barrier { network, ports, unrouted, .. } = barrier;
    let rule = |own: &IpNetwork| {
        let (family, mut spared) = (if own.is_ipv4() { "ip" } else { "ip6" }, vec![own.ip().to_string()]);
        if own.is_ipv4() {
            spared.push(own.broadcast().to_string());
        }
        format!(
            "\t\tiifname {} {family} daddr {}/{} {family} daddr != {{ {} }} drop comment \"{network}: nothing is routed back\"\n",
            set(ports),
            own.network(),
            own.prefix(),
            spared.join(", ")
        )
    };
    unrouted.iter().map(rule).collect()
}

/// A community hears neither another one nor the isolated ports, and is not heard there.
fn apart(barrier: &Barrier) -> String {
    let Barrier { network, communities, isolated, .. } = barrier;
    let mut out = String::new();
    for (name, ports) in communities {
        let others: Vec<String> = communities
            .iter()
            .filter(|(other, _)| *other != name)
            .flat_map(|(_, ports)| ports)
            .chain(isolated)
            .cloned()
            .collect();
        if others.is_empty() {
            continue;
        }
        let (own, others) = (set(ports), set(&others));
        let _ = writeln!(
            out,
            "\t\tiifname {own} oifname {others} drop comment \"{network}: community {name} to others\"\n\
             \t\tiifname {others} oifname {own} drop comment \"{network}: others to community {name}\""
        );
    }
    out
}

/// What guests asked whom, turned round: the addresses and ports of the answer. Connection tracking would know more, but
/// for bridges it is a part of the kernel of its own (`nf_conntrack_bridge`), which many kernels lack.
fn asked() -> String {
    let of = |name: &str, address: &str| {
        format!(
            "\tset {name} {{\n\t\ttype {address} . {address} . inet_proto . inet_service . inet_service\n\
             \t\tflags dynamic,timeout\n\t\tsize 65535\n\t}}\n"
        )
    };
    of("asked4", "ipv4_addr") + &of("asked6", "ipv6_addr")
}

/// What passes to guests from elsewhere: answers, and what addresses are made of. A connection that is silent for as long
/// as connection tracking would remember it (UDP: 2 minutes), or for an hour (TCP), has to be taken up by the guest.
fn guard(barrier: &Barrier) -> String {
    let Barrier { network, ports, .. } = barrier;
    let (from, to) = (format!("iifname {}", set(ports)), format!("oifname {}", set(ports)));
    let mut out = String::new();
    let mut rule = |text: String, comment: &str| {
        let _ = writeln!(out, "\t\t{text} comment \"{network}: {comment}\"");
    };
    let families = [("ip", "asked4"), ("ip6", "asked6")];
    for (family, asked) in families {
        for (protocol, time) in [("tcp", "1h"), ("udp", "2m")] {
            let answer = format!(
                "{family} daddr . {family} saddr . meta l4proto . {protocol} dport . {protocol} sport timeout {time}"
            );
            rule(
                format!("{from} meta l4proto {protocol} update @{asked} {{ {answer} }}"),
                "remember who was asked",
            );
        }
    }
    rule(format!("{from} accept"), "guests send what they like");
    rule(format!("{to} ether type arp accept"), "neighbours");
    rule(
        format!(
            "{to} icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query }} accept"
        ),
        "IPv6 neighbours and routers",
    );
    rule(format!("{to} udp sport 67 udp dport 68 accept"), "DHCP answers");
    // A client asks ff02::1:2 and is answered at its link-local address (RFC 8415, sections 7 and 18.3.10).
    rule(format!("{to} ip6 daddr fe80::/10 udp sport 547 udp dport 546 accept"), "DHCPv6 answers");
    for (family, asked) in families {
        let answer =
            format!("{family} saddr . {family} daddr . meta l4proto . th sport . th dport @{asked} accept");
        rule(format!("{to} meta l4proto {{ tcp, udp }} {answer}"), "answers");
    }
    let failed = "destination-unreachable, time-exceeded, parameter-problem";
    rule(format!("{to} icmp type {{ echo-reply, {failed} }} accept"), "answers");
    rule(format!("{to} icmpv6 type {{ echo-reply, packet-too-big, {failed} }} accept"), "answers");
    // The first fragment decides; without it the others are of no use to anybody.
    rule(format!("{to} ip frag-off & 0x1fff != 0 accept"), "what follows the first fragment");
    rule(format!("{to} drop"), "nothing else comes in");
    out
}

fn set(ports: &[String]) -> String {
    let quoted: Vec<String> = ports.iter().map(|port| format!("\"{port}\"")).collect();
    format!("{{ {} }}", quoted.join(", "))
}
