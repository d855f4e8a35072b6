//! Ports of a bridge.

use netloom::resource::{Id, Kind, Node, Resource, Tap, names};
use netloom::topology::Attach;
use serde_json::Value;

use crate::rig::{LAB, Rig, bridge, netns, node, port, veth};

/// Guests `a` and `b` isolated or not, and `c`, which is not, on one bridge.
fn lab(isolated: bool) -> Vec<Node> {
    let on = Id::new(Kind::Bridge, "lan");
    let mut nodes = vec![bridge("lan")];
    for (guest, number) in [("a", 1), ("b", 2), ("c", 3)] {
        let mut port = port("lan");
        port.isolated = isolated && guest != "c";
        let mut veth = veth(guest, port, &format!("10.8.0.{number}/24"));
        veth.needs.push(on.clone());
        nodes.extend(crate::rig::guest(guest));
        nodes.push(veth);
    }
    let mut port = port("lan");
    port.isolated = isolated;
    let tap = Tap { link: names::link(LAB, "tap", "vm/eth0"), mtu: 1500, port };
    nodes.push(node(Kind::Tap, "vm/eth0", Resource::Tap(tap), &[on]));
    nodes
}

fn is_isolated(rig: &Rig, role: &str, name: &str) -> Value {
    rig.link(&names::link(LAB, role, name))["linkinfo"]["info_slave_data"]["isolated"].clone()
}

#[test]
fn isolated_ports_reach_only_the_others() {
    let rig = Rig::new();
    let wanted = lab(true);
    rig.up(&wanted);
    assert_eq!(is_isolated(&rig, "veth", "a/eth0"), true);
    assert_eq!(is_isolated(&rig, "tap", "vm/eth0"), true);
    assert_eq!(is_isolated(&rig, "veth", "c/eth0"), false);
    rig.ping(&netns("a"), "10.8.0.3", true);
    rig.ping(&netns("b"), "10.8.0.3", true);
    rig.ping(&netns("a"), "10.8.0.2", false);
    // The other way round: without isolation the same ping is answered, and nothing is made anew for it.
    let seen = ["tap vm/eth0", "veth a/eth0", "veth b/eth0"];
    let off: Vec<String> = seen.iter().map(|id| format!("update {id}: port isolation on → off")).collect();
    assert_eq!(rig.up(&lab(false)), off);
    rig.ping(&netns("a"), "10.8.0.2", true);
    assert_eq!(rig.up(&wanted).len(), 3);
    rig.ping(&netns("a"), "10.8.0.2", false);
    rig.down();
}

#[test]
fn a_port_that_somebody_let_out_is_isolated_again() {
    let rig = Rig::new();
    let wanted = lab(true);
    rig.up(&wanted);
    let near = names::link(LAB, "veth", "b/eth0");
    rig.mends(
        &wanted,
        &format!("bridge link set dev {near} isolated off"),
        &["update veth b/eth0: port isolation off → on"],
    );
    // Plugged in anew: the setting went with the old port.
    let near = names::link(LAB, "tap", "vm/eth0");
    let lan = crate::rig::bridge_link("lan");
    rig.mends(
        &wanted,
        &format!("ip link set dev {near} nomaster"),
        &[&format!("update tap vm/eth0: bridge none → `{lan}`")],
    );
    assert_eq!(is_isolated(&rig, "tap", "vm/eth0"), true);
}

/// A bridge that is up is changed as it is; older kernels (6.1) refuse such a request that has the bridge's name in it.
fn a_bridge_in_use_changes() {
    let rig = Rig::new();
    let wanted = lab(false);
    rig.up(&wanted);
    let lan = crate::rig::bridge_link("lan");
    let change = format!("ip link set {lan} type bridge stp_state 1");
    rig.mends(&wanted, &change, &["update bridge lan: STP on → off"]);
    rig.ping(&netns("a"), "10.8.0.2", true);
    rig.down();
}

#[test]
fn a_bridge_in_use_changes_here() {
    a_bridge_in_use_changes();
}

#[test]
#[ignore = "full-kernel"]
fn a_bridge_in_use_changes_on_a_full_kernel() {
    a_bridge_in_use_changes();
}

/// The first bridge of a host that filters, and its ports, are as they are wanted at the first look after they were made.
#[test]
#[ignore = "full-kernel"]
fn ports_of_vlans_are_seen_at_once() {
    let rig = Rig::new();
    let mut wanted = lab(false);
    rig.up(&wanted);
    let filters = |node: &mut Node| match &mut node.resource {
        Resource::Bridge(bridge) => bridge.vlan_filtering = true,
        Resource::Tap(tap) => tap.port.attach = Attach::Trunk { tagged: vec![10, 20], native: None },
        Resource::Veth(veth) => veth.ends[0].port.as_mut().unwrap().attach = Attach::Access(10),
        _ => {}
    };
    wanted.iter_mut().for_each(filters);
    rig.down();
    rig.up(&wanted);
    let near = names::link(LAB, "veth", "b/eth0");
    let listed: Value = serde_json::from_str(&rig.sh(&format!("bridge -j vlan show dev {near}"))).unwrap();
    let (vlans, flags) = (&listed[0]["vlans"], ["PVID", "Egress Untagged"]);
    assert_eq!(*vlans, serde_json::json!([{ "vlan": 10, "flags": flags }]));
    rig.ping(&netns("a"), "10.8.0.2", true);
    rig.down();
}
