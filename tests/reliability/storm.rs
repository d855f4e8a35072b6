//! Many processes at once on one host: labs go up, change and go down at random, several processes contend for the same
//! lab, and somebody removes all of them now and then.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netloom::resource::names;

use crate::extent;
use crate::host::PlayedHost;
use crate::rig::Ended;

/// Processes at work at any time.
const PROCESSES: usize = 20;
/// Labs that they contend for.
const LABS: u8 = 12;
/// How many ways a lab's file is written.
const VARIANTS: u8 = 4;

fn name(lab: u8) -> String {
    format!("storm-{lab}")
}

/// A lab with subnets and a port of its own; the variants differ in guests, services, an MTU and a whole network.
fn text(lab: u8, variant: u8) -> String {
    let name = name(lab);
    let port = 9000 + u16::from(lab);
    let mtu = if variant == 1 { ", mtu: 1400" } else { "" };
    let serve = if variant == 2 { "tcp/81" } else { "tcp/80" };
    let mut text = format!(
        "lab: {name}\nnetworks:\n  lan: {{ mode: nat, subnet: [10.{n}.0.0/24, 'fd00:{n}::/64']{mtu}, forward: [{{ service: tcp/{port}, to: 'a:{at}' }}] }}\n  side: {{ mode: internal }}\n",
        n = 120 + lab,
        at = &serve[4..],
    );
    if variant == 3 {
        text.push_str(&format!("  desk: {{ mode: routed, subnet: 10.{}.1.0/24 }}\n", 120 + lab));
    }
    text.push_str(&format!(
        "guests:\n  a: {{ nics: [{{ network: lan, address: 10.{n}.0.10/24 }}, {{ network: side, address: 10.{n}.9.1/24 }}], serve: [{serve}] }}\n",
        n = 120 + lab
    ));
    if variant != 2 {
        text.push_str(&format!(
            "  b: {{ nics: [{{ network: side, address: 10.{n}.9.2/24, gateway: 10.{n}.9.1 }}] }}\n",
            n = 120 + lab
        ));
    }
    if variant == 3 {
        text.push_str(&format!(
            "  c: {{ nics: [{{ network: desk, address: 10.{}.1.10/24 }}] }}\n",
            120 + lab
        ));
    }
    text
}

/// What came of all of them.
#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<&'static str, usize>>,
    wrong: Mutex<Vec<String>>,
    held: AtomicUsize,
}

impl Tally {
    /// Takes an end that is as it should be, or notes that it is not.
    fn note(&self, verb: &'static str, arguments: &[&str], ended: &Ended) {
        *self.counts.lock().unwrap().entry(verb).or_default() += 1;
        let held = ended.stderr.contains("is held by another netloom");
        let absent = ["there is no lab", "is not complete"].iter().any(|words| ended.stderr.contains(words));
        let fine = match ended.code {
            0 => true,
            4 if held => matches!(verb, "up" | "down" | "down --all"),
            // A lab may go just before it is looked at, or be half built.
            2 | 4 if absent => matches!(verb, "status" | "plan"),
            _ => false,
        };
        if held {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        if !fine || ended.stderr.contains("panicked") {
            self.wrong.lock().unwrap().push(format!("{arguments:?}: {ended:?}"));
        }
    }
}

struct Storm {
    host: PlayedHost,
    files: Vec<Vec<String>>,
    tally: Tally,
}

impl Storm {
    fn new() -> Self {
        let host = PlayedHost::new();
        let file = |lab, variant| host.file(&format!("{}-{variant}.yaml", name(lab)), &text(lab, variant));
        let files = (0..LABS).map(|lab| (0..VARIANTS).map(|variant| file(lab, variant)).collect()).collect();
        Self { host, files, tally: Tally::default() }
    }

