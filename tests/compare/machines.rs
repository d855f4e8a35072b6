//! Every construct with VMs as guests. Namespaces and VMs must agree cell by cell: what a mode is does not depend on what
//! its guests are.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::rig::{Ended, Rig};

/// Measured words by row and column, of the rows that were measured.
fn cells(document: &Value) -> BTreeMap<(String, String), String> {
    let rows = document["rows"].as_array().unwrap().iter();
    let measured = rows.filter(|row| row["outcome"]["kind"] == "measured");
    measured
        .flat_map(|row| {
            let name = format!("{} · {}", row["construct"].as_str().unwrap(), row["state"]);
            row["cells"].as_array().unwrap().iter().map(move |cell| {
                let word = |key: &str| cell[key].as_str().unwrap().to_owned();
                ((name.clone(), word("property")), word("measured"))
            })
        })
        .collect()
}

/// The rows that this kernel cannot build, for want of VLANs; every other one is measured, and as promised.
#[track_caller]
fn lacking(document: &Value) -> Vec<String> {
    let mut lacking = Vec::new();
    let mut odd = Vec::new();
    for row in document["rows"].as_array().unwrap() {
        let name = format!("{} · {}", row["construct"].as_str().unwrap(), row["state"]);
        if row["outcome"]["reason"] == "needs VLANs: not measured on this kernel" {
            lacking.push(name);
            continue;
        }
        if row["outcome"]["kind"] != "measured" {
            odd.push(format!("{name}: {}", row["outcome"]));
        }
        for cell in row["cells"].as_array().unwrap().iter().filter(|cell| cell["agreement"] != "equal") {
            let (what, why) = (&cell["property"], &cell["why"]);
            odd.push(format!("{name}: {what} {} {} {why}", cell["promised"], cell["measured"]));
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    lacking
}

/// A comparison with VMs, for which the rig's usual limit is too short: under emulation this is minutes of all processors.
fn patiently(rig: &Rig, words: &[&str]) -> Ended {
    let all = [&[env!("CARGO_BIN_EXE_netloom"), "compare", "--json"], words].concat();
    Ended::from(rig.patient(1800, &all).output().unwrap())
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
