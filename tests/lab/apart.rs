//! Ports of one bridge that are kept apart, also from who tries to go round by the host.

use serde_json::Value;

use crate::rig::{Rig, topology};

fn ping(rig: &Rig, from: &str, to: &str) -> bool {
    rig.run(&["exec", from, "--", "ping", "-n", "-c", "1", "-W", "1", to]).code == 0
}

fn address(rig: &Rig, guest: &str) -> String {
    let seen: Value = serde_json::from_str(&rig.sh(guest, "ip -j -4 address show dev eth0")).unwrap();
    seen[0]["addr_info"][0]["local"].as_str().unwrap().to_owned()
}

/// What `topologies/private-vlan.yaml` expects, but with guests that send by the host what is for others.
#[test]
fn the_host_does_not_route_between_them() {
    let rig = Rig::new();
    rig.up(&topology("private-vlan.yaml"));
    let guest = |name: &str| format!("private-vlan/{name}");
    let addresses: Vec<(String, String)> = ["alone1", "alone2", "web1", "web2", "db1", "printer"]
        .iter()
        .map(|name| ((*name).to_owned(), address(&rig, &guest(name))))
        .collect();
    let of = |name: &str| &addresses.iter().find(|(other, _)| other == name).unwrap().1;
    rig.sh(&guest("host"), "sysctl -qw net.ipv4.conf.all.send_redirects=0");
    for (name, _) in &addresses {
        rig.sh(
            &guest(name),
            "ip route add 10.7.0.0/25 via 10.7.0.1; ip route add 10.7.0.128/25 via 10.7.0.1",
        );
    }
    for (from, to) in [("alone1", "alone2"), ("web1", "db1"), ("web1", "alone1"), ("alone1", "web1")] {
        assert!(!ping(&rig, &guest(from), of(to)), "{from} reaches {to}");
    }
    assert!(ping(&rig, &guest("alone1"), "10.7.0.1"), "the host itself answers");
    // That it is the table which keeps the host from routing, and nothing else.
    rig.sh(&guest("host"), "nft flush chain bridge netloom_private_vlan input");
    assert!(ping(&rig, &guest("alone1"), of("alone2")), "by way of the host");
    rig.ok(&["down", "private-vlan"]);
    rig.assert_gone();
}

/// A guest changes sides in a running lab: its port stays, and who hears it is somebody else.
#[test]
fn a_port_changes_its_community() {
    let rig = Rig::new();
    let text = std::fs::read_to_string(topology("private-vlan.yaml")).unwrap();
    rig.up(&rig.file("lab.yaml", &text));
    let (db, web) = (address(&rig, "private-vlan/db1"), address(&rig, "private-vlan/web1"));
    let reaches = || {
        let from = |name: &str| ping(&rig, &format!("private-vlan/{name}"), &db);
        (from("web1"), from("alone1"), ping(&rig, "private-vlan/db1", &web))
    };
    assert_eq!(reaches(), (false, false, false));
    let file = rig.file("lab.yaml", &text.replace("pvlan: db }", "pvlan: web }"));
    assert_eq!(rig.up(&file), ["update ruleset host.bridge"]);
    assert_eq!(reaches(), (true, false, true));
    let file = rig.file("lab.yaml", &text.replace("pvlan: db }", "pvlan: isolated }"));
    assert_eq!(rig.up(&file), ["update ruleset host.bridge", "update veth db1/eth0"]);
    assert_eq!(reaches(), (false, false, false));
    rig.ok(&["down", "private-vlan"]);
    rig.assert_gone();
}
