//! What a construct costs: TCP throughput and round-trip time between the pairs that its contract lets through. Runs
//! inside a lab's sandbox, one pair at a time: whatever else is busy meanwhile falsifies the figures.

mod iperf;
mod rtt;
mod stage;

pub use stage::measure;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Row;
use super::cases::Case;
use crate::error::{Error, Result};
use crate::image;
use crate::mode::{Direction, Promise};

/// Hidden verb that measures it: `netloom __speed LAB [STATE]`, inside the lab's sandbox.
pub const VERB: &str = "__speed";

/// The port at which throughput is measured: iperf3's own.
pub const PORT: u16 = 5201;

/// The port that is forwarded to it where the mode has forwards. Another number: a host that forwards a port answers
/// nobody there itself.
pub const FORWARDED: u16 = 15201;

/// Programs of the host that it is measured with.
const PROGRAMS: [&str; 2] = ["iperf3", "ping"];

/// Two ends between which speed is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pair {
    /// The first guest to the second.
    G2g,
    /// The first guest to the host.
    G2h,
    /// The host to the first guest.
    H2g,
    /// The first guest to the LAN neighbour.
    G2l,
    /// The LAN neighbour to the first guest.
    L2g,
    /// The first guest to the host beyond the LAN's router.
    G2o,
}

impl Pair {
    /// All, in the order in which they are measured and shown.
    pub const ALL: [Pair; 6] = [Pair::G2g, Pair::G2h, Pair::H2g, Pair::G2l, Pair::L2g, Pair::G2o];

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Pair::G2g => "guest → guest",
            Pair::G2h => "guest → host",
            Pair::H2g => "host → guest",
            Pair::G2l => "guest → LAN",
            Pair::L2g => "LAN → guest",
            Pair::G2o => "guest → outside",
        }
    }

    /// What of the contract lets it through.
    #[must_use]
    pub fn direction(self) -> Direction {
        match self {
            Pair::G2g => Direction::G2g,
            Pair::G2h => Direction::G2h,
            Pair::H2g => Direction::H2g,
            Pair::G2l | Pair::G2o => Direction::G2l,
            Pair::L2g => Direction::L2g,
        }
    }
}

/// TCP throughput as the receiver saw it. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Bits of payload per second.
    pub bits_per_second: u64,
    /// Bytes of payload that arrived.
    pub bytes: u64,
    /// How long it was sent for, in seconds.
    pub seconds: f64,
    /// Segments that the sender repeated; `None` where its kernel does not say.
    pub retransmits: Option<u64>,
}

/// Round-trip times of an idle network, in microseconds. Field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtt {
    /// By what: `icmp` echo, or `tcp` connections that are refused, where a forward takes no ICMP.
    pub by: String,
    /// Probes that count; the one before them, which resolved the neighbour, does not.
    pub sent: u32,
    /// How many of them were answered.
    pub answered: u32,
    /// The shortest.
    pub min_us: u64,
    /// Half took at most this long.
    pub median_us: u64,
    /// 95 of 100 took at most this long (the nearest rank).
    pub p95_us: u64,
}

/// What was measured between two ends. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Which two.
    pub pair: Pair,
    /// Where it was sent from: a guest's name, `host`, `lan`.
    pub from: String,
    /// Where it went: a guest's name, `host`, `lan`, `outside`.
    pub to: String,
    /// `forward` where the contract leads in through a port forward alone.
    pub through: Option<String>,
    /// The address that was connected to.
    pub address: Option<IpAddr>,
    /// Throughput; `None` when it could not be measured.
    pub throughput: Option<Throughput>,
    /// Why there is no throughput.
    pub throughput_reason: Option<String>,
    /// Round-trip time; `None` when it could not be measured.
    pub rtt: Option<Rtt>,
    /// Why there is no round-trip time.
    pub rtt_reason: Option<String>,
}

