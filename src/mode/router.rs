//! The ruleset of a network's own router: a network namespace with a leg `inside` on the network and one `outside`.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Egress, Wiring};
use crate::firewall::TABLE;
use crate::topology::{Forward, Protocol};

/// Kernel name of the router's leg on the network.
pub const INSIDE: &str = "inside";
/// Kernel name of its other leg.
pub const OUTSIDE: &str = "outside";

/// A router as its ruleset sees it.
#[derive(Debug, Clone)]
pub struct Router<'a> {
    /// Network, for comments.
    pub network: &'a str,
    /// Lab, for comments.
    pub lab: &'a str,
    /// What the network's mode expands to.
    pub wiring: Wiring,
    /// The network's subnets.
    pub subnets: &'a [IpNetwork],
    /// Port forwards.
    pub forwards: &'a [Forward],
    /// Where the gateway's IPv4 address leads for TCP and UDP, other than DNS and DHCP: gateway, and the host's end.
    pub loopback: Option<(IpNetwork, IpNetwork)>,
}

/// The script for `nft -f` that replaces the router's table in one transaction.
#[must_use]
pub fn router_ruleset(router: &Router<'_>) -> String {
    let Router { network, lab, .. } = router;
    let mut out = format!(
        "# Router of network {network} in lab {lab}, made by netloom.\n\
         add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
    );
    out.push_str(&input(router));
    out.push_str(&forward(router));
    let arriving: String =
        router.forwards.iter().map(|f| dnat(f, &format!("iifname \"{OUTSIDE}\""), &[])).collect();
    let loopback = router.loopback.map(|(gateway, host)| {
        format!(
            "\t\tiifname \"{INSIDE}\" ip daddr {} meta l4proto {{ tcp, udp }} th dport != {{ 53, 67 }} dnat ip to {} \
             comment \"the gateway's address leads to the host's loopback\"\n",
            gateway.ip(),
            host.ip()
        )
    });
    let arriving = arriving + &loopback.unwrap_or_default();
    if !arriving.is_empty() {
        let _ = write!(
            out,
            "\tchain destination_nat {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n{arriving}\t}}\n"
        );
    }
    if router.wiring.egress == Egress::Masquerade {
        let _ = write!(
            out,
            "\tchain source_nat {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\toifname \"{OUTSIDE}\" masquerade comment \"behind the router's address\"\n\t}}\n"
        );
    }
    out.push_str("}\n");
    out
}

fn input(router: &Router<'_>) -> String {
    let mut out = String::from(
        "\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\
         \t\tiifname \"lo\" accept\n\
         \t\tct state vmap { established : accept, related : accept, invalid : drop }\n\
         \t\ticmp type echo-request accept comment \"the router answers ping\"\n\
         \t\ticmpv6 type { echo-request, nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, \
         mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept\n",
    );
    if router.wiring.dhcp {
        let _ = writeln!(out, "\t\tiifname \"{INSIDE}\" udp dport 67 accept comment \"DHCP\"");
    }
    if router.wiring.dns {
        let _ = writeln!(
            out,
            "\t\tiifname \"{INSIDE}\" meta l4proto {{ tcp, udp }} th dport 53 accept comment \"DNS\""
        );
    }
    out.push_str("\t}\n");
    out
}

fn forward(router: &Router<'_>) -> String {
    let mut out = String::from(
        "\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\
         \t\tct state vmap { established : accept, related : accept, invalid : drop }\n",
    );
    let mut rule = |text: String, comment: &str| {
        let _ = writeln!(out, "\t\t{text} accept comment \"{comment}\"");
    };
    let leaves = format!("iifname \"{INSIDE}\" oifname \"{OUTSIDE}\"");
    if router.wiring.egress != Egress::None {
        for subnet in router.subnets {
            let family = if subnet.is_ipv4() { "ip" } else { "ip6" };
            let source = format!("{family} saddr {}/{}", subnet.network(), subnet.prefix());
            rule(format!("{leaves} {source}"), "guests leave");
        }
    } else if router.loopback.is_some() {
        rule(format!("{leaves} ct status dnat"), "to the host's loopback");
    }
    let enters = format!("iifname \"{OUTSIDE}\" oifname \"{INSIDE}\"");
    if router.wiring.ingress {
        rule(enters, "connections come in");
    } else if !router.forwards.is_empty() {
        rule(format!("{enters} ct status dnat"), "only forwarded ports come in");
    }
    if !router.wiring.isolated {
        rule(format!("iifname \"{INSIDE}\" oifname \"{INSIDE}\""), "between guests");
    }
    out.push_str("\t}\n");
    out
}

/// Ports of DNS and DHCP, where a network's own servers listen.
const SERVED: [u16; 2] = [53, 67];

/// One rule that sends what arrives where `matches` says to a forward's target. A forward from every address of the host
/// leaves out those in `served`, if it would take the place of the servers there.
pub(super) fn dnat(forward: &Forward, matches: &str, served: &[IpAddr]) -> String {
    let Forward { protocol, ports: (first, last), address, target, port, .. } = forward;
    let protocol = match protocol {
        Protocol::Udp => "udp",
        Protocol::Tcp | Protocol::Icmp => "tcp",
    };
    let (nfproto, family, loopback) =
        if target.is_ipv4() { ("ipv4", "ip", "127.0.0.0/8") } else { ("ipv6", "ip6", "::1") };
    let on = match address {
        Some(address) => format!("{family} daddr {address}"),
        // What listens on the loopback itself stays reachable there.
        None => {
            let covers = SERVED.iter().any(|port| (*first..=*last).contains(port));
            let same = served.iter().filter(|ip| covers && ip.is_ipv4() == target.is_ipv4());
            let spared: Vec<String> =
                std::iter::once(loopback.to_owned()).chain(same.map(IpAddr::to_string)).collect();
            format!("{family} daddr != {} fib daddr type local", super::ruleset::set(&spared))
        }
    };
    let (ports, to) = if first == last {
        (first.to_string(), std::net::SocketAddr::new(*target, *port).to_string())
    } else {
        (format!("{first}-{last}"), target.to_string())
    };
    let matches = if matches.is_empty() { String::new() } else { format!("{matches} ") };
    format!(
        "\t\t{matches}meta nfproto {nfproto} {on} {protocol} dport {ports} dnat {family} to {to} comment \"port forward\"\n"
    )
}
