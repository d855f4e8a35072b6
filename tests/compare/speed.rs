//! Speed, against what the kernel counted on the guests' links and against links that were made slow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netloom::compare::cases;
use serde_json::Value;

use crate::rig::{Rig, eventually, signal};
use crate::whole::{assert_nothing_left, ground, said, steps};

/// A lab that shows a construct, with a port forwarded for iperf3 where it has forwards.
struct Shown {
    rig: Rig,
    lab: String,
}

impl Shown {
    #[track_caller]
    fn up(rig: Rig, construct: &str, guests: &str) -> Self {
        let case = cases::find(construct, 0).unwrap();
        let file = rig.file("lab.yaml", &case.example_for_speed());
        rig.ok(&["--quiet", "up", "--sandbox", "--guests", guests, &file]);
        Self { rig, lab: case.lab() }
    }

    #[track_caller]
    fn sh(&self, who: &str, script: &str) -> String {
        self.rig.sh(&format!("{}/{who}", self.lab), script)
    }

    /// Bytes that a guest's link received and sent, by the guest's own kernel.
    #[track_caller]
    fn counted(&self, guest: &str) -> [f64; 2] {
        let said: Value = serde_json::from_str(&self.sh(guest, "ip -j -s link show eth0")).unwrap();
        ["rx", "tx"].map(|way| said[0]["stats64"][way]["bytes"].as_f64().unwrap())
    }

    /// What is measured of each pair. Nothing that measures is left then.
    #[track_caller]
    fn speed(&self) -> BTreeMap<String, Value> {
        let all: Value = self.rig.json(&["__speed", &self.lab]);
        let left: Vec<String> =
            self.rig.processes().into_iter().filter(|process| process.contains("iperf3")).collect();
        assert!(left.is_empty(), "{left:?}");
        let pairs = all.as_array().unwrap().iter();
        pairs.map(|pair| (pair["pair"].as_str().unwrap().to_owned(), pair.clone())).collect()
    }
}

/// Bits per second.
#[track_caller]
fn rate(pairs: &BTreeMap<String, Value>, pair: &str) -> f64 {
    pairs[pair]["throughput"]["bits_per_second"].as_f64().unwrap_or_else(|| panic!("{}", pairs[pair]))
}

/// All bytes that arrived, of these pairs.
fn bytes(pairs: &BTreeMap<String, Value>, names: &[&str]) -> f64 {
    names.iter().map(|name| pairs[*name]["throughput"]["bytes"].as_f64().unwrap()).sum()
}

/// What was counted is what was measured, with headers, what was repeated, acknowledgements and pings.
#[track_caller]
fn assert_counted(counted: f64, measured: f64) {
    let more = counted - measured;
    assert!(more > 0.0 && more < 0.15 * measured + 20e6, "{counted} counted, {measured} measured");
}

