//! Networks whose uplink is a port of the bridge to the host's one nftables table of family `bridge`: what keeps the
//! host, or the rest of the uplink's network, from the guests' ports.

use std::fmt::Write as _;

use crate::resource::names;

/// A network with an uplink as a barrier sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// Name in the file, for comments.
    pub network: String,
    /// Kernel names of the guests' ports.
    pub ports: Vec<String>,
    /// Whether the host is kept from them, and they from it.
    pub barred: bool,
    /// Whether new connections from the uplink are kept from them.
    pub guarded: bool,
}

/// The script for `nft -f` that replaces the lab's bridge table in one transaction; `None` when no network needs one.
///
/// Rules name the guests' ports and nothing else, since the family's hooks see the frames of every bridge.
#[must_use]
pub fn bridge_ruleset(lab: &str, networks: &[Barrier]) -> Option<String> {
    let wanted = |barrier: &&Barrier| !barrier.ports.is_empty() && (barrier.barred || barrier.guarded);
    let networks: Vec<&Barrier> = networks.iter().filter(wanted).collect();
    if networks.is_empty() {
        return None;
    }
    let table = names::table(lab);
    let mut out = format!(
        "# Bridges of lab {lab} on uplinks, made by netloom. Loading it replaces table bridge {table} at once.\n\
         add table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n"
    );
    if networks.iter().any(|barrier| barrier.guarded) {
        out.push_str(&asked());
    }
    for (chain, direction) in [("input", "iifname"), ("output", "oifname")] {
        let barred = networks.iter().filter(|barrier| barrier.barred);
        let rules: String = barred
            .map(|barrier| {
                let Barrier { network, ports, .. } = barrier;
                format!("\t\t{direction} {} drop comment \"{network}: the host takes no part\"\n", set(ports))
            })
            .collect();
        if !rules.is_empty() {
            let _ = write!(
                out,
                "\tchain {chain} {{\n\t\ttype filter hook {chain} priority filter; policy accept;\n{rules}\t}}\n"
            );
        }
    }
    let guarded: String = networks.iter().filter(|barrier| barrier.guarded).map(|b| guard(b)).collect();
    if !guarded.is_empty() {
        let _ = write!(
            out,
            "\tchain forward {{\n\t\ttype filter hook forward priority filter; policy accept;\n{guarded}\t}}\n"
        );
    }
    out.push_str("}\n");
    Some(out)
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
