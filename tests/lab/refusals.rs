//! What cannot be done is said with its exit code, the object and the mend, and leaves everything as it was.

use netloom::resource::names;

use crate::host::PlayedHost;
use crate::rig::{Rig, changes, eventually, repository, signal, topology};

const LAB: &str = "
lab: refused
networks:
  lan: { mode: nat, subnet: 10.74.0.0/24 }
guests:
  a: { nics: [{ network: lan, address: 10.74.0.10/24 }], serve: [tcp/80] }
";

/// `side` is the played host's LAN, where nobody serves DHCP, and a guest on it wants a lease.
const NO_LEASE: &str = "
lab: waiting
networks:
  lan: { mode: nat, subnet: 10.75.0.0/24 }
  side: { mode: bridged, uplink: up0 }
guests:
  a: { nics: [{ network: lan, address: 10.75.0.10/24 }], serve: [tcp/80] }
  b: { nics: [{ network: side }] }
";

#[test]
fn what_is_not_netlooms_is_left_alone() {
    let host = PlayedHost::new();
    let file = host.file("refused.yaml", LAB);
    for (kind, name) in [("bridge", "lan"), ("veth", "a/eth0")] {
        let link = names::link("refused", kind, name);
        host.shell(&format!("ip link add {link} type bridge && ip address add 10.200.0.1/24 dev {link}"));
        let before = host.look();
        host.up(&file)
            .said(3, &[&format!("`{link}` exists and is not netloom's"), &format!("{kind} {name}"), "Hint:"]);
        host.assert_same(&before, "nothing was touched");
        host.ok(&["down", "refused"]);
        host.assert_same(&before, "nor by `down`");
        host.shell(&format!("ip link del {link}"));
    }
    host.up(&file).said(0, &[]);
    host.ok(&["down", "refused"]);
    host.assert_gone();
}

#[test]
fn a_guest_that_does_not_become_ready() {
    let host = PlayedHost::new();
    let file = host.file("waiting.yaml", NO_LEASE);
    let before = host.look();
    let up = ["up", "--guests", "namespace", "--timeout", "2"];
    host.run(&[&up[..], &[&file]].concat()).said(4, &["`b`", "no DHCP lease on side", "--keep"]);
    host.assert_same(&before, "all was rolled back");
    host.assert_gone();
    host.run(&[&up[..], &["--keep", &file]].concat()).said(4, &["`b`"]);
    let seen = host.shell("ip netns list");
    assert!(seen.contains("netloom.waiting.b"), "{seen}");
    host.shell("ping -c 1 -w 3 10.75.0.10");
    host.ok(&["down", "waiting"]);
    host.assert_same(&before, "`down` removes what was kept");
    host.assert_gone();
}

/// A change that fails takes back only itself: the lab stays what it was.
#[test]
fn a_failed_change_leaves_the_lab_as_it_was() {
    let host = PlayedHost::new();
    let text = NO_LEASE.replace("{ network: side }] }", "{ network: side, address: 192.0.2.5/24 }] }");
    let file = host.file("waiting.yaml", &text);
    host.up(&file).said(0, &[]);
    host.settle();
    let before = host.look();
    let more = "  c: { nics: [{ network: lan, address: 10.75.0.11/24 }, { network: side }] }\n";
    let file = host.file("waiting.yaml", &format!("{}{more}", text.replace("tcp/80]", "tcp/81]")));
    host.run(&["up", "--guests", "namespace", "--timeout", "2", &file]).said(4, &["`c`"]);
    host.assert_same(&before, "the lab is as it was");
    let sockets = host.sh("waiting/a", "ss -Hltn");
    assert!(sockets.contains(":80 ") && !sockets.contains(":81 "), "{sockets}");
    host.ok(&["plan", "--check", "waiting"]);
}

#[test]
fn an_interrupt_rolls_back() {
    let host = PlayedHost::new();
    let file = host.file("waiting.yaml", NO_LEASE);
    let before = host.look();
    // While things are made, and while guests are waited for.
    for (lines, with) in [(2, "INT"), (6, "HUP"), (10, "TERM"), (14, "INT")] {
        let mut up = host.start(&["up", "--guests", "namespace", "--timeout", "60", &file]);
        assert!(up.lines(lines));
        signal(with, &host.running("up"));
        up.end().said(130, &["interrupted", "rolling back"]);
        host.assert_same(&before, &format!("all was rolled back after {lines} lines"));
        host.assert_gone();
    }
}

