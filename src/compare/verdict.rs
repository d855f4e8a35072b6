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

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;

    fn probe(verdict: Verdict) -> Probe {
        Probe {
            from: "a".into(),
            to: "b".into(),
            service: "tcp/80".into(),
            through: None,
            family: Some(4),
            address: Some([10, 0, 0, 2].into()),
            verdict,
            detail: "as it was".into(),
            control: (verdict == Verdict::Blocked).then(|| "b itself answers".into()),
            rtt_us: None,
        }
    }

    fn through(verdict: Verdict) -> Probe {
        Probe { through: Some("forward".into()), ..probe(verdict) }
    }

    const YES: Verdict = Verdict::Reachable;
    const NO: Verdict = Verdict::Blocked;
    const DOUBT: Verdict = Verdict::Inconclusive;

    fn found(direct: &[Verdict], forwarded: &[Verdict]) -> &'static str {
        let probes: Vec<Probe> =
            direct.iter().map(|v| probe(*v)).chain(forwarded.iter().map(|v| through(*v))).collect();
        match direction(&probes) {
            Found::Pass => "pass",
            Found::Block => "block",
            Found::Forward => "forward",
            Found::Mixed(_) => "mixed",
            Found::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn a_direction_is_what_all_its_probes_say() {
        let table: [(&[Verdict], &[Verdict], &str); 14] = [
            (&[YES, YES], &[], "pass"),
            (&[NO, NO], &[], "block"),
            (&[YES, NO], &[], "mixed"),
            (&[], &[], "unknown"),
            (&[YES, DOUBT], &[], "unknown"),
            (&[NO, DOUBT], &[], "unknown"),
            (&[DOUBT], &[], "unknown"),
            (&[NO, NO], &[YES, YES], "forward"),
            (&[NO, NO], &[NO, NO], "block"),
            (&[NO, NO], &[YES, NO], "mixed"),
            (&[NO, NO], &[YES, DOUBT], "unknown"),
            (&[YES, YES], &[YES], "pass"),
            (&[YES, NO], &[YES], "mixed"),
            (&[], &[YES], "unknown"),
        ];
        for (direct, forwarded, expected) in table {
            assert_eq!(found(direct, forwarded), expected, "{direct:?} {forwarded:?}");
        }
    }

    #[test]
    fn silence_without_a_control_blocks_nothing() {
        let unproven = Probe { control: None, ..probe(NO) };
        let Found::Unknown(why) = direction(&[probe(NO), unproven.clone()]) else { panic!("not unknown") };
        assert!(why.contains("no control") && why.starts_with("a -> b tcp/80 at 10.0.0.2"), "{why}");
        assert!(matches!(direction(&[probe(NO), Probe { control: None, ..through(NO) }]), Found::Unknown(_)));
        let case = case("virtualbox/internal");
        for property in [Property::G2h, Property::Dhcp, Property::HostAddress] {
            let cell = cell(&case, property, "none", vec![unproven.clone()]);
            assert_eq!(
                (cell.measured.as_str(), cell.agreement),
                ("unknown", Agreement::Unknown),
                "{property:?}"
            );
        }
    }

    #[test]
    fn the_odd_ones_are_named() {
        let odd = Probe { from: "b".into(), detail: "timed out".into(), ..probe(NO) };
        let Found::Mixed(why) = direction(&[probe(YES), odd, probe(YES)]) else { panic!("not mixed") };
        assert_eq!(why, "1 of 3: b -> b tcp/80 at 10.0.0.2 (timed out)");
    }

    fn case(id: &str) -> Case {
        cases::all().find(|case| case.mode.id == id).unwrap()
    }

    fn leases(servers: &[&str]) -> Vec<Probe> {
        servers
            .iter()
            .map(|server| Probe { to: (*server).into(), ..probe(if *server == "none" { NO } else { YES }) })
            .collect()
    }

    #[test]
    fn a_cell_is_set_against_its_promise() {
        let nat = case("virtualbox/nat");
        let cell_of = |property, probes| {
            let cell = cell(&nat, property, "none", probes);
            (cell.promised, cell.measured, cell.agreement)
        };
        let words = |promised: &str, measured: &str, agreement| (promised.into(), measured.into(), agreement);
        use Agreement::{Differs, Equal, Unknown};
        assert_eq!(cell_of(Property::G2h, vec![probe(YES)]), words("pass", "pass", Equal));
        assert_eq!(cell_of(Property::G2h, vec![probe(NO)]), words("pass", "block", Differs));
        assert_eq!(cell_of(Property::G2h, vec![probe(DOUBT)]), words("pass", "unknown", Unknown));
        assert_eq!(cell_of(Property::L2g, vec![probe(NO), through(YES)]), words("forward", "forward", Equal));
        assert_eq!(cell_of(Property::L2g, vec![probe(YES), through(YES)]), words("forward", "pass", Differs));
        assert_eq!(cell_of(Property::Dhcp, leases(&["server", "server"])), words("server", "server", Equal));
        assert_eq!(cell_of(Property::Dhcp, leases(&["server", "lan"])), words("server", "mixed", Differs));
        assert_eq!(cell_of(Property::Dhcp, leases(&["server", "none"])), words("server", "mixed", Differs));
        assert_eq!(cell_of(Property::Dhcp, leases(&["none", "none"])), words("server", "none", Differs));
        assert_eq!(cell_of(Property::HostAddress, vec![probe(YES)]), words("no", "yes", Differs));
        assert_eq!(cell_of(Property::Loopback, vec![probe(YES)]), words("yes", "yes", Equal));
    }

    #[test]
    fn what_is_left_to_the_file_is_as_the_file_has_it() {
        let network = case("virtualbox/nat-network");
        for (optional, agreement) in [("server", Agreement::Equal), ("none", Agreement::Differs)] {
            let cell = cell(&network, Property::Dhcp, optional, leases(&["server"]));
            assert_eq!((cell.promised.as_str(), cell.agreement), ("optional", agreement));
        }
    }

    #[test]
    fn readings_of_netloom_are_marked() {
        assert!(cell(&case("vmware/nat"), Property::G2g, "none", vec![probe(YES)]).inferred);
        assert!(!cell(&case("vmware/nat"), Property::G2h, "none", vec![probe(YES)]).inferred);
        assert!(cell(&case("hyper-v/internal"), Property::Dhcp, "none", leases(&["none"])).inferred);
    }
}
