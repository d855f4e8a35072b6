//! The verbs that netloom calls itself by: supervisors, sandbox processes, probes. Not for people; they run before
//! any thread is started.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::{against, compare, ui};
use crate::compare::{against as real, run, speed};
use crate::error::{Error, Result};
use crate::host::service;
use crate::topology::Service;
use crate::{doctor, lease, sandbox, serve};

/// Runs a hidden verb, if the arguments are one.
pub(super) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let verb = arguments.get(1)?.to_str().filter(|verb| verb.starts_with("__"))?;
    let words: Vec<String> = arguments[2..].iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let rest = words.as_slice();
    let done = match verb {
        "__supervise" => one(rest).and_then(|directory| service::supervise(Path::new(directory))),
        "__serve" => run_serve(rest),
        run::VERB => compare::measure_lab(rest),
        speed::VERB => compare::measure_speed(rest),
        lease::VERB => one(rest).and_then(|event| lease::run(event, &lease::environment())),
        real::run::VERB => against::run(rest),
        sandbox::KEEPER_VERB => return Some(ExitCode::from(sandbox::keeper_main(&arguments[2..]))),
        sandbox::INIT_VERB => return Some(ExitCode::from(sandbox::init_main(&arguments[2..]))),
        doctor::PROBE_VERB => ui::json(&doctor::probe_kernel()),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", error.report());
            ExitCode::from(error.kind.exit_code())
        }
    })
}

fn one(rest: &[String]) -> Result<&String> {
    rest.first().ok_or_else(|| Error::input("an argument is missing"))
}

fn run_serve(rest: &[String]) -> Result<()> {
    let label = one(rest)?;
    let services: Vec<Service> = rest[1..].iter().map(|word| word.parse()).collect::<Result<_>>()?;
    serve::run(label, &services)
}
