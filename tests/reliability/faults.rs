//! Call n of a run fails, for every n.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::extent;
use crate::host::PlayedHost;
use crate::labs::{CASES, Case, assert_alike, look_alike};
use crate::rig::Ended;
use crate::spoil::{self, Spoil, Spoiled};

const EPERM: &str = "1";
const EAGAIN: &str = "11";
const ENOSPC: &str = "28";
const ENOBUFS: &str = "105";

/// Each class of calls, and how those are made to fail.
const WAYS: [(&str, &str); 10] = [
    ("n", "refuse"),
    ("n", ENOBUFS),
    ("l", "refuse"),
    ("s", EAGAIN),
    ("t", EAGAIN),
    ("m", EPERM),
    ("f", ENOSPC),
    ("w", ENOSPC),
    ("k", EPERM),
    ("p", EPERM),
];

/// What is done to a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Up,
    Change,
    Down,
}

/// A host on which one deed after the other is spoiled.
pub(crate) struct Stage {
    pub(crate) host: PlayedHost,
    pub(crate) old: String,
    pub(crate) new: String,
    /// Before there was any lab.
    pub(crate) bare: String,
    /// With the lab of the old file, where that is what a failure must leave.
    alike: String,
}

impl Stage {
    pub(crate) fn new(case: &Case, deed: Deed) -> Self {
        let host = PlayedHost::new();
        let (old, new) = case.files(&host);
        let bare = host.look();
        let mut alike = String::new();
        if deed == Deed::Change {
            host.up(&old).said(0, &[]);
            case.assert_works(&host, "at first");
            host.settle();
            alike = look_alike(&host);
        }
        Self { host, old, new, bare, alike }
    }

    /// The words of the deed's command.
    pub(crate) fn words<'a>(&'a self, case: &Case, deed: Deed) -> Vec<&'a str> {
        match deed {
            Deed::Up => vec!["up", "--guests", "namespace", &self.old],
            Deed::Change => vec!["up", "--guests", "namespace", &self.new],
            Deed::Down => vec!["down", case.lab],
        }
    }
}

/// Which calls of `count`: all in full length, else the first, the last and some between.
pub(crate) fn numbers(count: usize, some: usize) -> Vec<usize> {
    let step = match std::env::var("NETLOOM_STEP").ok().and_then(|text| text.parse().ok()) {
        Some(step) => step,
        None if extent::full() => 1,
        None => (count / some).max(1),
    };
    let mut numbers: Vec<usize> = (1..=count).step_by(step).collect();
    if count > 0 && numbers.last() != Some(&count) {
        numbers.push(count);
    }
    numbers
}

/// What became of the faults, by what they were.
#[derive(Default)]
pub(crate) struct Tally {
    kinds: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, what: impl Into<String>) {
        *self.kinds.entry(what.into()).or_default() += 1;
    }

    /// Says the figures; fails with everything that went wrong.
    #[track_caller]
    pub(crate) fn end(self, test: &str) {
        println!("{test}: {:?}", self.kinds);
        assert!(
            self.failures.is_empty(),
            "{test}: {} failures:\n{}",
            self.failures.len(),
            self.failures.join("\n\n")
        );
    }

    /// Does one trial; after a failure the next has a host of its own.
    pub(crate) fn trial<T>(
        &mut self,
        stage: &mut Option<Stage>,
        trial: impl FnOnce(&mut Self, &mut Option<Stage>) -> T,
    ) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| trial(self, stage))) {
            Ok(done) => Some(done),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                self.failures.push(text.chars().take(6000).collect());
                *stage = None;
                None
            }
        }
    }
}

/// An honest end: rolled back with the cause, or done in spite of it.
#[track_caller]
fn assert_honest(run: &Spoiled, when: &str) {
    let Ended { code, stderr, .. } = &run.ended;
    assert!([0, 3, 4].contains(code), "{when}: {:?}", run.ended);
    assert!(!stderr.contains("panicked"), "{when}: {stderr}");
    if *code != 0 {
        assert!(stderr.contains("Error: "), "{when}: {stderr}");
        assert!(!stderr.contains("could not be rolled back"), "{when}: {stderr}");
    }
}

