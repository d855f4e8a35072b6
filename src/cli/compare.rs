//! `netloom compare`, and the hidden verb by which it measures one lab.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::sync::watch;

use super::context::Lab;
use super::up::{Guests, Signals, listen};
use super::{block_on, ui};
use crate::compare::run::Options;
use crate::compare::{Comparison, Counts, Outcome, Row, against, cases, measure, run, speed};
use crate::error::{Context, Error, Result};
use crate::host::lab::LabHost;
use crate::report;
use crate::topology::{GuestKind, Topology};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Constructs, such as vmware/nat, or all of a system, such as vmware [default: all]
    #[arg(value_name = "CONSTRUCT")]
    constructs: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Write the matrix as Markdown; `-` for stdout
    #[arg(long, value_name = "PATH")]
    markdown: Option<PathBuf>,
    /// Write a page that stands alone, with every probe; `-` for stdout
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// What guests are made of; both kinds beside one another with a comma
    #[arg(long, value_name = "KIND", default_value = "namespace", value_delimiter = ',')]
    guests: Vec<Guests>,
    /// Also measure what each costs: TCP throughput and round-trip time, one pair at a time
    #[arg(long)]
    speed: bool,
    /// Set them against the real thing: libvirt's or Incus's own networks, made by libvirt or Incus in sandboxes and
    /// measured by the same probes. Needs root
    #[arg(long, value_name = "SYSTEM", conflicts_with_all = ["html", "speed"])]
    against: Option<System>,
    /// Labs under way at a time [default: four for each processor, since most of the time is waiting; with VMs two,
    /// or one where they are emulated, as memory allows]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// What can be compared with.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum System {
    /// libvirt
    Libvirt,
    /// Incus
    Incus,
}

impl From<System> for against::system::System {
    fn from(system: System) -> Self {
        match system {
            System::Libvirt => Self::Libvirt,
            System::Incus => Self::Incus,
        }
    }
}

/// What `compare --json` prints.
#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    counts: Counts,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let cases = cases::select(&arguments.constructs)?;
    let mut kinds: Vec<GuestKind> = Vec::new();
    for guests in arguments.guests.iter().copied().map(GuestKind::from) {
        if !kinds.contains(&guests) {
            kinds.push(guests);
        }
    }
    if let Some(system) = arguments.against {
        let [guests] = kinds[..] else {
            return Err(Error::input("`--against` takes one kind of guest"));
        };
        return against(arguments, system.into(), &cases, guests);
    }
    let comparison = block_on(async {
        let (sender, interrupt) = watch::channel(false);
        tokio::spawn(listen(Signals::new()?, sender, None));
        let mut all = Vec::new();
        for guests in kinds {
            let jobs = arguments.jobs.unwrap_or_else(|| run::usual_jobs(guests));
            let options = Options { guests, jobs, speed: arguments.speed };
            all.push(run::run(&cases, options, &ui::sayer(), &interrupt).await?);
        }
        Ok(Comparison::joined(all))
    })?;
    show(arguments, &comparison)?;
    if let Some(advice) = advice(&comparison) {
        ui::say(&advice);
    }
    Ok(comparison.exit_code())
}

/// What `compare --against --json` prints.
#[derive(Serialize)]
struct AgainstDocument<'a> {
    ok: bool,
    counts: against::Counts,
    #[serde(flatten)]
    against: &'a against::Against,
}

fn against(
    arguments: &Arguments,
    system: against::system::System,
    cases: &[cases::Case],
    guests: GuestKind,
) -> Result<u8> {
    let jobs = arguments.jobs.unwrap_or_else(|| run::usual_jobs(guests));
    let options = Options { guests, jobs, speed: false };
    let against = block_on(async {
        let (sender, interrupt) = watch::channel(false);
        tokio::spawn(listen(Signals::new()?, sender, None));
        // Of all constructs, those that are the system's.
        let is_its = |case: &cases::Case| against::things::of_system(system, case.mode.id).next().is_some();
        let own = cases.iter().copied().filter(is_its);
        let some = if arguments.constructs.is_empty() { own.collect() } else { cases.to_vec() };
        against::run::run(system, &some, options, &ui::sayer(), &interrupt).await
    })?;
    let code = against.exit_code();
    if arguments.json {
        ui::json(&AgainstDocument { ok: code == 0, counts: against.counts(), against: &against })?;
    }
    let mut printed = arguments.json;
    if let Some(path) = &arguments.markdown {
        printed |= path == Path::new("-");
        write(path, &report::compare::against::markdown(&against))?;
    }
    if !printed {
        ui::print(&report::compare::against::text(&against, report::use_color()))?;
    }
    Ok(code)
}

