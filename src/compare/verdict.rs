//! From probes to a cell, and against the promise. No I/O.

use std::collections::BTreeSet;

use super::cases::Case;
use super::{Agreement, Cell, Probe, Property};
use crate::mode::Dhcp;
use crate::probe::Verdict;

/// What the probes of a direction show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All were answered.
    Pass,
    /// None was, although all could have been.
    Block,
    /// None was at the guest's own address, all were through a forward.
    Forward,
    /// Some were; the odd ones in words.
    Mixed(String),
    /// Nothing is proven, and why.
    Unknown(String),
}

impl Found {
    /// As a cell says it, with what there is to say about it; `words` are those for all and for none.
    fn says(self, [pass, block]: [&str; 2]) -> (String, Option<String>) {
        match self {
            Found::Pass => (pass.to_owned(), None),
            Found::Block => (block.to_owned(), None),
            Found::Forward => ("forward".to_owned(), None),
            Found::Mixed(why) => ("mixed".to_owned(), Some(why)),
            Found::Unknown(why) => ("unknown".to_owned(), Some(why)),
        }
    }
}

/// What the probes of a direction show, those at the target's own address and those through a forward.
#[must_use]
pub fn direction(probes: &[Probe]) -> Found {
    let (through, direct): (Vec<&Probe>, Vec<&Probe>) =
        probes.iter().partition(|probe| probe.through.is_some());
    match (all(&direct), all(&through)) {
        // A forward adds nothing to what passes anyway.
        (Found::Block, _) if through.is_empty() => Found::Block,
        (Found::Block, Found::Pass) => Found::Forward,
        (Found::Block, rest) => rest,
        (found, _) => found,
    }
}

/// What probes of one kind show together.
fn all(probes: &[&Probe]) -> Found {
    if probes.is_empty() {
        return Found::Unknown("nothing was asked".to_owned());
    }
    for probe in probes {
        let doubt = match probe.verdict {
            Verdict::Inconclusive => Some(probe.detail.clone()),
            // Silence alone proves nothing.
            Verdict::Blocked if probe.control.is_none() => Some(format!("{}, and no control", probe.detail)),
            _ => None,
        };
        if let Some(doubt) = doubt {
            return Found::Unknown(format!("{}: {doubt}", title(probe)));
        }
    }
    let (reached, blocked): (Vec<&Probe>, Vec<&Probe>) =
        probes.iter().partition(|probe| probe.verdict == Verdict::Reachable);
    match (reached.is_empty(), blocked.is_empty()) {
        (_, true) => Found::Pass,
        (true, _) => Found::Block,
        _ => {
            // The fewer are the odd ones.
            let odd = if reached.len() <= blocked.len() { reached } else { blocked };
            let list: Vec<String> =
                odd.iter().map(|probe| format!("{} ({})", title(probe), probe.detail)).collect();
            Found::Mixed(format!("{} of {}: {}", odd.len(), probes.len(), list.join(", ")))
        }
    }
}

/// `a -> lan tcp/80 at 192.0.2.20`.
#[must_use]
pub fn title(probe: &Probe) -> String {
    let address = probe.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let through = match probe.through.as_deref() {
        Some("forward") => " through the forward",
        Some("loopback") => " through the gateway",
        _ => "",
    };
    format!("{} -> {} {}{address}{through}", probe.from, probe.to, probe.service)
}

/// Who handed out addresses: the answered probes' `to`.
fn who(probes: &[Probe]) -> (String, Option<String>) {
    let servers: BTreeSet<&str> =
        probes.iter().filter(|p| p.verdict == Verdict::Reachable).map(|p| p.to.as_str()).collect();
    let found = all(&probes.iter().collect::<Vec<_>>());
    match (found, servers.into_iter().collect::<Vec<_>>().as_slice()) {
        (Found::Pass, [one]) => ((*one).to_owned(), None),
        (Found::Pass, many) => ("mixed".to_owned(), Some(format!("leases from {}", many.join(" and ")))),
        (found, _) => found.says(["server", "none"]),
    }
}

/// The cell of a property. `optional` is who hands out addresses where the contract leaves it to the file.
#[must_use]
pub fn cell(case: &Case, property: Property, optional: &str, probes: Vec<Probe>) -> Cell {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let (promised, wanted, inferred) = match property.direction() {
        Some(direction) => {
            let promise = case.promise(direction).to_string();
            (promise.clone(), promise, case.inferred(direction))
        }
        None if property == Property::Dhcp => {
            let (promised, wanted) = match case.contract.dhcp {
                Dhcp::Server => ("server", "server"),
                Dhcp::Lan => ("lan", "lan"),
                Dhcp::None => ("none", "none"),
                Dhcp::Optional => ("optional", optional),
            };
            (promised.to_owned(), wanted.to_owned(), case.contract.inferred_dhcp)
        }
        None if property == Property::HostAddress => {
            let word = yes(case.host_address()).to_owned();
            (word.clone(), word, false)
        }
        None => ("yes".to_owned(), "yes".to_owned(), false),
    };
    let (measured, why) = match property {
        Property::Dhcp => who(&probes),
        Property::HostAddress | Property::Loopback => {
            all(&probes.iter().collect::<Vec<_>>()).says(["yes", "no"])
        }
        _ => direction(&probes).says(["pass", "block"]),
    };
    let agreement = match measured.as_str() {
        "unknown" => Agreement::Unknown,
        measured if measured == wanted => Agreement::Equal,
        _ => Agreement::Differs,
    };
    Cell { property, promised, inferred, measured, agreement, why, probes }
}
