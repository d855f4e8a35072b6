//! Every construct as a measured contract: each is built in a sandbox of its own and asked who reaches whom; what comes
//! out is set against what its system promises.
//!
//! [`cases`] says what is built, [`measure`] asks inside one lab's sandbox, [`verdict`] makes cells of the answers, and
//! [`run`] does this for many at once. [`speed`] is what a construct costs, and `kinds` sets namespaces beside VMs.

pub mod against;
pub mod cases;
mod ground;
mod kinds;
mod link;
pub mod measure;
mod plan;
pub mod run;
pub mod speed;
pub mod verdict;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::mode::Direction;
use crate::probe::Verdict;

/// What is measured of a construct: a column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Property {
    /// Guest to host.
    G2h,
    /// Host to guest.
    H2g,
    /// Guest to guest on the same network.
    G2g,
    /// Guest to the LAN and beyond.
    G2l,
    /// The LAN and beyond to guest.
    L2g,
    /// Who hands out addresses.
    Dhcp,
    /// Whether the host holds an address that guests find on the network.
    HostAddress,
    /// Whether the gateway's address leads to what listens on the host's loopback alone.
    Loopback,
}

impl Property {
    /// All, in the order of the matrix.
    pub const ALL: [Property; 8] = [
        Property::G2h,
        Property::H2g,
        Property::G2g,
        Property::G2l,
        Property::L2g,
        Property::Dhcp,
        Property::HostAddress,
        Property::Loopback,
    ];

    /// The head of its column.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self.direction() {
            Some(direction) => direction.words(),
            None => match self {
                Property::Dhcp => "DHCP",
                Property::HostAddress => "host address",
                _ => "loopback",
            },
        }
    }

    /// The direction, of the five that are one.
    #[must_use]
    pub fn direction(self) -> Option<Direction> {
        Some(match self {
            Property::G2h => Direction::G2h,
            Property::H2g => Direction::H2g,
            Property::G2g => Direction::G2g,
            Property::G2l => Direction::G2l,
            Property::L2g => Direction::L2g,
            Property::Dhcp | Property::HostAddress | Property::Loopback => return None,
        })
    }
}

impl From<Direction> for Property {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::G2h => Property::G2h,
            Direction::H2g => Property::H2g,
            Direction::G2g => Property::G2g,
            Direction::G2l => Property::G2l,
            Direction::L2g => Property::L2g,
        }
    }
}

/// One question with its answer. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Where it started.
    pub from: String,
    /// Where it went: who was to answer.
    pub to: String,
    /// What was asked: `icmp`, `tcp/80`, `dhcp`, `neighbour`.
    pub service: String,
    /// Through what, when not at the target's own address: `forward` or `loopback`.
    pub through: Option<String>,
    /// 4 or 6.
    pub family: Option<u8>,
    /// Address that was asked.
    pub address: Option<IpAddr>,
    /// What came out.
    pub verdict: Verdict,
    /// What happened, for people.
    pub detail: String,
    /// For a probe that was not answered: what shows that it could have been.
    pub control: Option<String>,
    /// Time from probe to answer in microseconds.
    pub rtt_us: Option<u64>,
}

/// What was measured, against what is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    /// The same.
    Equal,
    /// Something else.
    Differs,
    /// Nothing is proven.
    Unknown,
}

/// One cell of the matrix. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its column.
    pub property: Property,
    /// What is promised: `pass`, `block`, `forward`; `server`, `lan`, `none`, `optional`; `yes`, `no`.
    pub promised: String,
    /// Whether the promise is netloom's reading, since nobody documents it.
    pub inferred: bool,
    /// What was measured: as promised, or `mixed`, or `unknown`.
    pub measured: String,
    /// Whether both are the same.
    pub agreement: Agreement,
    /// What there is to say about it: the odd ones of a mixed cell, or why nothing is known.
    pub why: Option<String>,
    /// What it is made from.
    pub probes: Vec<Probe>,
}

