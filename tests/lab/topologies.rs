//! Every file of `topologies/` through a whole life: up, measured, up again without a change, down without a trace.

use std::collections::BTreeSet;
use std::fs;

use crate::rig::{Rig, differing, identities, repository, topology};

macro_rules! whole_lives {
    ($($(#[$attribute:meta])* $name:ident $file:literal)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] $(#[$attribute])* fn $name() { whole_life($file) })*
    };
}

whole_lives! {
    bridged "bridged.yaml"
    dual_wan "dual-wan.yaml"
    host_only "host-only.yaml"
    ipv6_only "ipv6-only.yaml"
    mix_cloud "mix-cloud.yaml"
    mix_hyper_v "mix-hyper-v.yaml"
    mix_libvirt "mix-libvirt.yaml"
    mix_port_group "mix-port-group.yaml"
    mix_proxmox "mix-proxmox.yaml"
    mix_vagrant "mix-vagrant.yaml"
    mixed "mixed.yaml"
    private_vlan "private-vlan.yaml"
    routed "routed.yaml"
    two_guests_nat "two-guests-nat.yaml"
    #[ignore = "full-kernel"] hci_firewall "hci-firewall.yaml"
    #[ignore = "full-kernel"] vlan_campus "vlan-campus.yaml"
}

fn whole_life(file: &str) {
    let rig = Rig::new();
    let path = topology(file);
    let lab = file.trim_end_matches(".yaml");
    assert!(!rig.up(&path).is_empty());
    let before = identities(&rig, lab);
    assert!(before.keys().any(|name| name.starts_with("namespace ")), "{before:?}");

    let measured = rig.json(&["test", "--json", lab]);
    let measurements = measured["measurements"].as_array().unwrap();
    let expected = fs::read_to_string(&path).unwrap().lines().filter(|l| l.contains("verdict:")).count();
    assert!(measurements.len() >= expected, "{expected} expectations: {measured}");
    for one in measurements {
        assert!(one["ok"] == true && one["verdict"] == one["expected"], "{one}");
    }

    assert_eq!(rig.up(&path), Vec::<String>::new(), "the second `up` of {file}");
    assert_eq!(differing(&before, &identities(&rig, lab)), Vec::<String>::new());
    rig.ok(&["plan", "--check", "--guests", "namespace", &path]);
    rig.ok(&["plan", "--check", lab]);
    // The kind of guest that a lab was brought up with holds until the command line says otherwise.
    rig.ok(&["plan", "--check", &path]);

    rig.ok(&["down", lab]);
    rig.assert_gone();
}

#[test]
fn each_has_its_test() {
    let here: BTreeSet<String> = fs::read_dir(repository().join("topologies"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let tested = FILES.iter().map(ToString::to_string).collect();
    assert_eq!(here, tested);
}
