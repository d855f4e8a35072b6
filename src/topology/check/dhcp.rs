//! DHCP ranges: of networks and of firewalls' zones.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::{address, number, usable};
use super::networks::{DhcpWish, Nets};
use super::segments::{Dhcp, Segment, Segments};
use crate::diagnostic::{Sink, Span};
use crate::mode;
use crate::spec::decode::At;
use crate::topology::AddressRange;

/// Notes which networks serve DHCP, before the firewalls are read.
pub(super) fn announce(nets: &Nets, segments: &mut Segments, sink: &mut Sink) {
    for (name, net) in &nets.by_name {
        let has_ipv4 = net.network.subnets.iter().any(IpNetwork::is_ipv4);
        if matches!(net.dhcp, DhcpWish::No) || !has_ipv4 {
            continue;
        }
        let Some(segment) = segments.find(name, None).and_then(|id| segments.all.get_mut(id)) else {
            continue;
        };
        let dhcp =
            Dhcp { server: format!("network `{name}`"), routes: !segment.exits.is_empty(), range: None };
        claim(segment, dhcp, net.span, "set `dhcp: false` on one of the linked networks", sink);
    }
}

/// Makes someone the DHCP server of a segment, unless there is one.
pub(super) fn claim(segment: &mut Segment, dhcp: Dhcp, span: Span, hint: &str, sink: &mut Sink) -> bool {
    if let Some(first) = &segment.dhcp {
        let message =
            format!("{} and {} would both serve DHCP in {}", first.server, dhcp.server, segment.label);
        sink.hinted(span, message, hint);
        return false;
    }
    segment.dhcp = Some(dhcp);
    true
}

/// Gives every network that serves DHCP its range, when all static addresses are known.
pub(super) fn ranges(nets: &mut Nets, segments: &mut Segments, sink: &mut Sink) {
    for (name, net) in &mut nets.by_name {
        let Some(subnet) = net.network.subnets.iter().find(|subnet| subnet.is_ipv4()).copied() else {
            continue;
        };
        let Some(segment) = segments.find(name, None).and_then(|id| segments.all.get_mut(id)) else {
            continue;
        };
        let range = match net.dhcp {
            DhcpWish::No => continue,
            _ if net.loose => continue,
            DhcpWish::Range(range) => {
                fits(&range, &subnet, segment, sink);
                range.value
            }
            DhcpWish::Chosen => {
                let usual = mode::by_id(&net.network.mode).and_then(|mode| mode.defaults.range);
                let Some(range) = choose(&subnet, usual, segment) else {
                    let message = format!("network `{name}` has no address left for DHCP in `{subnet}`");
                    sink.hinted(net.span, message, "take a larger subnet, or set `dhcp: false`");
                    continue;
                };
                range
            }
        };
        net.network.dhcp = Some(range);
        if let Some(dhcp) = &mut segment.dhcp {
            dhcp.range = Some(range);
        }
    }
}

/// Checks a range against its subnet and the static addresses there.
pub(super) fn fits(range: &At<AddressRange>, subnet: &IpNetwork, segment: &Segment, sink: &mut Sink) {
    let AddressRange { first, last } = range.value;
    let (low, high) = usable(subnet);
    let shown = |from: u128, to: u128| format!("{}-{}", address(from, first), address(to, first));
    if !subnet.contains(first) || !subnet.contains(last) {
        let message = format!("the DHCP range `{first}-{last}` is not in the subnet `{subnet}`");
        let hint =
            choose(subnet, None, segment).map(|range| format!("such as `{}-{}`", range.first, range.last));
        sink.maybe(range.span, message, hint);
        return;
    }
    if number(first) < low || number(last) > high {
        let message = format!(
            "the DHCP range `{first}-{last}` has the network or broadcast address of `{subnet}` in it"
        );
        sink.hinted(range.span, message, format!("at most `{}`", shown(low, high)));
        return;
    }
    let inside = |ip: &IpAddr| ip.is_ipv4() && (number(first)..=number(last)).contains(&number(*ip));
    let clash = segment.taken.iter().filter(|(ip, _)| inside(ip)).min_by_key(|(ip, _)| **ip);
    if let Some((ip, owner)) = clash {
        let message =
            format!("the DHCP range `{first}-{last}` has the address `{ip}` of {} in it", owner.shown());
        sink.hinted(range.span, message, "choose a range without it, or another address");
    }
}

/// The longest run without static addresses: where the mode usually has it or in .100 to .199 of a /24, in the upper half of any other subnet, or where
/// that is full, anywhere.
fn choose(subnet: &IpNetwork, usual: Option<(u32, u32)>, segment: &Segment) -> Option<AddressRange> {
    let (low, high) = usable(subnet);
    let base = number(subnet.network());
    let preferred = match (subnet.prefix(), usual) {
        (24, Some((first, last))) => (base + u128::from(first), base + u128::from(last)),
        (24, None) => (base + 100, base + 199),
        _ => (low + (high - low).div_ceil(2), high),
    };
    let mut taken: Vec<u128> =
        segment.taken.keys().filter(|ip| subnet.contains(**ip)).map(|ip| number(*ip)).collect();
    taken.sort_unstable();
    let (first, last) = longest_run(preferred, &taken).or_else(|| longest_run((low, high), &taken))?;
    Some(AddressRange { first: address(first, subnet.ip()), last: address(last, subnet.ip()) })
}

/// The longest run of numbers between two bounds that are not in `taken` (sorted); the first of equals.
fn longest_run((low, high): (u128, u128), taken: &[u128]) -> Option<(u128, u128)> {
    let mut best: Option<(u128, u128)> = None;
    let mut start = low;
    let stops = taken.iter().copied().filter(|value| (low..=high).contains(value)).chain([high + 1]);
    for stop in stops {
        if stop > start && best.is_none_or(|(from, to)| stop - start > to - from + 1) {
            best = Some((start, stop - 1));
        }
        start = stop + 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_avoids_what_is_taken() {
        assert_eq!(longest_run((100, 199), &[]), Some((100, 199)));
        assert_eq!(longest_run((100, 199), &[120]), Some((121, 199)));
        assert_eq!(longest_run((100, 199), &[100, 199]), Some((101, 198)));
        assert_eq!(longest_run((5, 5), &[5]), None);
        assert_eq!(longest_run((5, 8), &[1, 6, 20]), Some((7, 8)));
    }
}
