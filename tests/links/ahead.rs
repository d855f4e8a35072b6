//! A look at the host that begins before it is known for which lab.

use netloom::host::actuator::Actuator;
use netloom::resource::{Node, Port, Resource, names};
use netloom::topology::Attach;

use crate::rig::{LAB, Rig, bridge, bridge_link, guest, port, veth};

/// Whoever changes links or addresses after it began, the run that takes it over sees that.
#[test]
fn what_changes_after_it_began_is_seen() {
    let mut rig = Rig::new();
    let mut node = bridge("lan");
    if let Resource::Bridge(bridge) = &mut node.resource {
        bridge.addresses.push("10.8.0.1/24".parse().unwrap());
        bridge.host_leg = true;
    }
    let wanted: Vec<Node> = vec![node];
    rig.up(&wanted);
    let link = bridge_link("lan");
    for (change, seen) in [
        (format!("ip link del {link}"), "does not exist"),
        (format!("ip link set {link} mtu 1400"), "MTU 1400"),
        (format!("ip link set {link} down"), "is down"),
        (format!("ip link set {link} type bridge stp_state 1"), "STP on"),
        (format!("ip addr add 10.9.0.1/24 dev {link}"), "10.9.0.1/24"),
        (format!("ip addr flush dev {link}"), "10.8.0.1/24"),
        (format!("ip -6 addr add fd00::1/64 nodad dev {link}"), "fd00::1/64"),
    ] {
        rig.look_ahead();
        rig.sh(&change);
        let done = rig.up(&wanted);
        assert!(done.len() == 1 && done[0].contains(seen), "{change}: {done:?}");
    }
    // Also between the moment in which nobody else may change anything any more and the one in which it is asked for.
    rig.look_ahead();
    rig.host.look_ahead();
    rig.sh(&format!("ip link del {link}"));
    assert_eq!(rig.plan(&wanted), ["create bridge lan: does not exist"]);
    rig.down();
}

/// Of a port's VLANs as well, which the kernel tells as news of the port.
#[test]
#[ignore = "full-kernel"]
fn a_vlan_that_changes_after_it_began_is_seen() {
    let mut rig = Rig::new();
    let mut lan = bridge("lan");
    if let Resource::Bridge(bridge) = &mut lan.resource {
        bridge.vlan_filtering = true;
    }
    let mut nic = veth("a", Port { attach: Attach::Access(10), ..port("lan") }, "10.8.0.10/24");
    nic.needs.push(lan.id.clone());
    let mut wanted: Vec<Node> = vec![lan, nic];
    wanted.extend(guest("a"));
    rig.up(&wanted);
    let near = names::link(LAB, "veth", "a/eth0");
    rig.look_ahead();
    rig.sh(&format!("bridge vlan add vid 20 dev {near}"));
    let done = rig.up(&wanted);
    assert!(
        done.len() == 1 && done[0].starts_with("update veth a/eth0: ") && done[0].contains("20"),
        "{done:?}"
    );
    rig.down();
}

/// It counts: nobody looks again where nothing was changed.
#[test]
fn the_host_is_looked_at_once() {
    let rig = Rig::new();
    let netloom = format!("NETLOOM_STATE_DIR=/run/state {} -q", env!("CARGO_BIN_EXE_netloom"));
    rig.sh("printf 'lab: once\\nnetworks: { lan: { mode: internal } }\\n' >/run/once.yaml");
    rig.sh(&format!("{netloom} up /run/once.yaml"));
    for verb in ["up", "plan --check"] {
        rig.sh(&format!("strace -f -qq -e trace=sendto -o /run/calls env {netloom} {verb} /run/once.yaml"));
        let calls = std::fs::read_to_string("/run/calls").unwrap();
        let lists = |call: &&str| ["RTM_GETLINK", "NLM_F_DUMP", "AF_UNSPEC"].iter().all(|w| call.contains(w));
        assert_eq!(calls.lines().filter(lists).count(), 1, "{verb}: {calls}");
    }
    rig.sh(&format!("{netloom} down once"));
}
