//! `kill -9` while VMs are made, changed and removed: of netloom, of its libvirt, of a QEMU.

use std::time::{Duration, Instant};

use crate::extent;
use crate::host::PlayedHost;
use crate::rig::{eventually, signal};

const OLD: &str = "
lab: machines
networks:
  lan: { mode: nat, subnet: 10.45.0.0/24 }
guests:
  a: { kind: vm, nics: [{ network: lan, address: 10.45.0.10/24 }], serve: [tcp/80] }
  n: { kind: namespace, nics: [{ network: lan, address: 10.45.0.12/24 }] }
";

/// The same with another VM, and the first one made anew.
const NEW: &str = "
lab: machines
networks:
  lan: { mode: nat, subnet: 10.45.0.0/24 }
  more: { mode: internal }
guests:
  a: { kind: vm, nics: [{ network: lan, address: 10.45.0.11/24 }, { network: more }] }
  b: { kind: vm, nics: [{ network: more, address: 10.46.0.11/24 }] }
  n: { kind: namespace, nics: [{ network: lan, address: 10.45.0.12/24 }] }
";

/// Seconds that `up` of one VM takes at most here, under emulation, until it is ready.
const MAKES: f64 = 25.0;

/// What the command line of the process that runs libvirt's library begins with, after its directory.
const WORKER: &str = "netloom-libvirt --version";

/// Processes of the host whose command line has these words.
fn pids(host: &PlayedHost, words: &str) -> Vec<String> {
    let found = host.processes().into_iter().filter(|process| process.contains(words));
    found.filter_map(|process| Some(process.split_once(' ')?.0.to_owned())).collect()
}

fn gone_after(host: &PlayedHost, before: &str, all: bool, when: &str) {
    let status = host.run(&["status", "--json", "machines"]);
    assert!([0, 2, 4].contains(&status.code) && !status.stderr.contains("panicked"), "{when}: {status:?}");
    let down = host.run(&["down", if all { "--all" } else { "machines" }]);
    assert_eq!(down.code, 0, "{when}: {down:?}");
    host.assert_same(before, &format!("{when}; {status:?}; {}", down.stderr));
    let left = host.processes();
    if !left.is_empty() {
        println!("{when}; {status:?}; {down:?}; at first left: {left:?}");
    }
    host.assert_gone();
}

/// libvirt asks a QEMU of its own what it can do, before it has any domain to remember it by.
#[test]
#[ignore = "slow"]
fn killed_as_libvirt_asks_qemu() {
    let host = PlayedHost::new();
    host.use_images();
    let old = host.file("old.yaml", OLD);
    let before = host.look();
    for all in [false, true] {
        // Nothing is kept of what an earlier one has said.
        let _ = std::fs::remove_dir_all(host.state.join("cache"));
        let started = host.start(&["up", &old]);
        // Its command line has nothing of the lab's but the directory of libvirt's.
        let asked = || host.shell("pgrep -f '[q]mp.monitor' || true");
        let is_there = || (!asked().is_empty()).then_some(());
        eventually("QEMU is asked", is_there, || host.processes());
        let mut victims = pids(&host, WORKER);
        victims.extend(host.pids_of("up"));
        signal("KILL", &victims);
        let ended = started.end();
        assert!(!asked().is_empty(), "the QEMU that was asked has ended by itself");
        gone_after(&host, &before, all, &format!("{ended:?}"));
        assert_eq!(asked(), "", "{ended:?}");
    }
}

/// A QEMU that has just been started is the least known: to libvirt, and to whoever looks for it after a kill.
#[test]
#[ignore = "slow"]
fn killed_as_a_qemu_starts() {
    let host = PlayedHost::new();
    host.use_images();
    let old = host.file("old.yaml", OLD);
    let before = host.look();
    let seed = extent::seed();
    println!("seed {seed}");
    let mut dice = extent::dice(seed);
    let rounds = extent::of(3, 50);
    for round in 0..rounds {
        let started = host.start(&["up", &old]);
        let worker = eventually(
            "a QEMU is there",
            || {
                let there = !pids(&host, "qemu-system").is_empty();
                there.then(|| pids(&host, WORKER))
            },
            || host.processes(),
        );
        std::thread::sleep(Duration::from_millis(dice.u64(..400)));
        let victims = match dice.usize(..3) {
            0 => vec![format!("-{}", started.pid())],
            1 => worker,
            _ => host.pids_of("up").into_iter().take(1).collect(),
        };
        signal("KILL", &victims);
        let ended = started.end();
        let when = format!("seed {seed}, round {round}, killed {victims:?}: {ended:?}");
        gone_after(&host, &before, dice.bool(), &when);
    }
}

#[test]
#[ignore = "slow"]
fn killed_at_any_moment_with_vms() {
    let host = PlayedHost::new();
    host.use_images();
    let (old, new) = (host.file("old.yaml", OLD), host.file("new.yaml", NEW));
    let before = host.look();
    let seed = extent::seed();
    let mut dice = extent::dice(seed);
    let rounds = extent::of(4, 50);
    let began = Instant::now();
    for round in 0..rounds {
        // Half of the kills are in the first seconds, in which everything is made.
        let up = |dice: &mut fastrand::Rng| if dice.bool() { 4.0 } else { MAKES };
        let (words, most) = match dice.usize(..4) {
            0 | 1 => (["up", old.as_str()], up(&mut dice)),
            2 => {
                host.run(&["up", &old]).said(0, &[]);
                (["up", new.as_str()], up(&mut dice))
            }
            _ => {
                host.run(&["up", &old]).said(0, &[]);
                (["down", "machines"], 2.0)
            }
        };
        let started = host.start(&words);
        std::thread::sleep(Duration::from_secs_f64(most * dice.f64()));
        let victims = match dice.usize(..4) {
            0 => vec![format!("-{}", started.pid())],
            1 => pids(&host, WORKER),
            2 => pids(&host, "qemu-system").into_iter().take(1).collect(),
            _ => host.pids_of(words[0]).into_iter().take(1).collect(),
        };
        if !victims.is_empty() {
            signal("KILL", &victims);
        }
        let ended = started.end();
        let when = format!("seed {seed}, round {round}, {words:?}, killed {victims:?}: {ended:?}");
        gone_after(&host, &before, dice.bool(), &when);
    }
    println!("{rounds} kills with VMs, 0 leaks, {} s, seed {seed}", began.elapsed().as_secs());
}