    fn act(&self, dice: &mut fastrand::Rng) {
        let lab = dice.u8(..LABS);
        let name = name(lab);
        let file = &self.files[usize::from(lab)][usize::from(dice.u8(..VARIANTS))];
        let (verb, arguments): (&str, Vec<&str>) = match dice.u8(..100) {
            0..50 => ("up", vec!["up", "--guests", "namespace", file]),
            50..75 => ("down", vec!["down", &name]),
            75..82 => ("status", vec!["status", "--json", &name]),
            82..85 => ("status of all", vec!["status", "--json"]),
            85..90 => ("list", vec!["list", "--json"]),
            90..94 => ("plan", vec!["plan", &name]),
            94..98 => ("plan of a file", vec!["plan", "--guests", "namespace", file]),
            _ => ("down --all", vec!["down", "--all"]),
        };
        let ended = self.host.run(&arguments);
        self.tally.note(verb, &arguments, &ended);
    }

    /// Alone now: each lab is brought to a state, which tools that know nothing of netloom confirm.
    fn settle(&self, dice: &mut fastrand::Rng) {
        for lab in 0..LABS {
            let (name, variant) = (name(lab), dice.u8(..VARIANTS));
            self.host.up(&self.files[usize::from(lab)][usize::from(variant)]).said(0, &[]);
            self.host.ok(&["plan", "--check", &name]);
            self.confirm(lab, variant);
        }
    }

    fn confirm(&self, lab: u8, variant: u8) {
        let name = name(lab);
        let mut bridges = vec!["lan", "side"];
        let mut guests = vec!["a"];
        if variant != 2 {
            guests.push("b");
        }
        if variant == 3 {
            bridges.push("desk");
            guests.push("c");
        }
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list.join(" ")
        };
        let wanted = sorted(bridges.iter().map(|network| names::link(&name, "bridge", network)).collect());
        let found = self.host.shell(&format!(
            "ip -j link show type bridge | jq -r '[.[] | select((.ifalias // \"\") | startswith(\"netloom:{name}:\")) | .ifname] | sort | join(\" \")'"
        ));
        assert_eq!(found.trim(), wanted, "bridges of {name}");
        let wanted = sorted(guests.iter().map(|guest| names::netns(&name, guest)).collect());
        let found =
            self.host.shell(&format!("ls /run/netns | grep '^netloom\\.{name}\\.' | sort | paste -sd ' '"));
        assert_eq!(found.trim(), wanted, "namespaces of {name}");
        let port = if variant == 2 { 81 } else { 80 };
        let heard = self.host.shell(&format!(
            "ip netns exec isp bash -c 'exec 3<>/dev/tcp/192.0.2.10/{} && head -n1 <&3'",
            9000 + u16::from(lab)
        ));
        assert_eq!(heard, format!("{name}/a tcp/{port}\n"), "the forwarded port of {name}");
        if variant != 2 {
            let to = format!("ip netns exec netloom.{name}.b ping -c 1 -w 5 10.{}.0.1", 120 + lab);
            let up = if variant == 3 {
                "ping -c 1 -w 5 10.N.1.10".replace('N', &(120 + lab).to_string())
            } else {
                ":".into()
            };
            // `a` is no router, so `b` reaches `a` and no further.
            let to = to.replace(".0.1", ".9.1");
            self.host.shell(&format!("{to} && {up}"));
        }
    }
}

#[test]
#[ignore = "slow"]
fn many_at_once() {
    let seed = extent::seed();
    let storm = Storm::new();
    let before = storm.host.look();
    let length = extent::of(Duration::from_secs(40), Duration::from_secs(600));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for process in 0..PROCESSES {
            let storm = &storm;
            scope.spawn(move || {
                let mut dice = extent::dice(seed.wrapping_add(process as u64));
                while began.elapsed() < length && storm.tally.wrong.lock().unwrap().is_empty() {
                    storm.act(&mut dice);
                }
            });
        }
    });
    let wrong = storm.tally.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "seed {seed}: {}", wrong.join("\n\n"));
    let counts = storm.tally.counts.lock().unwrap();
    eprintln!(
        "storm: seed {seed}, {PROCESSES} processes, {LABS} labs, {:.0} s, {} operations {counts:?}, {} of them met a lab that was held",
        began.elapsed().as_secs_f64(),
        counts.values().sum::<usize>(),
        storm.tally.held.load(Ordering::Relaxed)
    );
    storm.settle(&mut extent::dice(seed));
    storm.host.ok(&["down", "--all"]);
    storm.host.assert_same(&before, &format!("the host is as before, seed {seed}"));
    storm.host.assert_gone();
}

