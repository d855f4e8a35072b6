//! Sandboxes from outside: what they hold, that nothing remains, that ordinary users may.
//!
//! No test harness: a sandbox's processes are this very program run again with a hidden verb, and a process with the
//! harness's threads could not enter one. So this program is netloom's stand-in, and runs its tests one after the
//! other, each in a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "sandbox/cases.rs"]
mod cases;
#[path = "sandbox/leases.rs"]
mod leases;
#[path = "sandbox/life.rs"]
mod life;
#[path = "sandbox/rig.rs"]
mod rig;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|verb| verb.to_str()) {
        Some(verb) if verb.starts_with("__") => ExitCode::from(rig::verb(verb, &args[1..])),
        _ => harness(&args),
    }
}

/// Understands what `cargo test` and nextest pass: filters, `--exact`, `--skip`, `--list`, `--ignored`.
fn harness(args: &[OsString]) -> ExitCode {
    let args: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    let has = |flag: &str| args.contains(&flag);
    let mut filters = Vec::new();
    let mut skipped: Vec<&str> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match *arg {
            "--skip" => skipped.extend(rest.next().copied()),
            "--format" | "--color" | "--test-threads" | "-Z" => drop(rest.next()),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    let all = [cases::ALL, life::ALL, leases::ALL];
    let chosen: Vec<_> = all
        .iter()
        .copied()
        .flatten()
        .filter(|(name, _)| {
            let hit = |f: &&str| if has("--exact") { *f == *name } else { name.contains(*f) };
            (filters.is_empty() || filters.iter().any(hit))
                && !skipped.iter().any(|f: &&str| name.contains(*f))
        })
        .collect();
    if has("--list") {
        if !has("--ignored") {
            chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if has("--ignored") {
        println!("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, case) in &chosen {
        let began = std::time::Instant::now();
        let passed = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {} ({:.2?})", if passed { "ok" } else { "FAILED" }, began.elapsed());
        failed.extend((!passed).then_some(*name));
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = chosen.len() - failed.len();
    println!("\ntest result: {word}. {passed} passed; {} failed; 0 ignored", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
