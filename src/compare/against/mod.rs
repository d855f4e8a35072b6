//! The real thing: libvirt's own networks and Incus's, made by libvirt and Incus in a sandbox, measured by the probes that
//! measure netloom's `libvirt/*` and `incus/*`, and set beside them cell for cell.
//!
//! [`things`] says what they make for each construct and where it is known to differ; [`network_xml`] tells libvirt so, and
//! [`daemon`] is its daemon in the sandbox; [`incus`] does both for Incus; [`lab`] is the guests on the network, and [`run`]
//! does all of it.

pub mod daemon;
pub mod incus;
pub mod lab;
pub mod network_xml;
pub mod run;
pub mod system;
pub mod things;

use serde::Serialize;

use super::{Outcome, Property, Row};
use crate::error::Kind;
use things::Thing;

/// How a cell of netloom's and one of the real thing's go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Likeness {
    /// They show the same.
    Equal,
    /// They show different things, for a reason that is known.
    Explained,
    /// They show different things.
    Differs,
    /// Nothing is proven of one of them.
    Unknown,
}

/// One cell of both. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Twin {
    /// The column.
    pub property: Property,
    /// What netloom's shows.
    pub ours: String,
    /// What the real one shows.
    pub theirs: String,
    /// Whether that is the same.
    pub likeness: Likeness,
    /// Why it is not, or what there is to say of either.
    pub why: Option<String>,
}

/// One construct in one state, netloom's and the real one. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// What the real one is called: `libvirt`, `slirp`, `incus`.
    pub thing: String,
    /// What the real one's guests are: `namespace` or `vm`.
    pub guests: String,
    /// netloom's.
    pub ours: Row,
    /// The real one.
    pub theirs: Row,
    /// Both, cell for cell; empty when one of them was not measured.
    pub twins: Vec<Twin>,
}

/// The whole of it. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// The system.
    pub system: String,
    /// Its version.
    pub version: String,
    /// One for each construct, state and real thing.
    pub pairs: Vec<Pair>,
    /// Constructs that were asked for and have no real thing here.
    pub without: Vec<String>,
    /// Seconds for everything.
    pub seconds: f64,
}

/// The same in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Pairs.
    pub pairs: usize,
    /// Cells that were measured of both.
    pub compared: usize,
    /// Cells that are the same.
    pub equal: usize,
    /// Cells that differ for a known reason.
    pub explained: usize,
    /// Cells that differ.
    pub differ: usize,
    /// Cells of which nothing is proven.
    pub unknown: usize,
    /// Pairs of which one could not be built or measured.
    pub failed: usize,
    /// Pairs of which this host cannot build one.
    pub lacking: usize,
}

impl Pair {
    /// Sets the two rows beside each other.
    #[must_use]
    pub fn new(thing: &Thing, guests: &str, ours: Row, theirs: Row) -> Self {
        let twins = ours.cells.iter().filter_map(|cell| {
            let other = theirs.cell(cell.property)?;
            let known = thing.explains(cell.property, &other.measured, &other.probes);
            let likeness = match (cell.measured == other.measured, known) {
                _ if [cell, other].iter().any(|cell| cell.measured == "unknown") => Likeness::Unknown,
                // Two cells that are mixed need not be mixed of the same.
                (true, _) if cell.measured != "mixed" => Likeness::Equal,
                (_, Some(_)) => Likeness::Explained,
                _ => Likeness::Differs,
            };
            let said = [("netloom", cell), (thing.name, other)]
                .into_iter()
                .filter_map(|(who, cell)| cell.why.as_ref().map(|why| format!("{who}: {why}")))
                .collect::<Vec<_>>();
            let why = match (likeness, known) {
                (Likeness::Equal, _) => None,
                (Likeness::Explained, Some(known)) => Some(known.to_owned()),
                _ => Some(said.join("; ")).filter(|said| !said.is_empty()),
            };
            let (ours, theirs) = (cell.measured.clone(), other.measured.clone());
            Some(Twin { property: cell.property, ours, theirs, likeness, why })
        });
        let twins = twins.collect();
        Self { thing: thing.name.to_owned(), guests: guests.to_owned(), ours, theirs, twins }
    }

    /// The row that was not measured, if one was not, and whose it is.
    #[must_use]
    pub fn unmeasured(&self) -> Option<(&'static str, &Outcome)> {
        let rows = [("the real one", &self.theirs), ("netloom's", &self.ours)];
        rows.into_iter()
            .find(|(_, row)| row.outcome != Outcome::Measured)
            .map(|(whose, row)| (whose, &row.outcome))
    }
}

impl Against {
    /// Counts it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let like = |wanted| {
            let twins = self.pairs.iter().flat_map(|pair| &pair.twins);
            twins.filter(|twin| twin.likeness == wanted).count()
        };
        let unmeasured = |is: fn(&Outcome) -> bool| {
            self.pairs.iter().filter_map(Pair::unmeasured).filter(|(_, outcome)| is(outcome)).count()
        };
        Counts {
            pairs: self.pairs.len(),
            compared: self.pairs.iter().map(|pair| pair.twins.len()).sum(),
            equal: like(Likeness::Equal),
            explained: like(Likeness::Explained),
            differ: like(Likeness::Differs),
            unknown: like(Likeness::Unknown),
            failed: unmeasured(|outcome| matches!(outcome, Outcome::Failed(_))),
            lacking: unmeasured(|outcome| matches!(outcome, Outcome::Lacking(_))),
        }
    }

    /// The exit code that says it: 1 when a cell differs without a known reason or a row was not measured, 3 when all
    /// that is missing is something that this host lacks.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let counts = self.counts();
        match (counts.differ + counts.unknown + counts.failed, counts.lacking) {
            (0, 0) => 0,
            (0, _) => Kind::Host.exit_code(),
            _ => Kind::No.exit_code(),
        }
    }
}