/// Two labs want the same port, or the same subnet, at the very same instant: one has it, and the other says who.
#[test]
fn one_of_two_has_it() {
    let host = PlayedHost::new();
    let before = host.look();
    let lab = |name: &str, subnet: &str, port: u16| {
        format!(
            "lab: {name}\nnetworks: {{ n: {{ mode: nat, subnet: {subnet}, forward: [{{ service: tcp/{port}, to: a }}] }} }}\n\
             guests: {{ a: {{ nics: [{{ network: n, address: {} }}], serve: [tcp/{port}] }} }}\n",
            subnet.replace(".0/", ".10/")
        )
    };
    let pairs = [
        (
            ("10.130.0.0/24", 8130),
            ("10.131.0.0/24", 8130),
            "forwards tcp/8130 on every IPv4 address of this host already",
        ),
        (("10.130.0.0/24", 8130), ("10.130.0.0/24", 8131), "the host has 10.130.0.1/24 on"),
    ];
    for round in 0..extent::of(3, 40) {
        for (one, other, why) in &pairs {
            let files = [("one", one), ("other", other)]
                .map(|(name, (subnet, port))| host.file(&format!("{name}.yaml"), &lab(name, subnet, *port)));
            let ended: Vec<Ended> = std::thread::scope(|scope| {
                let runs = files.each_ref().map(|file| scope.spawn(|| host.up(file)));
                runs.into_iter().map(|run| run.join().unwrap()).collect()
            });
            let mut codes: Vec<i32> = ended.iter().map(|ended| ended.code).collect();
            codes.sort_unstable();
            assert_eq!(codes, [0, 3], "round {round}: {ended:?}");
            ended.iter().find(|ended| ended.code == 3).unwrap().said(3, &[why]);
            let listed = host.json(&["list", "--json"]);
            assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
            host.ok(&["down", "--all"]);
        }
    }
    host.assert_same(&before, "the host is as before");
    host.assert_gone();
}

/// A host on which nobody ever made a namespace has no directory for them afterwards either.
#[test]
fn the_directory_of_namespaces_goes_again() {
    let host = PlayedHost::new();
    host.shell("ip netns del isp; umount /run/netns; rmdir /run/netns");
    let file = |lab| host.file(&format!("{}.yaml", name(lab)), &text(lab, 0));
    let files: Vec<String> = (0..4).map(file).collect();
    let listing = "find /run | sort; awk '$5 ~ \"^/run\" { print $5 }' /proc/self/mountinfo | sort";
    let before = host.shell(listing);
    for _ in 0..extent::of(2, 20) {
        std::thread::scope(|scope| {
            for (lab, file) in (0..4).zip(&files) {
                let host = &host;
                scope.spawn(move || {
                    host.up(file).said(0, &[]);
                    host.ok(&["down", &name(lab)]);
                });
            }
        });
        assert_eq!(host.shell(listing), before);
    }
    // What somebody else has there meanwhile stays.
    host.up(&files[0]).said(0, &[]);
    host.shell("ip netns add somebody");
    host.ok(&["down", "--all"]);
    assert_eq!(host.shell("ip netns list | cut -d ' ' -f 1"), "somebody\n");
    host.shell("ip netns del somebody; umount /run/netns; rmdir /run/netns");
    assert_eq!(host.shell(listing), before);
    host.assert_gone();
}
