//! Ctrl-C and its like, at any moment: rolled back or done, and nothing in between.

use crate::extent;
use crate::faults::{Deed, Stage, Tally, counted, numbers};
use crate::labs::{CASES, Case, assert_alike, look_alike};
use crate::spoil::{self, Spoil};

const CALLS: &str = "nmsfk";
/// SIGHUP, SIGINT, SIGTERM.
const SIGNALS: [u8; 3] = [1, 2, 15];

/// One signal at call n. `up` ends with exit 130 and everything as it was, or has done all of it; `down` has done all of it.
fn one_signal(case: &Case, deed: Deed, some: usize) {
    let mut tally = Tally::default();
    let mut stage = None;
    for (turn, at) in numbers(counted(case, deed, CALLS), some).into_iter().enumerate() {
        tally.trial(&mut stage, |tally, stage| {
            let stage = stage.get_or_insert_with(|| Stage::new(case, deed));
            let host = &stage.host;
            if deed == Deed::Down {
                host.up(&stage.old).said(0, &[]);
            }
            let number = SIGNALS[turn % SIGNALS.len()];
            let spoil = Spoil { at, how: format!("signal {number}"), classes: CALLS, again: 0 };
            let before = if deed == Deed::Change { look_alike(host) } else { String::new() };
            let run = spoil::run(host, &stage.words(case, deed), &spoil);
            let what = run.what(&spoil).unwrap_or("not reached");
            let when = format!("{} {deed:?}, {what}, {}: {}", case.lab, spoil.how, run.ended.stderr);
            tally.add(format!("exit {}", run.ended.code));
            match (run.ended.code, deed) {
                (0, Deed::Up) => {
                    host.ok(&["plan", "--check", case.lab]);
                    case.assert_works(host, &when);
                    host.ok(&["down", case.lab]);
                }
                (0, Deed::Change) => {
                    host.ok(&["plan", "--check", case.lab]);
                    host.up(&stage.old).said(0, &[]);
                }
                (0, Deed::Down) => {}
                // The first calls come before anybody listens: the signal ends the process itself, with nothing begun.
                (130 | 129 | 143, _) if run.ended.stderr.is_empty() => {}
                (130, Deed::Up | Deed::Change) => run.ended.said(130, &["interrupted"]),
                _ => panic!("{when}"),
            }
            match deed {
                Deed::Change => {
                    case.assert_works(host, &when);
                    assert_alike(host, &before, &when);
                }
                Deed::Down if run.ended.code != 0 => {
                    host.ok(&["down", case.lab]);
                }
                _ => {}
            }
            if deed != Deed::Change {
                host.assert_same(&stage.bare, &when);
                host.assert_gone();
            }
        });
    }
    tally.end(&format!("{} {deed:?}, a signal at a call", case.lab));
}

#[test]
#[ignore = "slow"]
fn a_signal_ends_up_cleanly() {
    for case in CASES.iter().take(extent::of(1, 3)) {
        one_signal(case, Deed::Up, 4);
    }
}

#[test]
#[ignore = "slow"]
fn a_signal_ends_a_change_cleanly() {
    for case in CASES.iter().rev().take(extent::of(1, 3)) {
        one_signal(case, Deed::Change, 3);
    }
}

#[test]
#[ignore = "slow"]
fn a_signal_does_not_stop_down() {
    for case in CASES.iter().rev().take(extent::of(1, 3)) {
        one_signal(case, Deed::Down, 3);
    }
}

/// The second Ctrl-C while it rolls back: it goes on, and says what a third would do.
#[test]
fn a_second_signal_does_not_stop_the_rollback() {
    let case = CASES[0];
    let stage = Stage::new(case, Deed::Up);
    let host = &stage.host;
    let calls = counted(case, Deed::Up, "n");
    // Few enough that they come even where hardly anything is under way, or there to be removed again.
    for (at, again) in [(calls / 3, 3), (calls / 2, 6)] {
        let spoil = Spoil { at, how: "signal 2".into(), classes: "n", again };
        let run = spoil::run(host, &stage.words(case, Deed::Up), &spoil);
        run.ended.said(130, &["interrupted", "rolling back", "once more ends netloom at once"]);
        host.assert_same(&stage.bare, &format!("{:?}", run.ended));
        host.assert_gone();
    }
}

/// Two signals end `down` where it is; another one does the rest.
#[test]
fn down_ends_at_the_second_signal_and_another_one_finishes() {
    let case = CASES[2];
    let stage = Stage::new(case, Deed::Up);
    let host = &stage.host;
    let mut cut = 0;
    for (at, again) in [(2, 1), (3, 2), (5, 2)] {
        host.up(&stage.old).said(0, &[]);
        let spoil = Spoil { at, how: "signal 2".into(), classes: "n", again };
        let run = spoil::run(host, &stage.words(case, Deed::Down), &spoil);
        if run.ended.code == 130 {
            run.ended.said(130, &["once more ends netloom at once"]);
            cut += 1;
            host.ok(&["down", case.lab]);
        }
        host.assert_same(&stage.bare, &format!("{:?}", run.ended));
        host.assert_gone();
    }
    assert!(cut > 0, "it always ended before the second signal");
}
