//! Comparisons as people run them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::machines::odd;
use crate::rig::{Ended, Rig, eventually, signal};

/// A rig whose temporary files have a place of their own.
pub(crate) fn ground() -> (Rig, PathBuf) {
    let rig = Rig::new();
    let temporary = rig.work.join("tmp");
    fs::create_dir(&temporary).unwrap();
    let variable = format!("TMPDIR={}", temporary.display());
    (rig.through(&["env", &variable]), temporary)
}

/// Processes of the steps of a comparison, whose labs are below its temporary directory: ids and command lines.
pub(crate) fn steps(temporary: &Path) -> Vec<(String, String)> {
    let state = format!("NETLOOM_STATE_DIR={}/", temporary.display());
    let read = |process: &Path, file: &str| {
        let bytes = fs::read(process.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|process| read(process, "environ").contains(&state))
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), read(&p, "cmdline")))
        .collect()
}

#[track_caller]
pub(crate) fn assert_nothing_left(rig: &Rig, temporary: &Path) {
    rig.assert_gone();
    eventually("no step is left", || steps(temporary).is_empty().then_some(()), || steps(temporary));
    let left: Vec<_> = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The rows of a comparison as a table: `NAME` to the measured words.
fn table(document: &Value, columns: &[&str]) -> BTreeMap<String, String> {
    let rows = document["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let cell = |column: &&str| {
            let cells = row["cells"].as_array().unwrap();
            let found = cells.iter().find(|cell| cell["property"] == **column);
            found.map_or("-", |cell| cell["measured"].as_str().unwrap()).to_owned()
        };
        let words: Vec<String> = columns.iter().map(cell).collect();
        (row["construct"].as_str().unwrap().to_owned(), words.join(" "))
    })
    .collect()
}

pub(crate) fn said(ended: &Ended) -> Value {
    let document = serde_json::from_str(&ended.stdout);
    let odd: Vec<String> = document.iter().flat_map(odd).collect();
    assert_eq!(ended.code, 0, "{}{}", ended.stderr, odd.join("\n"));
    ended.json()
}

/// "Overview of networking modes", in the manual's order of modes; its columns here are guest to host, host to guest,
/// guest to guest, guest to LAN, LAN to guest. A plus is `pass`, a minus `block`, "port forward" `forward`.
const VIRTUALBOX: [(&str, &str); 5] = [
    ("virtualbox/host-only", "pass pass pass block block"),
    ("virtualbox/internal", "block block pass block block"),
    ("virtualbox/bridged", "pass pass pass pass pass"),
    ("virtualbox/nat", "pass forward block pass forward"),
    ("virtualbox/nat-network", "pass forward pass pass forward"),
];

#[test]
fn virtualboxs_table_comes_out_and_nothing_is_left() {
    let (rig, temporary) = ground();
    let page = rig.work.join("page.html");
    let ended = rig.run(&["-q", "compare", "virtualbox", "--json", "--html", page.to_str().unwrap()]);
    let document = said(&ended);
    let expected: BTreeMap<String, String> =
        VIRTUALBOX.iter().map(|(name, words)| ((*name).to_owned(), (*words).to_owned())).collect();
    assert_eq!(table(&document, &["g2h", "h2g", "g2g", "g2l", "l2g"]), expected);
    assert_eq!(document["counts"]["differ"], 0);

    // What is blocked has a control, whatever the cell says.
    let cells = document["rows"].as_array().unwrap().iter().flat_map(|row| row["cells"].as_array().unwrap());
    let mut blocked = 0;
    for probe in cells.flat_map(|cell| cell["probes"].as_array().unwrap()) {
        if probe["verdict"] == "blocked" {
            blocked += 1;
            assert!(probe["control"].is_string(), "{probe}");
        }
    }
    assert!(blocked > 50, "{blocked}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("virtualbox/nat-network: LAN → guest"), "{}", page.len());
    assert_nothing_left(&rig, &temporary);
}

/// A step that came to nothing is done once more, and what it came to the first time is not hidden.
#[test]
fn a_row_that_failed_is_looked_at_again() {
    let (rig, temporary) = ground();
    let started = rig.start(&["-q", "compare", "virtualbox/internal", "--json"]);
    let first = || steps(&temporary).into_iter().find(|(_, step)| step.contains(" __measure "));
    let (pid, _) = eventually("it is measured", first, || steps(&temporary));
    signal("KILL", &[pid]);
    let document = said(&started.end());
    assert_eq!(document["rows"][0]["first_look"], "`__measure` was killed");
    assert_eq!(document["counts"]["cells"], 7);
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn an_interrupted_comparison_leaves_nothing() {
    let (rig, temporary) = ground();
    let started = rig.start(&["compare", "libvirt"]);
    // While some labs come up, some are measured and some go.
    let measuring = || steps(&temporary).iter().any(|(_, step)| step.contains(" __measure ")).then_some(());
    eventually("something is measured", measuring, || steps(&temporary));
    signal("INT", &rig.pids_of("compare")[..1]);
    let ended = started.end();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn no_privilege_is_needed() {
    let rig = Rig::ordinary();
    let ended = rig.run(&["-q", "compare", "virtualbox/nat", "virtualbox/bridged", "--json"]);
    assert_eq!(said(&ended)["counts"]["differ"], 0);
    rig.assert_gone();
}

#[test]
fn rows_keep_the_order_of_the_constructs() {
    let (rig, temporary) = ground();
    let ended = rig.run(&[
        "-q",
        "compare",
        "hyper-v/private",
        "vmware",
        "virtualbox/bridged",
        "--jobs",
        "6",
        "--json",
    ]);
    let document = said(&ended);
    let rows: Vec<&str> =
        document["rows"].as_array().unwrap().iter().map(|row| row["construct"].as_str().unwrap()).collect();
    assert_eq!(
        rows,
        [
            "virtualbox/bridged",
            "vmware/bridged",
            "vmware/nat",
            "vmware/host-only",
            "vmware/lan-segment",
            "hyper-v/private"
        ]
    );
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn a_name_that_is_no_construct_is_refused() {
    let (rig, temporary) = ground();
    rig.run(&["compare", "virtualbox/host_only"])
        .said(2, &["no construct", "did you mean `virtualbox/host-only`?"]);
    rig.run(&["compare", "beos"]).said(2, &["no construct or system `beos`", "virtualbox"]);
    assert_nothing_left(&rig, &temporary);
}

#[test]
fn only_a_lab_in_a_sandbox_that_shows_a_construct_is_measured() {
    let rig = Rig::new();
    rig.run(&["__measure", "nowhere"]).said(2, &["there is no lab `nowhere`"]);
    rig.run(&["__measure"]).said(2, &["missing"]);
}

/// The whole of it, as it is judged: every construct, nothing different.
#[test]
#[ignore = "slow"]
fn every_construct_keeps_its_contract() {
    let (rig, temporary) = ground();
    let ended = rig.run(&["compare", "--json"]);
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    let document = ended.json();
    let counts = &document["counts"];
    for (name, number) in [("constructs", 49), ("differ", 0), ("unknown", 0), ("failed", 0)] {
        assert_eq!(counts[name], number, "{name}: {}", ended.stderr);
    }
    assert_nothing_left(&rig, &temporary);
}
