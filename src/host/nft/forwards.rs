//! The ports of this host that other labs forward.
//!
//! Read from the rules that are in force, and not from the other labs' directories: these may be elsewhere
//! (`NETLOOM_STATE_DIR`), be lost, or say what a lab was to be and is not. A rule's meaning is read rather than a comment
//! of ours, so that a table that an older or a newer netloom made is understood, too.

use std::net::IpAddr;

use serde_json::Value;

use super::{run, tables};
use crate::error::{Context, Result};
use crate::resource::{HostPort, Place, RulesetFamily, names};
use crate::topology::Protocol;

/// What every lab but this one forwards on the host, with the lab's name. A program is started for each lab that has a
/// table there.
///
/// # Errors
/// When `nft` is missing or the kernel does not tell.
pub fn of_others(lab: &str) -> Result<Vec<(String, HostPort)>> {
    let ours = names::table(lab);
    let mut out = Vec::new();
    for (family, table) in tables(&Place::Host)? {
        let Some(other) = names::read_table(&table) else { continue };
        if table == ours || family != RulesetFamily::Inet {
            continue;
        }
        let text = match run(&Place::Host, &["-j", "list", "table", family.word(), &table], None) {
            Ok(text) => text,
            Err(e) if super::is_absent(&e) => continue, // it went meanwhile
            Err(e) => return Err(e),
        };
        let listing = serde_json::from_str(&text).context(|| format!("cannot read table {table}"))?;
        out.extend(read(&listing).into_iter().map(|port| (other.clone(), port)));
    }
    Ok(out)
}

/// The forwarded ports in a table as `nft -j` lists it.
pub(crate) fn read(listing: &Value) -> Vec<HostPort> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let mut out = Vec::new();
    for port in objects.filter_map(|object| object["rule"]["expr"].as_array()).flat_map(|rule| forward(rule))
    {
        // What arrives and what the host itself sends have a rule each.
        if !out.contains(&port) {
            out.push(port);
        }
    }
    out
}

/// What a rule forwards: nothing, unless it changes the destination of some ports.
fn forward(rule: &[Value]) -> Vec<HostPort> {
    let Some(dnat) = rule.iter().find_map(|part| part.get("dnat")) else { return Vec::new() };
    let six = dnat["family"] == "ip6";
    let equal = || {
        let matches = rule.iter().filter_map(|part| part.get("match"));
        matches.filter(|part| part["op"] == "==").map(|part| (&part["left"]["payload"], &part["right"]))
    };
    let address = equal()
        .find(|(payload, _)| payload["field"] == "daddr")
        .and_then(|(_, right)| right.as_str()?.parse::<IpAddr>().ok());
    let ports = equal().filter(|(payload, _)| payload["field"] == "dport");
    let mut out = Vec::new();
    for (payload, right) in ports {
        let protocol = match payload["protocol"].as_str() {
            Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            _ => continue,
        };
        out.extend(ranges(right).into_iter().map(|ports| HostPort { protocol, six, address, ports }));
    }
    out
}

/// One port, a range of them, or a set of both.
fn ranges(right: &Value) -> Vec<(u16, u16)> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    if let Some(list) = right["set"].as_array() {
        return list.iter().flat_map(ranges).collect();
    }
    let (first, last) = match right.get("range") {
        Some(range) => (number(&range[0]), number(&range[1])),
        None => (number(right), number(right)),
    };
    first.zip(last).into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// From `nft -j list table`, of the rules that one forward of each sort becomes.
    const LISTING: &str = include_str!("forwards.json");

    #[test]
    fn what_the_kernel_lists_is_understood() {
        let found: Vec<String> =
            read(&serde_json::from_str(LISTING).unwrap()).iter().map(ToString::to_string).collect();
        let wanted = [
            "tcp/8080 on every IPv4 address",
            "udp/5000-5010 on 192.0.2.10",
            "tcp/81 on every IPv6 address",
            "udp/53 on every IPv4 address",
            "tcp/90 on every IPv4 address",
            "tcp/95-96 on every IPv4 address",
        ];
        assert_eq!(found, wanted);
    }
}
