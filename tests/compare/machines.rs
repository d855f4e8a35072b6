//! Every construct with VMs as guests. Namespaces and VMs must agree cell by cell: what a mode is does not depend on what
//! its guests are.

use std::collections::BTreeMap;

use netloom::compare::cases;
use serde_json::{Value, json};

use crate::rig::{Ended, Rig};

const WITHOUT_VLANS: &str = "needs VLANs: not measured on this kernel";

fn name(row: &Value) -> String {
    format!("{} · {}", row["construct"].as_str().unwrap(), row["state"])
}

/// What is not as promised in a comparison, in lines that a person can read; rows that need VLANs aside.
pub(crate) fn odd(document: &Value) -> Vec<String> {
    let mut odd = Vec::new();
    let rows = document["rows"].as_array().unwrap().iter();
    for row in rows.filter(|row| row["outcome"]["reason"] != WITHOUT_VLANS) {
        if row["outcome"]["kind"] != "measured" {
            odd.push(format!("{}: {}", name(row), row["outcome"]));
        }
        let first = row["first_look"].as_str().unwrap_or("-");
        for cell in row["cells"].as_array().unwrap().iter().filter(|cell| cell["agreement"] != "equal") {
            let (what, why) = (&cell["property"], &cell["why"]);
            let words = format!("{} {}", cell["promised"], cell["measured"]);
            odd.push(format!("{}: {what} {words} {why}; first look: {first}", name(row)));
        }
    }
    odd
}

/// Measured words by row and column, of the rows that were measured.
fn cells(document: &Value) -> BTreeMap<(String, String), String> {
    let rows = document["rows"].as_array().unwrap().iter();
    let measured = rows.filter(|row| row["outcome"]["kind"] == "measured");
    measured
        .flat_map(|row| {
            row["cells"].as_array().unwrap().iter().map(move |cell| {
                let word = |key: &str| cell[key].as_str().unwrap().to_owned();
                ((name(row), word("property")), word("measured"))
            })
        })
        .collect()
}

/// The rows that this kernel cannot build, for want of VLANs; every other one is measured, and as promised.
#[track_caller]
fn lacking(document: &Value) -> Vec<String> {
    let odd = odd(document);
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    let rows = document["rows"].as_array().unwrap().iter();
    rows.filter(|row| row["outcome"]["reason"] == WITHOUT_VLANS).map(name).collect()
}

/// A comparison with VMs, for which the rig's usual limit is too short: under emulation this is minutes of all processors.
fn patiently(rig: &Rig, words: &[&str]) -> Ended {
    let all = [&[env!("CARGO_BIN_EXE_netloom"), "compare", "--json"], words].concat();
    Ended::from(rig.patient(2700, &all).output().unwrap())
}

/// Builds the lab of a case with VMs and measures it there; what is not as promised is looked at twice, as `compare` does.
#[track_caller]
fn keeps_its_contract_with_vms(construct: &str, index: usize) {
    let rig = Rig::new().with_images();
    let case = cases::find(construct, index).unwrap();
    let run = |words: &[&str]| {
        let all = [&[env!("CARGO_BIN_EXE_netloom")], words].concat();
        let ended = Ended::from(rig.patient(500, &all).output().unwrap());
        assert_eq!(ended.code, 0, "{construct}: netloom {words:?}: {ended:?}");
        ended
    };
    let file = rig.file("lab.yaml", &case.example());
    run(&["--quiet", "up", "--sandbox", "--guests", "vm", "--timeout", "400", &file]);
    let (lab, index) = (case.lab(), index.to_string());
    let mut odd = Vec::new();
    for words in [&["__measure", &lab, &index][..], &["__measure", &lab, &index, "again"]] {
        let row = run(words).json();
        assert_eq!(row["cells"].as_array().unwrap().len(), 7, "{row}");
        odd = self::odd(&json!({ "rows": [row] }));
        if odd.is_empty() {
            break;
        }
        eprintln!("{odd:?}; once more");
    }
    run(&["--quiet", "down", &lab]);
    rig.assert_gone();
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}

// The constructs that are about VLANs, each in a state with tags, on an emulated KVM: with the test below these are all.

#[test]
#[ignore = "full-kernel"]
fn a_port_group_of_esxi_with_vms() {
    keeps_its_contract_with_vms("esxi/port-group", 1);
}

#[test]
#[ignore = "full-kernel"]
fn a_trunk_port_group_of_esxi_with_vms() {
    keeps_its_contract_with_vms("esxi/port-group-trunk", 0);
}

#[test]
#[ignore = "full-kernel"]
fn a_vlan_aware_bridge_of_proxmox_with_vms() {
    keeps_its_contract_with_vms("proxmox/vlan-aware", 1);
}

#[test]
#[ignore = "full-kernel"]
fn a_qinq_zone_of_proxmox_with_vms() {
    keeps_its_contract_with_vms("proxmox/sdn-qinq", 0);
}

#[test]
#[ignore = "full-kernel"]
fn a_vlan_of_harvester_with_vms() {
    keeps_its_contract_with_vms("harvester/vlan", 0);
}

#[test]
#[ignore = "slow"]
fn every_construct_keeps_its_contract_with_vms() {
    let rig = Rig::new().with_images();
    let machines = patiently(&rig, &["--guests", "vm"]);
    let namespaces = patiently(&rig, &["--guests", "namespace"]);
    for ended in [&machines, &namespaces] {
        assert!([0, 3].contains(&ended.code), "{}{}", ended.stderr, ended.stdout);
        assert_eq!(ended.json()["counts"]["constructs"], 49);
    }
    let (machines, namespaces) = (machines.json(), namespaces.json());
    assert_eq!(lacking(&machines), lacking(&namespaces));
    let measured = cells(&machines);
    assert!(measured.len() > 300, "{}", measured.len());
    assert_eq!(measured, cells(&namespaces));
    rig.assert_gone();
}
