//! Guests that are VMs, and users without privilege.

use std::fs;

use netloom::resource::names;
use serde_json::Value;

use crate::rig::{Rig, differing, identities, repository, topology};

/// QEMUs of a rig, as their command lines.
fn emulators(rig: &Rig) -> Vec<String> {
    rig.processes().into_iter().filter(|process| process.contains("qemu-system")).collect()
}

#[track_caller]
fn up(rig: &Rig, file: &str) -> Value {
    rig.json(&["up", "--json", "--sandbox", "--timeout", "300", file])
}

/// Measures a lab; everything must be as expected.
#[track_caller]
fn all_as_expected(rig: &Rig, lab: &str) {
    let measured = rig.json(&["test", "--json", lab]);
    for one in measured["measurements"].as_array().unwrap() {
        assert!(one["ok"] == true && one["verdict"] == one["expected"], "{one}");
    }
}

/// Name of the tap of a guest's NIC, by its alias.
fn tap(rig: &Rig, lab: &str, nic: &str) -> String {
    let text = rig.sh(&format!("{lab}/host"), "ip -j link");
    let links: Value = serde_json::from_str(&text).unwrap();
    let alias = format!("netloom:{lab}:tap:{nic}");
    let link = links.as_array().unwrap().iter().find(|link| link["ifalias"] == *alias).expect("a tap");
    link["ifname"].as_str().unwrap().to_owned()
}

