//! Builds netloom's and the real one of every construct, each in a sandbox of its own, and has both measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;

use super::system::{System, is_installed};
use super::things::{self, Backend, Make, Thing};
use super::{Against, Likeness, Pair, Twin};
use crate::compare::cases::Case;
use crate::compare::ground::Ground;
use crate::compare::run::{Crew, Job, Options, guests_word};
use crate::compare::{Outcome, Row};
use crate::error::{Error, Kind, Result};
use crate::host::lab::Say;
use crate::topology::GuestKind;

/// Hidden verb: `netloom __against up THING KIND STATE FILE` builds the lab of a real thing in a sandbox of its own,
/// `netloom __against measure THING KIND STATE LAB` measures it. KIND is what its guests are.
pub const VERB: &str = "__against";

/// What a real thing's guests are.
#[must_use]
pub fn kind_of(thing: &Thing, wanted: GuestKind) -> GuestKind {
    if thing.for_domains { GuestKind::Vm } else { wanted }
}

/// Compares these cases with the real things of a system; those that have none are left out and named.
///
/// # Errors
/// Exit 2 when none of them has any, exit 3 when the system cannot run here, exit 130 when interrupted.
pub async fn run(
    system: System,
    cases: &[Case],
    options: Options,
    say: &Say,
    interrupt: &watch::Receiver<bool>,
) -> Result<Against> {
    let began = Instant::now();
    let (with, without): (Vec<Case>, Vec<Case>) =
        cases.iter().partition(|case| things::of_system(system, case.mode.id).next().is_some());
    if with.is_empty() {
        let name = system.name();
        return Err(Error::input(format!(
            "none of these constructs is one of {name}'s that can be made here"
        ))
        .hint(format!("`netloom compare --against {name}` compares all of those that are")));
    }
    system.is_possible()?;
    let things = |case: &Case| {
        let case = *case;
        things::of_system(system, case.mode.id).map(move |thing| (case, thing))
    };
    let pairs: Vec<(Case, &'static Thing)> = with.iter().flat_map(things).collect();
    if system == System::Incus && options.guests == GuestKind::Vm {
        return Err(Error::input("Incus's network gets namespaces as guests, as its containers are")
            .hint("leave `--guests vm` out"));
    }
    let vms = pairs.iter().any(|(_, thing)| kind_of(thing, options.guests) == GuestKind::Vm);
    let ground = Ground::new(if vms { GuestKind::Vm } else { options.guests }, say)?;

    // One after the other: VMs under emulation leave no time for anybody else.
    say("netloom's own");
    let ours = Crew::new(&ground, options, interrupt)?.rows(&with, say).await;
    let ours: BTreeMap<String, Row> = with.iter().map(Case::lab).zip(ours).collect();
    let mut theirs: BTreeMap<String, Row> = BTreeMap::new();
    for kind in [GuestKind::Namespace, GuestKind::Vm] {
        let crew =
            Crew::new(&ground, Options { guests: kind, jobs: jobs(kind, options), speed: false }, interrupt)?;
        let wanted = pairs.iter().filter(|(_, thing)| kind_of(thing, options.guests) == kind);
        let one = |(case, thing): &(Case, &'static Thing)| {
            let (case, thing) = (*case, *thing);
            let (crew, ours) = (&crew, ours.get(&case.lab()));
            async move {
                let mut row = real(crew, &case, thing, kind, say).await;
                // VMs under emulation can miss a probe, or not come up in time. What differs twice, differs.
                if !*interrupt.borrow() && !settled(thing, ours, &row) {
                    say(&format!("{}: once more", thing.lab(&case)));
                    row = real(crew, &case, thing, kind, say).await;
                }
                (thing.lab(&case), row)
            }
        };
        let rows: Vec<(String, Row)> = wanted.map(one).collect::<FuturesOrdered<_>>().collect().await;
        theirs.extend(rows);
    }
    if *interrupt.borrow() {
        return Err(Error::new(Kind::Interrupted, "interrupted"));
    }
    let pairs = pairs.iter().map(|(case, thing)| {
        let row =
            |rows: &BTreeMap<String, Row>, lab: &str| rows.get(lab).cloned().unwrap_or_else(|| case.row());
        let guests = guests_word(kind_of(thing, options.guests));
        Pair::new(thing, guests, row(&ours, &case.lab()), row(&theirs, &thing.lab(case)))
    });
    let mut without: Vec<String> = without.iter().map(|case| case.mode.id.to_owned()).collect();
    without.dedup();
    Ok(Against {
        system: system.name().to_owned(),
        version: system.version(),
        pairs: pairs.collect(),
        without,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Labs under way at a time: each has two guests.
fn jobs(kind: GuestKind, options: Options) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if kind == GuestKind::Vm { options.jobs.min(processors.div_ceil(2)) } else { options.jobs }
}

/// Whether there is nothing to measure once more.
fn settled(thing: &Thing, ours: Option<&Row>, theirs: &Row) -> bool {
    let Some(ours) = ours else { return true };
    let pair = Pair::new(thing, "", ours.clone(), theirs.clone());
    let like = |twin: &Twin| matches!(twin.likeness, Likeness::Equal | Likeness::Explained);
    !matches!(theirs.outcome, Outcome::Failed(_)) && pair.twins.iter().all(like)
}

async fn real(crew: &Crew<'_>, case: &Case, thing: &Thing, kind: GuestKind, say: &Say) -> Row {
    if thing.make == Make::User(Backend::Passt) && !is_installed("passt") {
        let why = "passt is not installed (Debian, Ubuntu, Fedora: package passt)".to_owned();
        return Row { outcome: Outcome::Lacking(why), ..case.row() };
    }
    let lab = thing.lab(case);
    let index = case.index.to_string();
    let words = |verb: &str| -> Vec<String> {
        [VERB, verb, thing.construct, thing.name, guests_word(kind), &index].map(str::to_owned).into()
    };
    let mut measure = words("measure");
    measure.push(lab.clone());
    let job = Job { case: *case, text: thing.file(case), up: words("up"), measure, lab, ours: false };
    let (say, who) = (Arc::clone(say), thing.name);
    let aside: Say = Arc::new(move |line: &str| say(&format!("{who} itself: {line}")));
    crew.row(job, &aside).await
}
