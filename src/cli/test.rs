//! `netloom test`: measures a lab's expectations.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::context::{Lab, Target, target};
use super::{block_on, ui};
use crate::error::{Context, Kind, Result};
use crate::host::lab::LabHost;
use crate::probe::{self, Measured};
use crate::report;
use crate::topology::Topology;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A lab's name, or a file with the expectations [default: netloom.yaml]
    #[arg(value_name = "LAB")]
    target: Option<String>,
    /// Write a JUnit report
    #[arg(long, value_name = "PATH")]
    junit: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `test --json` prints.
#[derive(Serialize)]
struct Document<'a> {
    lab: &'a str,
    ok: bool,
    seconds: f64,
    measurements: &'a [Measured],
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let (lab, topology) = match target(arguments.target.as_deref(), None)? {
        Target::Lab(name) => {
            let lab = Lab::find(&name)?;
            let topology = lab.topology()?;
            (lab, topology)
        }
        Target::File { path, topology } => {
            let lab = Lab::find(&topology.lab)?;
            lab.topology()?; // says that there is no such lab, where there is none
            // The guests are of the kind they were brought up as.
            let topology = match lab.info.guests {
                None => *topology,
                guests => super::context::load(&path, guests)?,
            };
            (lab, topology)
        }
    };
    if let Some(code) = lab.enter()? {
        return Ok(code);
    }
    let started = Instant::now();
    let measured = block_on(measure(&lab, &topology))?;
    let took = started.elapsed();
    let ok = measured.iter().all(|m| m.ok);
    if let Some(path) = &arguments.junit {
        let text = report::junit(&topology.lab, &measured, took)?;
        std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    if arguments.json {
        let seconds = took.as_secs_f64();
        ui::json(&Document { lab: &topology.lab, ok, seconds, measurements: &measured })?;
    } else {
        ui::print(&report::matrix(&measured, report::use_color()))?;
    }
    Ok(if ok { 0 } else { Kind::No.exit_code() })
}

async fn measure(lab: &Lab, topology: &Topology) -> Result<Vec<Measured>> {
    let connect = lab.info.connect.clone();
    let host = LabHost::new(&lab.state, &topology.lab, &lab.file_directory(), connect, ui::sayer());
    let endpoints = probe::LabEndpoints::new(topology, &host).await?;
    probe::evaluate(topology, &endpoints, &probe::Options::default()).await
}