type Judge = fn(&Case, &Stage, &Spoiled, &str, &mut Tally);

fn each_fault(case: &Case, deed: Deed, some: usize, judge: Judge) {
    let only = std::env::var("NETLOOM_WAYS").unwrap_or_default();
    let short = [("n", "refuse"), ("s", EAGAIN), ("w", ENOSPC)];
    let wanted = |way: &(&str, &str)| match only.is_empty() {
        true => extent::full() || short.contains(way),
        false => only.contains(way.0),
    };
    let ways: Vec<_> = WAYS.into_iter().filter(wanted).collect();
    each_fault_of(&ways, case, deed, some, judge);
}

fn each_fault_of(ways: &[(&'static str, &str)], case: &Case, deed: Deed, some: usize, judge: Judge) {
    let mut tally = Tally::default();
    let mut stage = None;
    for &(classes, how) in ways {
        let count = counted(case, deed, classes);
        eprintln!("{} {deed:?}: {count} calls of class {classes}, {how}", case.lab);
        for at in numbers(count, some) {
            tally.trial(&mut stage, |tally, stage| {
                let stage = stage.get_or_insert_with(|| Stage::new(case, deed));
                if deed == Deed::Down {
                    stage.host.up(&stage.old).said(0, &[]);
                }
                let spoil = Spoil { at, how: how.into(), classes, again: 0 };
                let run = spoil::run(&stage.host, &stage.words(case, deed), &spoil);
                // It may have been done with fewer calls this time.
                let what = run.what(&spoil).unwrap_or("not reached").to_owned();
                let when = format!("{} {deed:?}, {what}, {how}: {}", case.lab, run.ended.stderr);
                assert_honest(&run, &when);
                tally.add(format!("{classes} {how}"));
                if run.ended.code == 0 {
                    tally.add("absorbed");
                }
                judge(case, stage, &run, &when, tally);
            });
        }
    }
    tally.end(&format!("{} {deed:?}", case.lab));
}

/// How many calls of a class a deed makes; a few more may come from the run of things.
pub(crate) fn counted(case: &Case, deed: Deed, classes: &'static str) -> usize {
    let stage = Stage::new(case, deed);
    if deed == Deed::Down {
        stage.host.up(&stage.old).said(0, &[]);
    }
    let run = spoil::run(&stage.host, &stage.words(case, deed), &Spoil { classes, ..Spoil::default() });
    run.ended.said(0, &[]);
    run.calls.len()
}

/// A failed `up` leaves what was before.
fn up(case: &Case, stage: &Stage, run: &Spoiled, when: &str, _: &mut Tally) {
    if run.ended.code == 0 {
        stage.host.ok(&["plan", "--check", case.lab]);
        stage.host.ok(&["down", case.lab]);
    }
    stage.host.assert_same(&stage.bare, when);
    stage.host.assert_gone();
}

/// A failed change leaves the lab as it was, and it works.
fn change(case: &Case, stage: &Stage, run: &Spoiled, when: &str, _: &mut Tally) {
    if run.ended.code == 0 {
        stage.host.ok(&["plan", "--check", case.lab]);
        stage.host.up(&stage.old).said(0, &[]);
    }
    case.assert_works(&stage.host, when);
    assert_alike(&stage.host, &stage.alike, when);
}

/// `down` goes on past a fault, reports it, and the next one leaves nothing.
fn down(case: &Case, stage: &Stage, run: &Spoiled, when: &str, _: &mut Tally) {
    if run.ended.code != 0 {
        stage.host.ok(&["down", case.lab]);
    }
    stage.host.assert_same(&stage.bare, when);
    stage.host.assert_gone();
}

macro_rules! each_case {
    ($($name:ident $deed:ident $judge:ident $number:literal),* $(,)?) => { $(
        #[test]
        #[ignore = "slow"]
        fn $name() {
            each_fault(CASES[$number], Deed::$deed, 2, $judge);
        }
    )* };
}

each_case!(
    a_fault_of_up_with_a_firewall Up up 0,
    a_fault_of_up_with_engines Up up 1,
    a_fault_of_up_with_an_uplink Up up 2,
    a_fault_of_a_change_with_a_firewall Change change 0,
    a_fault_of_a_change_with_engines Change change 1,
    a_fault_of_a_change_with_an_uplink Change change 2,
    a_fault_of_down_with_a_firewall Down down 0,
    a_fault_of_down_with_engines Down down 1,
    a_fault_of_down_with_an_uplink Down down 2,
);

/// All settings of the host, one after the other. Where forwarding could not be put back, each link's own was, and what was
/// rolled back did not notice.
#[test]
#[ignore = "slow"]
fn a_setting_that_cannot_be_put_back() {
    each_fault_of(&[("k", EPERM)], CASES[0], Deed::Change, usize::MAX, change);
}

/// A namespace that could not be looked into for a moment is there all the same: it was taken for lost, and its guest made anew.
#[test]
#[ignore = "slow"]
fn a_look_that_fails_for_a_moment_changes_nothing() {
    let case = CASES[0];
    let stage = Stage::new(case, Deed::Change);
    let namespaces = || stage.host.shell("stat -L -c '%n %i' /run/netns/netloom.*");
    let before = namespaces();
    let words = stage.words(case, Deed::Up);
    let run = |at| {
        let spoil = Spoil { at, how: "refuse".into(), classes: "l", again: 0 };
        let run = spoil::run(&stage.host, &words, &spoil);
        (run.what(&spoil).unwrap_or_default().to_owned(), run)
    };
    let count = run(0).1.calls.len();
    assert!(count > before.lines().count(), "{count}");
    for at in 1..=count {
        let (what, run) = run(at);
        assert_honest(&run, &what);
        assert_eq!(namespaces(), before, "{what}: {}", run.ended.stderr);
    }
    assert_alike(&stage.host, &stage.alike, "at the end");
}

/// The answers of a socket that fails end like those of one that does not. A request that was lost with it is no success: one
/// that went for it left a bridge without its mark, which was taken for a leftover and removed with the host's addresses on
/// it. Nor is a list that was cut short all there is: routes that it did not name went with the addresses they were for.
#[test]
#[ignore = "slow"]
fn a_socket_lost_beside_an_uplink() {
    let case = CASES[2];
    let stage = Stage::new(case, Deed::Up);
    let all =
        spoil::run(&stage.host, &stage.words(case, Deed::Up), &Spoil { classes: "n", ..Spoil::default() });
    all.ended.said(0, &[]);
    stage.host.ok(&["down", case.lab]);
    let step = extent::of(4, 1);
    let mut tally = Tally::default();
    for at in (2..=all.calls.len()).step_by(step) {
        let spoil = Spoil { at, how: ENOBUFS.into(), classes: "n", again: 0 };
        let run = spoil::run(&stage.host, &stage.words(case, Deed::Up), &spoil);
        let when = format!("{:?}: {:?}", run.what(&spoil), run.ended);
        assert_honest(&run, &when);
        assert!(!run.ended.stderr.contains("left by a run that was cut off"), "{when}");
        up(case, &stage, &run, &when, &mut tally);
    }
    stage.host.assert_same(&stage.bare, "at the end");
}

/// A bridge whose mark somebody took off is made anew; what it held of the host's comes back first, not never.
#[test]
fn a_bridge_without_its_mark_holds_the_hosts_addresses() {
    let case = CASES[2];
    let stage = Stage::new(case, Deed::Change);
    let take_off = "ip link set dev \"$(ip -j link show dev up0 | jq -r '.[0].master')\" alias ''";
    stage.host.shell(take_off);
    stage.host.up(&stage.old).said(0, &["left by a run that was cut off"]);
    case.assert_works(&stage.host, "its mark was taken off");
    stage.host.shell(take_off);
    stage.host.ok(&["down", case.lab]);
    stage.host.assert_same(&stage.bare, "`down` without the mark");
    stage.host.assert_gone();
}