/// The file, with another user's mark of a mixed lab: one VM, two namespaces.
fn a_vm_among_namespaces(rig: &Rig) {
    let file = topology("mixed.yaml");
    let made = up(rig, &file);
    let kinds: Vec<&str> =
        made["guests"].as_array().unwrap().iter().map(|g| g["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["vm", "namespace", "namespace"]);
    let running = emulators(rig);
    assert_eq!(running.len(), 1, "{running:?}");
    // The file's NICs in their order, each on a tap that is a port of its network's bridge.
    let master = |nic: &str| {
        let text = rig.sh("mixed/host", &format!("ip -j link show dev {}", tap(rig, "mixed", nic)));
        serde_json::from_str::<Value>(&text).unwrap()[0]["master"].as_str().unwrap().to_owned()
    };
    assert_eq!(master("app/eth0"), names::link("mixed", "bridge", "lan"));
    assert_eq!(master("app/eth1"), names::link("mixed", "bridge", "backend"));

    let inside = rig.ok(&["exec", "mixed/app", "--", "ip", "address"]);
    assert!(inside.contains("10.82.0.10/24") && inside.contains("10.82.1.10/24"), "{inside}");
    assert_eq!(rig.run(&["exec", "mixed/app", "--", "sh", "-c", "exit 9"]).code, 9);
    let console = fs::read_to_string(rig.state.join("labs/mixed/guests/app/console.log")).unwrap();
    assert!(console.contains("Linux version") || console.lines().count() > 3, "{console}");
    let status = rig.json(&["status", "--json", "mixed"]);
    let app = status["guests"].as_array().unwrap().iter().find(|g| g["name"] == "app").unwrap();
    assert!(app["running"] == true && app["console"].is_string(), "{status}");

    all_as_expected(rig, "mixed");
    let before = identities(rig, "mixed");
    assert!(before.keys().any(|name| name.starts_with("process qemu/")), "{before:?}");
    assert_eq!(up(rig, &file)["changes"].as_array().unwrap().len(), 0);
    assert_eq!(differing(&before, &identities(rig, "mixed")), Vec::<String>::new());
    rig.ok(&["down", "mixed"]);
    rig.assert_gone();
}

#[test]
#[ignore = "slow"]
fn mixed() {
    a_vm_among_namespaces(&Rig::new().with_images());
}

#[test]
#[ignore = "slow"]
fn mixed_without_privilege() {
    a_vm_among_namespaces(&Rig::ordinary().with_tun().with_images());
}

#[test]
fn namespaces_without_privilege() {
    let rig = Rig::ordinary();
    let file = topology_for(&rig, "routed.yaml");
    assert!(!rig.up(&file).is_empty());
    all_as_expected(&rig, "routed");
    assert_eq!(rig.up(&file), Vec::<String>::new());
    rig.ok(&["down", "routed"]);
    rig.assert_gone();
}

/// The repository may be closed to others.
fn topology_for(rig: &Rig, name: &str) -> String {
    rig.file(name, &fs::read_to_string(repository().join("topologies").join(name)).unwrap())
}

#[test]
#[ignore = "slow"]
fn two_vms_and_their_drift() {
    let rig = Rig::new().with_images();
    let file = topology("two-guests-nat.yaml");
    up(&rig, &file);
    all_as_expected(&rig, "two-guests-nat");
    // One dies: it is seen, and `up` starts it, and only it.
    let dead: Vec<String> =
        emulators(&rig).into_iter().filter(|q| q.contains("two-guests-nat-bob")).collect();
    let [dead] = dead.as_slice() else { panic!("{:?}", emulators(&rig)) };
    let (pid, _) = dead.split_once(' ').unwrap();
    crate::rig::signal("KILL", &[pid.to_owned()]);
    crate::rig::eventually(
        "its end is seen",
        || (emulators(&rig).len() == 1).then_some(()),
        || emulators(&rig),
    );
    let before = emulators(&rig);
    let status = rig.json(&["status", "--json", "two-guests-nat"]);
    let drift = crate::rig::changes(&status["drift"]);
    assert!(drift == ["create domain bob"] || drift == ["replace domain bob"], "{drift:?}");
    assert_eq!(crate::rig::changes(&up(&rig, &file)["changes"]), drift);
    assert!(emulators(&rig).contains(&before[0]), "alice was started anew");
    all_as_expected(&rig, "two-guests-nat");
    rig.ok(&["down", "two-guests-nat"]);
    rig.assert_gone();
}

/// The main job: a firewall VM on a trunk between VMs in two VLANs. What it does is measured by netloom; what travels on
/// the ports is judged by tcpdump.
#[test]
#[ignore = "full-kernel"]
fn the_firewall_vm_and_its_trunk() {
    let rig = Rig::new().with_images();
    up(&rig, &topology("hci-firewall.yaml"));
    all_as_expected(&rig, "hci-firewall");
    let names = [("trunk", "fw/eth1"), ("web", "web/eth0"), ("pc", "pc/eth0")];
    for (name, nic) in names {
        let link = tap(&rig, "hci-firewall", nic);
        let file = rig.work.join(name).display().to_string();
        rig.sh(
            "hci-firewall/host",
            &format!("tcpdump -Z root --immediate-mode -U -lne -i {link} >{file} 2>{file}.errors & until grep -q listening {file}.errors; do sleep 0.1; done"),
        );
    }
    rig.ok(&["exec", "hci-firewall/pc", "--", "ping", "-c", "3", "-w", "10", "10.10.20.10"]);
    let seen = |name: &str| fs::read_to_string(rig.work.join(name)).unwrap();
    let echo = |text: &str| text.lines().filter(|l| l.contains("ICMP echo")).count();
    crate::rig::eventually("the frames", || (echo(&seen("trunk")) >= 12).then_some(()), || seen("trunk"));
    // Through the firewall and back, so each packet passes the trunk twice, each time with its VLAN's tag.
    for vid in [10, 20] {
        let tag = format!("vlan {vid},");
        let tagged = seen("trunk").lines().filter(|l| l.contains(&tag) && l.contains("ICMP echo")).count();
        assert!(tagged >= 6, "VLAN {vid}: {}", seen("trunk"));
    }
    let strange: Vec<String> = seen("trunk")
        .lines()
        .filter(|line| !line.contains("vlan 10,") && !line.contains("vlan 20,"))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(strange, Vec::<String>::new(), "untagged or of another VLAN, on the trunk");
    for name in ["web", "pc"] {
        assert!(echo(&seen(name)) >= 6, "{name}: {}", seen(name));
        assert!(!seen(name).contains("vlan "), "tagged, on an access port: {}", seen(name));
    }
    rig.ok(&["down", "hci-firewall"]);
    rig.assert_gone();
}

/// VMs on a link of the host without a bridge: each QEMU has the device of its own macvtap open, and nothing of it stays.
#[test]
#[ignore = "slow"]
fn a_vm_sits_on_the_uplink_itself() {
    let rig = Rig::new().with_images();
    let text = |mode: &str, rest: &str| {
        format!(
            "lab: direct\nnetworks:\n  net: {{ mode: {mode}, uplink: eth0 }}\nguests:\n  a: {{ nics: [{{ network: net }}], \
             serve: [tcp/80] }}\n{rest}expect:\n  - {{ from: a, to: lan, service: icmp, verdict: reachable }}\n  - {{ from: host, to: a, service: icmp, verdict: blocked }}\n"
        )
    };
    let b = "  b: { kind: namespace, nics: [{ network: net }] }\n";
    let file = rig.file("direct.yaml", &text("libvirt/macvtap-bridge", ""));
    up(&rig, &file);
    let find = |links: &Value| {
        let links = links.as_array().unwrap().iter();
        links
            .into_iter()
            .find(|link| link["ifalias"] == "netloom:direct:macvlan:a/eth0")
            .cloned()
            .expect("a macvtap")
    };
    let links = || serde_json::from_str::<Value>(&rig.sh("direct/host", "ip -d -j link")).unwrap();
    let link = find(&links());
    assert_eq!((&link["linkinfo"]["info_kind"], &link["link"]), (&"macvtap".into(), &"eth0".into()));
    assert_eq!(link["linkinfo"]["info_data"]["mode"], "bridge");
    let inside = rig.ok(&["exec", "direct/a", "--", "cat", "/sys/class/net/eth0/address"]);
    assert_eq!(link["address"], inside.trim());
    let device = format!("/dev/tap{}", link["ifindex"]);
    let script = "for p in /proc/[0-9]*; do grep -q qemu-system $p/comm && readlink $p/fd/*; done; true";
    let open = |device: &str| rig.sh("direct/host", script).lines().filter(|line| *line == device).count();
    assert_eq!(open(&device), 1);
    all_as_expected(&rig, "direct");

    // Another guest leaves it alone; so does another mode, which is a change in place.
    let before = identities(&rig, "direct");
    let file = rig.file("direct.yaml", &text("libvirt/macvtap-private", b));
    let made = up(&rig, &file);
    let changes: Vec<String> =
        made["changes"].as_array().unwrap().iter().map(|c| c["kind"].to_string()).collect();
    assert!(!changes.contains(&"\"domain\"".to_owned()), "{changes:?}");
    assert_eq!(find(&links())["linkinfo"]["info_data"]["mode"], "private");
    let gone = |name: &String| !identities(&rig, "direct").contains_key(name);
    assert_eq!(before.keys().filter(|name| gone(name)).count(), 0);
    // Somebody removes the link: the machine on it is made anew with it.
    rig.sh("direct/host", &format!("ip link del {}", link["ifname"].as_str().unwrap()));
    up(&rig, &file);
    assert_ne!(find(&links())["ifindex"], link["ifindex"]);
    assert!(!std::path::Path::new(&device).exists());
    assert_eq!(open(&format!("/dev/tap{}", find(&links())["ifindex"])), 1);
    all_as_expected(&rig, "direct");
    rig.ok(&["down", "direct"]);
    rig.assert_gone();
}

/// The kernel gives a macvtap's device to root alone: said before anything is started, and nothing stays.
#[test]
fn an_ordinary_users_vm_cannot_sit_on_the_uplink() {
    let rig = Rig::ordinary().with_images();
    let text = "lab: direct\nnetworks:\n  net: { mode: macvtap, uplink: eth0 }\nguests:\n  a: { nics: [{ network: net }] }\n";
    rig.run(&["up", "--sandbox", &rig.file("direct.yaml", text)])
        .said(3, &["may not open /dev/tap", "need root", "--guests namespace"]);
    rig.assert_gone();
}
