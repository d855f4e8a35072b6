//! Networks to the host's nftables table, one for each lab.
//!
//! It stands beside the tables of others (Docker, firewalld, libvirt) and touches none of them: a table of its own, base
//! chains with policy accept, and rules that match nothing but the lab's own links. In nftables a packet must be let
//! through by every base chain, so what this table accepts another one may still drop, and what this one drops stays
//! dropped whatever the order.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::router::dnat;
use super::{Egress, Uplink, Wiring};
use crate::resource::names;
use crate::topology::Forward;

/// A network as the host's ruleset sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    /// Name in the file, for comments.
    pub name: String,
    /// Kernel name of the link that IP traffic of the network passes on the host: the bridge or a VLAN link on it.
    pub bridge: String,
    /// What its mode expands to.
    pub wiring: Wiring,
    /// Its subnets.
    pub subnets: Vec<IpNetwork>,
    /// Port forwards into it.
    pub forwards: Vec<Forward>,
    /// The host's address there that leads to the host's loopback.
    pub loopback: Option<IpNetwork>,
    /// The host's addresses there at which the network's own DHCP or DNS server listens.
    pub served: Vec<IpAddr>,
}

/// The script for `nft -f` that replaces the lab's table on the host in one transaction; `None` when no network needs
/// a rule (delete the table then).
#[must_use]
pub fn host_ruleset(lab: &str, networks: &[HostNetwork]) -> Option<String> {
    // On a bridge with an uplink the host is one station among others; its traffic is not ours to filter.
    let ours = || networks.iter().filter(|network| network.wiring.uplink == Uplink::None);
    let forward = forward_chain(&ours().flat_map(forward_rules).collect::<Vec<_>>());
    let input = merged(&ours().filter_map(input_rule).collect::<Vec<_>>());
    let masquerade: String = ours().map(masquerade_rules).collect();
    let served: Vec<IpAddr> = ours().flat_map(|network| network.served.iter().copied()).collect();
    let dnats = |matches: &str| -> String {
        ours().flat_map(|network| &network.forwards).map(|f| dnat(f, matches, &served)).collect()
    };
    // Frames between two ports of a bridge come by as well where `br_netfilter` is loaded. On a bridge without a leg of
    // the host, an address is somebody else's even if the host has the same one elsewhere.
    let legless: Vec<String> = ours()
        .filter(|network| !network.wiring.host_leg)
        .map(|network| format!("\"{}\"", network.bridge))
        .collect();
    let arriving = if legless.is_empty() { String::new() } else { format!("iifname != {}", set(&legless)) };
    let (forwards, own_forwards) = (dnats(&arriving), dnats(""));
    let loopback: String = ours().map(loopback_rules).collect();
    if [&input, &forward, &masquerade, &forwards, &loopback].iter().all(|rules| rules.is_empty()) {
        return None;
    }
    let table = names::table(lab);
    let mut out = format!(
        "# Host side of lab {lab}, made by netloom. Loading it replaces table inet {table} at once.\n\
         # The links named here are the lab's own; everything else passes untouched.\n\
         add table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n"
    );
    if !loopback.is_empty() {
        // Before connections are tracked, so that it sees the address that was asked for.
        let guards: String =
            ours().filter(|network| network.loopback.is_some()).map(loopback_guard).collect();
        let _ = write!(
            out,
            "\tchain loopback_guard {{\n\t\ttype filter hook prerouting priority raw; policy accept;\n{guards}\t}}\n"
        );
    }
    if !(forwards.is_empty() && loopback.is_empty()) {
        let _ = write!(
            out,
            "\tchain destination_nat {{\n\t\ttype nat hook prerouting priority dstnat - 5; policy accept;\n{loopback}{forwards}\t}}\n"
        );
    }
    if !forwards.is_empty() {
        // The host's own connections do not pass prerouting. -100 is `dstnat`, which nft knows by name only there.
        let _ = write!(
            out,
            "\tchain own_destination_nat {{\n\t\ttype nat hook output priority -105; policy accept;\n{own_forwards}\t}}\n"
        );
    }
    if !input.is_empty() {
        let _ = write!(
            out,
            "\tchain input {{\n\t\ttype filter hook input priority filter; policy accept;\n{input}\t}}\n"
        );
    }
    if !forward.is_empty() {
        // The priority decides nothing here: a drop is final in whichever chain it comes.
        let _ = write!(
            out,
            "\tchain forward {{\n\t\ttype filter hook forward priority filter; policy accept;\n{forward}\t}}\n"
        );
    }
    if !masquerade.is_empty() {
        // The first chain that maps a connection wins: a little before the usual place, so that a wider rule of
        // somebody else cannot give our guests another address.
        let _ = write!(
            out,
            "\tchain source_nat {{\n\t\ttype nat hook postrouting priority srcnat - 5; policy accept;\n{masquerade}\t}}\n"
        );
    }
    out.push_str("}\n");
    Some(out)
}