impl Speed {
    /// A pair of which nothing is known, and why.
    fn without(pair: Pair, promise: Promise, why: &str) -> Self {
        let [guest, other] = crate::mode::example::GUESTS;
        let (from, to) = match pair {
            Pair::G2g => (guest, other),
            Pair::G2h => (guest, "host"),
            Pair::H2g => ("host", guest),
            Pair::G2l => (guest, "lan"),
            Pair::L2g => ("lan", guest),
            Pair::G2o => (guest, "outside"),
        };
        Self {
            pair,
            from: from.to_owned(),
            to: to.to_owned(),
            through: (promise == Promise::Forward).then(|| "forward".to_owned()),
            address: None,
            throughput: None,
            throughput_reason: Some(why.to_owned()),
            rtt: None,
            rtt_reason: Some(why.to_owned()),
        }
    }
}

/// Pairs that a contract lets through, with how it does.
#[must_use]
pub fn pairs(case: &Case) -> Vec<(Pair, Promise)> {
    let promised = Pair::ALL.into_iter().map(|pair| (pair, case.promise(pair.direction())));
    promised.filter(|(_, promise)| matches!(promise, Promise::Pass | Promise::Forward)).collect()
}

/// For a case that could not be measured at all: its pairs, each with the reason.
#[must_use]
pub fn unmeasured(case: &Case, why: &str) -> Vec<Speed> {
    pairs(case).into_iter().map(|(pair, promise)| Speed::without(pair, promise, why)).collect()
}

/// One line about a row whose speed was measured.
pub(super) fn progress(row: &Row) -> String {
    let all = row.speed.len();
    let have = row.speed.iter().filter(|speed| speed.throughput.is_some() && speed.rtt.is_some()).count();
    let pairs = if all == 1 { "1 pair".to_owned() } else { format!("{all} pairs") };
    let rest = if have < all { format!(", {} without a figure", all - have) } else { String::new() };
    format!("{}: speed of {pairs}{rest}", row.name())
}

/// Whether this host has what speed is measured with.
///
/// # Errors
/// Exit 3 when it has not.
pub fn check() -> Result<()> {
    for program in PROGRAMS {
        if image::find_in_path(program).is_none() {
            return Err(Error::host(format!("speed cannot be measured without `{program}`"))
                .hint("`netloom doctor` names the package that brings it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;

    fn of(construct: &str, state: usize) -> Vec<(Pair, Promise)> {
        pairs(&cases::find(construct, state).unwrap())
    }

    #[test]
    fn pairs_are_those_that_the_contract_lets_through() {
        use Pair::{G2g, G2h, G2l, G2o, H2g, L2g};
        use Promise::{Forward, Pass};
        assert_eq!(of("virtualbox/internal", 0), [(G2g, Pass)]);
        assert_eq!(of("virtualbox/host-only", 0), [(G2g, Pass), (G2h, Pass), (H2g, Pass)]);
        let nat = [(G2h, Pass), (H2g, Forward), (G2l, Pass), (L2g, Forward), (G2o, Pass)];
        assert_eq!(of("virtualbox/nat", 0), nat);
        assert_eq!(of("virtualbox/bridged", 0).len(), 6);
    }

    #[test]
    fn what_was_not_measured_has_its_reason_and_no_figure() {
        let all = unmeasured(&cases::find("virtualbox/nat", 0).unwrap(), "no socket");
        assert_eq!(all.len(), 5);
        for speed in &all {
            assert_eq!((&speed.throughput, &speed.rtt), (&None, &None));
            assert_eq!(speed.throughput_reason.as_deref(), Some("no socket"));
            assert_eq!(speed.through.is_some(), matches!(speed.pair, Pair::H2g | Pair::L2g));
        }
        let json = serde_json::to_value(&all[0]).unwrap();
        assert_eq!((&json["pair"], &json["throughput"]), (&"g2h".into(), &serde_json::Value::Null));
    }
}