/// How far a row came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "reason")]
pub enum Outcome {
    /// It was built and measured.
    Measured,
    /// This host or its kernel lacks what it needs.
    Lacking(String),
    /// It could not be built or measured.
    Failed(String),
}

/// One construct in one state. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The construct: `vmware/nat`.
    pub construct: String,
    /// Its other name; empty when it has none.
    pub alias: String,
    /// Which side of what depends, in words.
    pub state: Option<String>,
    /// What its guests were: `namespace` or `vm`.
    #[serde(default)]
    pub guests: String,
    /// What else there is to say of it.
    pub note: String,
    /// Where its promise is documented.
    pub source: String,
    /// What a first look saw that was not as promised, when these cells are a second one's, with more patience and with
    /// nothing else at work.
    #[serde(default)]
    pub first_look: Option<String>,
    /// How far it came.
    pub outcome: Outcome,
    /// Cells in the order of [`Property::ALL`]; empty when nothing was measured.
    pub cells: Vec<Cell>,
    /// What it costs, of each pair that the contract lets through; empty unless speed was asked for.
    #[serde(default)]
    pub speed: Vec<speed::Speed>,
    /// Seconds from its start to its end, building and removing included.
    pub seconds: f64,
}

impl Row {
    /// Name of its system: `vmware`.
    #[must_use]
    pub fn system(&self) -> &str {
        self.construct.split('/').next().unwrap_or_default()
    }

    /// `proxmox/sdn-simple · with SNAT`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.state {
            Some(state) => format!("{} · {state}", self.construct),
            None => self.construct.clone(),
        }
    }

    /// The cell of a column.
    #[must_use]
    pub fn cell(&self, property: Property) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.property == property)
    }
}

/// A whole comparison. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What guests were: `namespace`, `vm`, or both with a comma.
    pub guests: String,
    /// One for each kind of guests, construct and state.
    pub rows: Vec<Row>,
    /// Seconds for everything.
    pub seconds: f64,
}

/// A comparison in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Constructs.
    pub constructs: usize,
    /// Rows.
    pub rows: usize,
    /// Cells that were looked at.
    pub cells: usize,
    /// Cells that differ from their promise.
    pub differ: usize,
    /// Cells of which nothing is proven.
    pub unknown: usize,
    /// Rows that could not be built or measured.
    pub failed: usize,
    /// Rows that this host cannot build.
    pub lacking: usize,
    /// Probes.
    pub probes: usize,
}

impl Comparison {
    /// Counts it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let cells = || self.rows.iter().flat_map(|row| &row.cells);
        let agreeing = |wanted| cells().filter(|cell| cell.agreement == wanted).count();
        let outcomes = |is: fn(&Outcome) -> bool| self.rows.iter().filter(|row| is(&row.outcome)).count();
        let mut constructs: Vec<&str> = self.rows.iter().map(|row| row.construct.as_str()).collect();
        constructs.sort_unstable();
        constructs.dedup();
        Counts {
            constructs: constructs.len(),
            rows: self.rows.len(),
            cells: cells().count(),
            differ: agreeing(Agreement::Differs),
            unknown: agreeing(Agreement::Unknown),
            failed: outcomes(|outcome| matches!(outcome, Outcome::Failed(_))),
            lacking: outcomes(|outcome| matches!(outcome, Outcome::Lacking(_))),
            probes: cells().map(|cell| cell.probes.len()).sum(),
        }
    }

    /// The exit code that says it: 1 when anything differs or was not measured, 3 when all that is missing is something
    /// that this host lacks.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        use crate::error::Kind;
        let counts = self.counts();
        match (counts.differ + counts.unknown + counts.failed, counts.lacking) {
            (0, 0) => 0,
            (0, _) => Kind::Host.exit_code(),
            _ => Kind::No.exit_code(),
        }
    }
}