/// Every figure is there, and fits with the others.
#[track_caller]
fn assert_figures(pairs: &BTreeMap<String, Value>) {
    for pair in pairs.values() {
        let (throughput, rtt) = (&pair["throughput"], &pair["rtt"]);
        let number = |of: &Value, name: &str| of[name].as_f64().unwrap_or_else(|| panic!("{name}: {pair}"));
        let product = number(throughput, "bits_per_second") * number(throughput, "seconds");
        assert!((product / (8.0 * number(throughput, "bytes")) - 1.0).abs() < 0.01, "{pair}");
        let [min, median, p95] = ["min_us", "median_us", "p95_us"].map(|name| number(rtt, name));
        assert!(0.0 < min && min <= median && median <= p95 && p95 < 1e6, "{pair}");
        assert!(number(rtt, "answered") > 25.0 && number(rtt, "sent") == 30.0, "{pair}");
        assert_eq!((&pair["throughput_reason"], &pair["rtt_reason"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn the_guests_links_count_what_is_measured() {
    let shown = Shown::up(Rig::new(), "virtualbox/nat-network", "namespace");
    let before = ["a", "b"].map(|guest| shown.counted(guest));
    let pairs = shown.speed();
    let after = ["a", "b"].map(|guest| shown.counted(guest));

    let names: Vec<&str> = pairs.keys().map(String::as_str).collect();
    assert_eq!(names, ["g2g", "g2h", "g2l", "g2o", "h2g", "l2g"]);
    assert_figures(&pairs);
    let grown = |guest: usize, which: usize| after[guest][which] - before[guest][which];
    let sent = bytes(&pairs, &["g2g", "g2h", "g2l", "g2o"]);
    let received = bytes(&pairs, &["h2g", "l2g"]);
    assert_counted(grown(0, 1), sent);
    assert_counted(grown(0, 0), received);
    assert_counted(grown(1, 0), bytes(&pairs, &["g2g"]));
    for (pair, through, by) in [("h2g", "forward", "tcp"), ("l2g", "forward", "tcp")] {
        assert_eq!((&pairs[pair]["through"], &pairs[pair]["rtt"]["by"]), (&through.into(), &by.into()));
    }
    assert_eq!(
        (&pairs["g2o"]["address"], &pairs["g2o"]["rtt"]["by"]),
        (&"198.51.100.10".into(), &"icmp".into())
    );
}

#[test]
fn a_slow_link_shows_in_the_direction_that_is_slow() {
    let shown = Shown::up(Rig::new(), "virtualbox/host-only", "namespace");
    shown.sh("a", "tc qdisc add dev eth0 root tbf rate 50mbit burst 64kb latency 50ms");
    let pairs = shown.speed();
    assert_figures(&pairs);
    for pair in ["g2g", "g2h"] {
        let rate = rate(&pairs, pair);
        assert!(30e6 < rate && rate < 55e6, "{pair}: {rate}");
    }
    // Only what a sends is slow.
    assert!(rate(&pairs, "h2g") > 200e6, "{}", pairs["h2g"]);
}

#[test]
fn what_cannot_be_measured_is_said_and_not_made_up() {
    let shown = Shown::up(Rig::new(), "virtualbox/nat", "namespace");
    shown.sh(
        "a",
        "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; }'
         nft add rule inet t in tcp dport 5201 drop
         nft add rule inet t in icmp type echo-reply drop",
    );
    let pairs = shown.speed();
    let said = |pair: &str, field: &str| pairs[pair][field].as_str().unwrap().to_owned();
    for pair in ["h2g", "l2g"] {
        assert_eq!((&pairs[pair]["throughput"], &pairs[pair]["rtt"]), (&Value::Null, &Value::Null));
        assert!(said(pair, "throughput_reason").contains("timed out"), "{}", pairs[pair]);
        assert!(said(pair, "rtt_reason").contains("refused by somebody else"), "{}", pairs[pair]);
    }
    for pair in ["g2h", "g2l", "g2o"] {
        assert!(rate(&pairs, pair) > 1e6);
        assert_eq!(pairs[pair]["rtt"], Value::Null);
        assert!(said(pair, "rtt_reason").starts_with("no echo was answered"), "{}", pairs[pair]);
    }
}

/// Everything of a comparison that builds, measures or removes: process ids and command lines.
fn at_work(temporary: &Path) -> Vec<(String, String)> {
    let verbs = [" up ", " down ", " __measure ", " __speed "];
    let busy = |(_, command): &(String, String)| verbs.iter().any(|verb| command.contains(verb));
    steps(temporary).into_iter().filter(busy).collect()
}

#[test]
fn nothing_else_is_at_work_while_speed_is_measured() {
    let (rig, temporary) = ground();
    let page = rig.work.join("page.html");
    let constructs = ["virtualbox/internal", "hyper-v/private", "xcp-ng/private"];
    let mut words = vec!["-q", "compare", "--speed", "--json", "--html", page.to_str().unwrap()];
    words.extend(constructs);
    let ended = AtomicBool::new(false);
    let watch = || {
        let (mut seen, mut disturbed) = (0, Vec::new());
        while !ended.load(Ordering::Relaxed) {
            // Whoever is in both was there between them.
            let (one, other) = (at_work(&temporary), at_work(&temporary));
            let both = one.into_iter().filter(|step| other.contains(step)).map(|(_, command)| command);
            // A step that entered a sandbox is two processes.
            let both: BTreeSet<String> = both.collect();
            if both.iter().any(|command| command.contains(" __speed ")) {
                seen += 1;
                disturbed.extend((both.len() > 1).then_some(both));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        (seen, disturbed)
    };
    let (run, (seen, disturbed)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(watch);
        let run = rig.run(&words);
        ended.store(true, Ordering::Relaxed);
        (run, watcher.join().unwrap())
    });
    assert!(seen > constructs.len() && disturbed.is_empty(), "seen {seen} times, {disturbed:?}");
    let document = said(&run);
    assert_eq!(document["counts"]["differ"], 0);
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), constructs.len());
    for row in rows {
        let pairs = row["speed"].as_array().unwrap();
        assert_eq!((pairs.len(), &pairs[0]["pair"]), (1, &"g2g".into()));
        assert_figures(&BTreeMap::from([("g2g".to_owned(), pairs[0].clone())]));
    }
    let page = fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn an_interruption_while_speed_is_measured_leaves_nothing() {
    let (rig, temporary) = ground();
    let started = rig.start(&["compare", "--speed", "virtualbox/bridged"]);
    let measuring = || at_work(&temporary).iter().any(|(_, step)| step.contains(" __speed ")).then_some(());
    eventually("speed is measured", measuring, || steps(&temporary));
    signal("INT", &rig.pids_of("compare")[..1]);
    let ended = started.end();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn no_privilege_is_needed() {
    let rig = Rig::ordinary();
    let document = said(&rig.run(&["-q", "compare", "--speed", "virtualbox/nat", "--json"]));
    let pairs = document["rows"][0]["speed"].as_array().unwrap().clone();
    assert_eq!(pairs.len(), 5);
    let named = |pair: Value| (pair["pair"].as_str().unwrap().to_owned(), pair);
    assert_figures(&pairs.into_iter().map(named).collect());
    rig.assert_gone();
}

#[test]
fn speed_is_not_measured_unless_asked_for() {
    let (rig, temporary) = ground();
    let document = said(&rig.run(&["-q", "compare", "virtualbox/internal", "--json"]));
    assert_eq!(document["rows"][0]["speed"], Value::Array(Vec::new()));
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn a_host_without_iperf3_is_told_before_anything_is_built() {
    let (rig, temporary) = ground();
    // For this command alone it is no file.
    let script = "mount --bind /dev/null $(command -v iperf3) && exec \"$@\"";
    let rig = rig.through(&["unshare", "--mount", "sh", "-ec", script, "sh"]);
    rig.run(&["compare", "--speed", "virtualbox/internal"]).said(3, &["without `iperf3`", "netloom doctor"]);
    assert_nothing_left(&rig, &temporary);
}

/// Server and client inside VMs, through their agents.
#[test]
#[ignore = "slow"]
fn vms_links_count_what_is_measured() {
    let shown = Shown::up(Rig::new().with_images(), "hyper-v/internal", "vm");
    let before = shown.counted("a");
    let pairs = shown.speed();
    let after = shown.counted("a");
    assert_figures(&pairs);
    assert_counted(after[1] - before[1], bytes(&pairs, &["g2g", "g2h"]));
    assert_counted(after[0] - before[0], bytes(&pairs, &["h2g"]));
    for guest in ["a", "b"] {
        assert_eq!(shown.sh(guest, "pidof iperf3 || ls /tmp | grep iperf3 || true"), "", "in {guest}");
    }
}

/// And the labs are in a place with a name that no socket's path would fit in.
#[test]
#[ignore = "slow"]
fn both_kinds_of_guests_stand_beside_one_another() {
    let rig = Rig::new().with_images();
    let temporary = rig.work.join("t".repeat(150));
    fs::create_dir(&temporary).unwrap();
    let variable = format!("TMPDIR={}", temporary.display());
    let rig = rig.through(&["env", &variable]);
    let words = ["-q", "compare", "--speed", "--guests", "namespace,vm", "virtualbox/internal", "--json"];
    let document = said(&rig.run(&words));
    assert_eq!(document["guests"], "namespace,vm");
    let rows = document["rows"].as_array().unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row["guests"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["namespace", "vm"]);
    for row in rows {
        assert_figures(&BTreeMap::from([("g2g".to_owned(), row["speed"][0].clone())]));
    }
    rig.assert_gone();
}