/// Writes a text to a file, or to stdout for `-`.
fn write(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        return ui::print(text);
    }
    std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}

/// How what this kernel cannot build is measured all the same.
fn advice(comparison: &Comparison) -> Option<String> {
    let tagged = |row: &&Row| matches!(&row.outcome, Outcome::Lacking(why) if why == run::WITHOUT_VLANS);
    let count = comparison.rows.iter().filter(tagged).count();
    let rows = if count == 1 { "1 row needs".to_owned() } else { format!("{count} rows need") };
    (count > 0).then(|| {
        format!(
            "{rows} VLANs, which this kernel lacks: `make compare` measures everything under the distribution's full \
             kernel, in a throw-away VM (scripts/full-kernel-vm.sh in netloom's repository)"
        )
    })
}

fn show(arguments: &Arguments, comparison: &Comparison) -> Result<()> {
    let mut printed = arguments.json;
    if arguments.json {
        let ok = comparison.exit_code() == 0;
        ui::json(&Document { ok, counts: comparison.counts(), comparison })?;
    }
    for (path, text) in [
        (&arguments.markdown, report::compare::markdown as fn(&Comparison) -> String),
        (&arguments.html, report::compare::html),
    ] {
        match path {
            Some(path) if path == Path::new("-") => {
                printed = true;
                ui::print(&text(comparison))?;
            }
            Some(path) => {
                let failed = || format!("cannot write {}", path.display());
                std::fs::write(path, text(comparison)).context(failed)?;
            }
            None => {}
        }
    }
    if !printed {
        ui::print(&report::compare::text(comparison, report::use_color()))?;
    }
    Ok(())
}

/// `__measure LAB [STATE [again]]`: measures a lab that is up in a sandbox, as the construct of its only network promises,
/// and prints the row as JSON. `STATE` is the position among the construct's states; `again` has more patience.
pub(super) fn measure_lab(words: &[String]) -> Result<()> {
    let (words, waits) = match words {
        [rest @ .., last] if last == run::AGAIN => (rest, measure::Waits::SECOND_LOOK),
        all => (all, measure::Waits::default()),
    };
    let (lab, topology, index) = enter(words)?;
    ui::json(&block_on(async {
        let (case, host) = shown(&lab, &topology, index)?;
        measure::measure(&case, &topology, &host, waits).await
    })?)
}

/// `__speed LAB [STATE]`: likewise what the construct costs, as a list of JSON.
pub(super) fn measure_speed(words: &[String]) -> Result<()> {
    let (lab, topology, index) = enter(words)?;
    ui::json(&block_on(async {
        let (case, host) = shown(&lab, &topology, index)?;
        speed::measure(&case, &topology, &host).await
    })?)
}

/// Enters the sandbox of the lab that the words of a hidden verb name.
fn enter(words: &[String]) -> Result<(Lab, Topology, usize)> {
    let (name, index) = match words {
        [lab] => (lab, 0),
        [lab, index] => {
            let number = index.parse().map_err(|_| Error::input(format!("`{index}` is not a state")))?;
            (lab, number)
        }
        _ => return Err(Error::input("an argument is missing")),
    };
    let lab = Lab::find(name)?;
    let topology = lab.topology()?;
    if let Some(code) = lab.enter()? {
        std::process::exit(i32::from(code));
    }
    Ok((lab, topology, index))
}

/// The case that a lab shows, and the host it is on.
fn shown(lab: &Lab, topology: &Topology, index: usize) -> Result<(cases::Case, LabHost)> {
    let modes: std::collections::BTreeSet<&str> =
        topology.networks.values().map(|network| network.mode.as_str()).collect();
    let [construct] = modes.into_iter().collect::<Vec<_>>()[..] else {
        return Err(Error::input(format!("the networks of lab `{}` are not all of one mode", topology.lab)));
    };
    let case = cases::find(construct, index)?;
    let connect = lab.info.connect.clone();
    let host = LabHost::new(&lab.state, &topology.lab, &lab.file_directory(), connect, ui::sayer());
    Ok((case, host))
}
