//! `kill -9`, at every call that changes something and at any moment.

use std::time::{Duration, Instant};

use crate::extent;
use crate::faults::{Deed, Stage, Tally, counted, numbers};
use crate::labs::{CASES, Case};
use crate::rig::{Rig, signal};
use crate::spoil::{self, Spoil};

const DEEDS: [Deed; 3] = [Deed::Up, Deed::Change, Deed::Down];

/// What `status` says of a lab whose netloom was killed: the truth, whatever that is.
#[track_caller]
fn assert_status_is_true(case: &Case, stage: &Stage, when: &str) {
    let host = &stage.host;
    let status = host.run(&["status", "--json", case.lab]);
    assert!(!status.stderr.contains("panicked"), "{when}: {status:?}");
    let recorded = std::fs::read_to_string(host.state.join("labs").join(case.lab).join("netloom.yaml"));
    match (status.code, recorded) {
        // All is well, it says: then it is.
        (0, Ok(text)) if status.json()["drift"].as_array().unwrap().is_empty() => {
            if text == std::fs::read_to_string(&stage.old).unwrap() {
                case.assert_works(host, when);
            }
        }
        (0, Ok(_)) => {}
        (0, Err(_)) => panic!("{when}: of a lab without a file: {status:?}"),
        // Nothing was begun, or nothing is left.
        (2, _) => assert_eq!(host.look(), stage.bare, "{when}: {status:?}"),
        (4, _) => status.said(4, &["is not complete", "Hint: "]),
        _ => panic!("{when}: {status:?}"),
    }
    let listed = host.json(&["list", "--json"]);
    let named = listed.as_array().unwrap().iter().any(|lab| lab["lab"] == case.lab);
    assert_eq!(named, status.code != 2, "{when}: {listed}");
}

/// After a kill: the truth, perhaps another `up`, then `down` one way or the other, and nothing is left.
fn clear(case: &Case, stage: &Stage, when: &str, again: bool, all: bool) {
    let host = &stage.host;
    assert_status_is_true(case, stage, when);
    if again {
        let up = host.up(&stage.old);
        assert_eq!(up.code, 0, "{when}: {up:?}");
        host.ok(&["plan", "--check", case.lab]);
        case.assert_works(host, when);
    }
    let down = host.run(&["down", if all { "--all" } else { case.lab }]);
    assert_eq!(down.code, 0, "{when}: {down:?}");
    host.assert_same(&stage.bare, &format!("{when}; {}", down.stderr));
    host.assert_gone();
}

/// The lab as the deed finds it.
fn prepare<'a>(stage: &'a mut Option<Stage>, case: &Case, deed: Deed) -> &'a Stage {
    let stage = stage.get_or_insert_with(|| Stage::new(case, Deed::Up));
    if deed != Deed::Up {
        stage.host.up(&stage.old).said(0, &[]);
    }
    stage
}

/// Killed before and after call n.
fn at_every_call(case: &Case) {
    let mut tally = Tally::default();
    let mut stage = None;
    let mut turn = 0_usize;
    for deed in DEEDS {
        for classes in extent::of(vec!["n"], vec!["n", "m", "s", "f", "w", "k", "p"]) {
            for at in numbers(counted(case, deed, classes), 1) {
                for how in extent::of(vec!["kill-after"], vec!["kill", "kill-after"]) {
                    turn += 1;
                    tally.trial(&mut stage, |tally, stage| {
                        let stage = prepare(stage, case, deed);
                        let spoil = Spoil { at, how: how.into(), classes, again: 0 };
                        let run = spoil::run(&stage.host, &stage.words(case, deed), &spoil);
                        let what = run.what(&spoil).unwrap_or("not reached");
                        let when = format!("{} {deed:?}, {what}, {how}: {}", case.lab, run.ended.stderr);
                        tally.add(format!("{deed:?} {classes}"));
                        clear(case, stage, &when, turn.is_multiple_of(2), turn % 4 > 1);
                    });
                }
            }
        }
    }
    tally.end(&format!("{} killed at a call", case.lab));
}