#[test]
fn an_interrupt_ends_a_sandbox() {
    let rig = Rig::new();
    let file = rig.file("refused.yaml", LAB);
    let mut interrupted = 0;
    for lines in 1..=6 {
        let mut up = rig.start(&["up", "--sandbox", "--guests", "namespace", &file]);
        assert!(up.lines(lines));
        signal("INT", &[up.pid().to_string()]); // `timeout`, which hands it on
        let ended = up.end();
        match ended.code {
            130 => interrupted += 1,
            // It was done before the signal came.
            0 => drop(rig.ok(&["down", "refused"])),
            _ => panic!("after {lines} lines: {ended:?}"),
        }
        rig.assert_gone();
    }
    assert!(interrupted > 0, "the signal never came in time");
}

/// On a kernel with VLANs the same lab comes up; what is judged is that netloom knows which it is.
#[test]
fn vlans_need_a_kernel_with_vlans() {
    let has =
        std::process::Command::new(repository().join("scripts/has-vlans.sh")).status().unwrap().success();
    let host = PlayedHost::new();
    let before = host.look();
    let text = "
lab: tagged
networks: { core: { mode: internal, vlans: { red: 10 } } }
guests:
  a: { nics: [{ network: core, vlan: red, address: 10.76.0.1/24 }] }
";
    let ended = host.up(&host.file("tagged.yaml", text));
    if has {
        ended.said(0, &[]);
        host.ok(&["down", "tagged"]);
    } else {
        ended.said(3, &["VLAN", "Hint:"]);
    }
    host.assert_same(&before, "nothing is left");
    host.assert_gone();
}

#[test]
fn one_up_at_a_time() {
    let host = PlayedHost::new();
    let file = host.file("refused.yaml", LAB);
    let mut first = host.start(&["up", "--guests", "namespace", &file]);
    assert!(first.lines(3));
    let pids = host.running("up");
    signal("STOP", &pids);
    host.up(&file).said(4, &["lab `refused` is held by another netloom, process", "Hint:"]);
    host.run(&["down", "refused"]).said(4, &["is held by another netloom"]);
    // `nsenter` stops with its child and has to be told, too.
    let all: Vec<String> =
        host.processes().iter().filter_map(|p| p.split(' ').next().map(ToOwned::to_owned)).collect();
    signal("CONT", &all);
    first.end().said(0, &[]);
    host.ok(&["plan", "--check", "refused"]);
    host.ok(&["down", "refused"]);
    host.assert_gone();
}

#[test]
fn privilege_is_asked_for() {
    let host = PlayedHost::new();
    let rig = host.ordinary();
    let before = host.look();
    let file = rig.file("refused.yaml", LAB);
    rig.run(&["up", "--guests", "namespace", &file]).said(3, &["needs root", "Hint:", "sudo", "--sandbox"]);
    rig.assert_gone();
    host.assert_same(&before, "nothing was touched");
}

#[test]
fn what_does_not_exist() {
    let rig = Rig::new();
    for args in [
        &["status", "nowhere"][..],
        &["test", "nowhere"],
        &["plan", "nowhere"],
        &["exec", "nowhere/a", "--", "true"],
        &["console", "nowhere/a"],
    ] {
        rig.run(args).said(2, &["there is no lab `nowhere`", "Hint:"]);
    }
    rig.run(&["up", "/nonexistent/lab.yaml"]).said(2, &["/nonexistent/lab.yaml"]);
    rig.run(&["down", "Not A Lab"]).said(2, &["Not A Lab"]);
    rig.run(&["no-such-verb"]).said(2, &["no-such-verb"]);
    rig.up(&topology("two-guests-nat.yaml"));
    rig.run(&["exec", "two-guests-nat/carol", "--", "true"]).said(2, &["carol", "alice, bob"]);
    assert_eq!(rig.run(&["exec", "two-guests-nat/bob", "--", "sh", "-c", "exit 7"]).code, 7);
    rig.ok(&["down", "two-guests-nat"]);
    rig.assert_gone();
}

/// An expectation that does not hold is the answer no: exit 1, and the measurement that says so.
#[test]
fn an_expectation_that_does_not_hold() {
    let rig = Rig::new();
    let text = format!(
        "{LAB}expect:\n  - {{ from: outside, to: a, service: tcp/80, verdict: reachable }}\n  - {{ from: host, to: a, service: tcp/80, verdict: blocked }}\n"
    );
    let file = rig.file("refused.yaml", &text);
    assert!(!rig.up(&file).is_empty());
    let ended = rig.run(&["test", "--json", "refused"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let measured = ended.json();
    assert!(
        measured["ok"] == false
            && measured["measurements"].as_array().unwrap().iter().all(|m| m["ok"] == false),
        "{measured}"
    );
    let drift = changes(&rig.json(&["status", "--json", "refused"])["drift"]);
    assert_eq!(drift, Vec::<String>::new());
    rig.ok(&["down", "refused"]);
    eventually("it is gone", || rig.processes().is_empty().then_some(()), || rig.processes());
}