/// A rule about packets that come from a link of ours, or go there.
struct Rule<'a> {
    network: &'a HostNetwork,
    /// `iifname` or `oifname`: where they come from, or go.
    end: &'static str,
    /// What else holds for them, and what becomes of them.
    rest: String,
    /// Why.
    reason: &'static str,
}

/// The rules as text, those that differ in nothing but the link as one: what it costs to pass them, to load and to list them
/// is the same then, however many networks there are.
fn merged(rules: &[Rule<'_>]) -> String {
    let mut groups: Vec<(&Rule<'_>, Vec<&HostNetwork>)> = Vec::new();
    let mut known = HashMap::new();
    for rule in rules {
        let number = *known.entry((rule.end, &rule.rest, rule.reason)).or_insert_with(|| {
            groups.push((rule, Vec::new()));
            groups.len() - 1
        });
        groups[number].1.push(rule.network);
    }
    let mut out = String::new();
    for (Rule { end, rest, reason, .. }, networks) in groups {
        let links: Vec<String> = networks.iter().map(|network| format!("\"{}\"", network.bridge)).collect();
        let (links, names) = (set(&links), names_of(&networks));
        let _ = writeln!(out, "\t\t{end} {links} {rest} comment \"{names}: {reason}\"");
    }
    out
}

/// Names of networks, as many as a comment has room for: nft takes 128 bytes (`NFTNL_UDATA_COMMENT_MAXLEN`).
fn names_of(networks: &[&HostNetwork]) -> String {
    const ROOM: usize = 48;
    let mut out = String::new();
    for (number, network) in networks.iter().enumerate() {
        if number > 0 && out.len() + network.name.len() > ROOM {
            let _ = write!(out, " and {} more", networks.len() - number);
            break;
        }
        let comma = if number == 0 { "" } else { ", " };
        let _ = write!(out, "{comma}{}", network.name);
    }
    out
}

/// What may be routed between our networks and everything else. Frames between two ports of one bridge come by here too
/// where `br_netfilter` is loaded, with the bridge as both ends; they always pass.
fn forward_chain(rules: &[Rule<'_>]) -> String {
    if rules.is_empty() {
        return String::new();
    }
    let links: BTreeSet<&str> = rules.iter().map(|rule| rule.network.bridge.as_str()).collect();
    let pairs: Vec<String> = links.iter().map(|link| format!("\"{link}\" . \"{link}\"")).collect();
    format!(
        "\t\tiifname . oifname {{ {} }} accept comment \"within one network\"\n{}",
        pairs.join(", "),
        merged(rules)
    )
}

/// What is not routed between a network and everything else.
fn forward_rules(network: &HostNetwork) -> Vec<Rule<'_>> {
    let HostNetwork { wiring, subnets, forwards, .. } = network;
    let mut out = Vec::new();
    let mut rule = |end, rest: String, reason| out.push(Rule { network, end, rest, reason });
    let (leaves, enters) = ("iifname", "oifname");
    let unknown = "ct state != { established, related }";
    match wiring.egress {
        // Not `accept` for the known ones: another rule here may be about the other end.
        Egress::None if wiring.ingress || !forwards.is_empty() => {
            rule(leaves, format!("{unknown} drop"), "only answers leave");
        }
        Egress::None => rule(leaves, "drop".to_owned(), "nothing leaves"),
        Egress::Routed => {}
        Egress::Masquerade => {
            for (family, nets) in by_family(subnets) {
                if nets.is_empty() {
                    rule(leaves, format!("meta nfproto {} drop", nfproto(family)), "no subnet, no way out");
                } else {
                    rule(
                        leaves,
                        format!("{family} saddr != {} drop", set(&nets)),
                        "nothing leaves with an address that would not be masqueraded",
                    );
                }
            }
        }
    }
    if !wiring.ingress {
        match wiring.egress {
            _ if !forwards.is_empty() => {
                rule(
                    enters,
                    format!("{unknown} ct status & dnat == 0 drop"),
                    "only answers and forwarded ports come in",
                );
            }
            Egress::None => rule(enters, "drop".to_owned(), "nothing comes in"),
            _ => rule(enters, format!("{unknown} drop"), "only answers come in"),
        }
    }
    out
}

/// What a guest sends to the host's end reaches what listens on the host's loopback alone.
fn loopback_rules(network: &HostNetwork) -> String {
    let (HostNetwork { name, bridge, .. }, Some(address)) = (network, network.loopback) else {
        return String::new();
    };
    format!(
        "\t\tiifname \"{bridge}\" ip daddr {} meta l4proto {{ tcp, udp }} dnat ip to 127.0.0.1 comment \"{name}: the gateway's address is the host's loopback\"\n",
        address.ip()
    )
}

/// The link takes packets for the loopback (`route_localnet`); only those that were sent to the gateway shall get there.
fn loopback_guard(network: &HostNetwork) -> String {
    let HostNetwork { name, bridge, .. } = network;
    format!(
        "\t\tiifname \"{bridge}\" ip daddr 127.0.0.0/8 drop comment \"{name}: nobody asks for the loopback itself\"\n"
    )
}

/// The kernel takes a packet for any of the host's addresses on any link, even on one without an address: a guest that
/// asks for the host's address on another network would find it.
fn input_rule(network: &HostNetwork) -> Option<Rule<'_>> {
    let (rest, reason) = ("drop".to_owned(), "the host has no leg here");
    (!network.wiring.host_leg).then_some(Rule { network, end: "iifname", rest, reason })
}

fn masquerade_rules(network: &HostNetwork) -> String {
    let mut out = String::new();
    if !network.forwards.is_empty() {
        let (name, bridge) = (&network.name, &network.bridge);
        let _ = writeln!(
            out,
            "\t\tiifname \"{bridge}\" oifname \"{bridge}\" ct status dnat masquerade comment \"{name}: a forward back to where it came from\""
        );
    }
    if network.wiring.egress != Egress::Masquerade {
        return out;
    }
    for (family, nets) in by_family(&network.subnets) {
        if !nets.is_empty() {
            let (name, bridge) = (&network.name, &network.bridge);
            let _ = writeln!(
                out,
                "\t\tiifname \"{bridge}\" oifname != \"{bridge}\" {family} saddr {} masquerade comment \"{name}: behind the host's address\"",
                set(&nets)
            );
        }
    }
    out
}

/// Subnets of IPv4 and of IPv6, by nftables' word for the family.
fn by_family(subnets: &[IpNetwork]) -> [(&'static str, Vec<String>); 2] {
    let of = |v4: bool| {
        subnets
            .iter()
            .filter(|net| net.is_ipv4() == v4)
            .map(|net| format!("{}/{}", net.network(), net.prefix()))
            .collect()
    };
    [("ip", of(true)), ("ip6", of(false))]
}

fn nfproto(family: &str) -> &'static str {
    if family == "ip" { "ipv4" } else { "ipv6" }
}

/// One item, or nftables' way to write several.
pub(super) fn set(items: &[String]) -> String {
    match items {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}