/// Killed at any moment: the whole process group, or only the process that was called.
fn at_any_moment(case: &Case, rounds: usize) {
    let seed = extent::seed();
    let mut dice = extent::dice(seed);
    let mut tally = Tally::default();
    let mut stage = None;
    let mut lasts = [Duration::from_secs(1); 3];
    for round in 0..rounds {
        let number = dice.usize(..3);
        let deed = DEEDS[number];
        let (group, again, all, part) = (dice.bool(), dice.bool(), dice.bool(), dice.f64());
        tally.trial(&mut stage, |tally, stage| {
            let stage = prepare(stage, case, deed);
            let began = Instant::now();
            let started = stage.host.start(&stage.words(case, deed));
            std::thread::sleep(lasts[number].mul_f64(part * 1.05));
            let pids = if group {
                vec![format!("-{}", started.pid())]
            } else {
                let mut called = stage.host.pids_of(if deed == Deed::Down { "down" } else { "up" });
                called.truncate(1);
                called
            };
            if !pids.is_empty() {
                signal("KILL", &pids);
            }
            let ended = started.end();
            tally.add(format!("{deed:?}{}", if ended.code == 0 { " had ended" } else { "" }));
            if ended.code == 0 {
                lasts[number] = began.elapsed().min(Duration::from_secs(3));
            }
            let when = format!("seed {seed}, round {round}, {} {deed:?}: {ended:?}", case.lab);
            clear(case, stage, &when, again, all);
        });
    }
    tally.end(&format!("{} killed at any moment, seed {seed}", case.lab));
}

/// In a sandbox, which ends with all that is in it.
fn in_a_sandbox(rounds: usize) {
    let rig = Rig::new();
    let text = std::fs::read_to_string(crate::rig::topology("mixed.yaml")).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("lab: ")).unwrap().to_owned();
    let file = rig.file("lab.yaml", &text);
    let seed = extent::seed();
    let mut dice = extent::dice(seed);
    for round in 0..rounds {
        let down = dice.bool();
        let words: &[&str] = if down {
            rig.up(&file);
            &["down", &name]
        } else {
            &["up", "--sandbox", "--guests", "namespace", &file]
        };
        let started = rig.start(words);
        std::thread::sleep(Duration::from_millis(dice.u64(..if down { 400 } else { 1500 })));
        if dice.bool() {
            signal("KILL", &[format!("-{}", started.pid())]);
        } else {
            let mut called = rig.pids_of(words[0]);
            called.truncate(1 + dice.usize(..2));
            if !called.is_empty() {
                signal("KILL", &called);
            }
        }
        let ended = started.end();
        let when = format!("seed {seed}, round {round}, {words:?}: {ended:?}");
        let status = rig.run(&["status", "--json", &name]);
        assert!(!status.stderr.contains("panicked"), "{when}: {status:?}");
        let down = rig.run(&["down", if dice.bool() { "--all" } else { &name }]);
        assert_eq!(down.code, 0, "{when}: {down:?}");
        rig.assert_gone();
    }
    println!("{rounds} kills of a lab in a sandbox, seed {seed}");
}

/// `NETLOOM_ROUNDS`, or as many as the length of the run asks for.
fn rounds(short: usize, long: usize) -> usize {
    let given = std::env::var("NETLOOM_ROUNDS").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| extent::of(short, long))
}

macro_rules! each_case {
    ($($call:ident $moment:ident $number:literal),* $(,)?) => { $(
        #[test]
        #[ignore = "slow"]
        fn $call() {
            at_every_call(CASES[$number]);
        }

        #[test]
        #[ignore = "slow"]
        fn $moment() {
            at_any_moment(CASES[$number], rounds(3, 350));
        }
    )* };
}

each_case!(
    killed_at_a_call_with_a_firewall killed_at_any_moment_with_a_firewall 0,
    killed_at_a_call_with_engines killed_at_any_moment_with_engines 1,
    killed_at_a_call_with_an_uplink killed_at_any_moment_with_an_uplink 2,
);

#[test]
#[ignore = "slow"]
fn killed_at_any_moment_in_a_sandbox() {
    in_a_sandbox(rounds(3, 100));
}
