//! Builds netloom's and the real one of every construct, each in a sandbox of its own, and has both measured.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;

use super::things::{self, Backend, Make, Thing};
use super::{Against, Pair, daemon};
use crate::compare::cases::Case;
use crate::compare::run::{Crew, Ground, Job, Options, guests_word};
use crate::compare::{Outcome, Row};
use crate::error::{Error, Kind, Result};
use crate::host::lab::Say;
use crate::topology::GuestKind;

/// Hidden verb: `netloom __against up THING KIND STATE FILE` builds the lab of a real thing in a sandbox of its own,
/// `netloom __against measure THING KIND STATE LAB` measures it. KIND is what its guests are.
pub const VERB: &str = "__against";

/// The only system that can be compared with.
const SYSTEM: &str = "libvirt";

/// What a real thing's guests are.
#[must_use]
pub fn kind_of(thing: &Thing, wanted: GuestKind) -> GuestKind {
    if thing.for_domains { GuestKind::Vm } else { wanted }
}

/// Compares these cases with the real things; those that have none are left out and named.
///
/// # Errors
/// Exit 2 when none of them has any, exit 3 when libvirt cannot run here, exit 130 when interrupted.
pub async fn run(
    cases: &[Case],
    options: Options,
    say: &Say,
    interrupt: &watch::Receiver<bool>,
) -> Result<Against> {
    let began = Instant::now();
    let (with, without): (Vec<Case>, Vec<Case>) =
        cases.iter().partition(|case| things::of(case.mode.id).next().is_some());
    if with.is_empty() {
        return Err(Error::input("none of these constructs is one of libvirt's")
            .hint("`netloom compare --against libvirt` compares all of those that are"));
    }
    daemon::is_possible()?;
    let pairs: Vec<(Case, &Thing)> =
        with.iter().flat_map(|case| things::of(case.mode.id).map(move |thing| (*case, thing))).collect();
    let vms = pairs.iter().any(|(_, thing)| kind_of(thing, options.guests) == GuestKind::Vm);
    let ground = Ground::new(if vms { GuestKind::Vm } else { options.guests }, say)?;

    // One after the other: VMs under emulation leave no time for anybody else.
    say("netloom's own");
    let ours = Crew::new(&ground, options, interrupt)?.rows(&with, say).await;
    let ours: BTreeMap<String, Row> = with.iter().map(Case::lab).zip(ours).collect();
    let mut theirs: BTreeMap<String, Row> = BTreeMap::new();
    for kind in [GuestKind::Namespace, GuestKind::Vm] {
        let wanted = |thing: &Thing| kind_of(thing, options.guests) == kind;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = if kind == GuestKind::Vm { options.jobs.min(processors) } else { options.jobs };
        let crew = Crew::new(&ground, Options { guests: kind, jobs }, interrupt)?;
        let rows = pairs
            .iter()
            .filter(|(_, thing)| wanted(thing))
            .map(|(case, thing)| real(&crew, case, thing, kind, say));
        let rows: Vec<(String, Row)> = rows.collect::<FuturesOrdered<_>>().collect().await;
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
        system: SYSTEM.to_owned(),
        version: daemon::version(),
        pairs: pairs.collect(),
        without,
        seconds: began.elapsed().as_secs_f64(),
    })
}

async fn real(crew: &Crew<'_>, case: &Case, thing: &Thing, kind: GuestKind, say: &Say) -> (String, Row) {
    let lab = thing.lab(case);
    if thing.make == Make::User(Backend::Passt) && !daemon::is_installed("passt") {
        let why = "passt is not installed (Debian, Ubuntu, Fedora: package passt)".to_owned();
        return (lab, Row { outcome: Outcome::Lacking(why), ..case.row() });
    }
    let index = case.index.to_string();
    let words = |verb: &str| -> Vec<String> {
        [VERB, verb, thing.construct, thing.name, guests_word(kind), &index].map(str::to_owned).into()
    };
    let mut measure = words("measure");
    measure.push(lab.clone());
    let job = Job { row: case.row(), text: thing.file(case), up: words("up"), measure, lab: lab.clone() };
    let who = format!("{} itself", thing.name);
    let row = crew
        .row(
            job,
            &(std::sync::Arc::new({
                let say = say.clone();
                move |line: &str| say(&format!("{who}: {line}"))
            }) as Say),
        )
        .await;
    (lab, row)
}
