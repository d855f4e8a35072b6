//! VLAN interfaces on links of the host: tagged uplinks, one tag or two.

use netloom::resource::{Id, Kind, Macvlan, MacvlanMode, Node, Place, Resource, Vlan, VlanProtocol, names};

use crate::rig::{LAB, Rig, bridge, bridge_link, guest, mac, netns, node, port, veth};

/// A host whose link `up0` ends in `wire`, which takes part in VLAN 30, and in VLAN 30 within the provider's VLAN 100.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.host("wire");
    rig.sh("ip link add up0 type veth peer name end0 netns wire; ip link set up0 up");
    for command in [
        "link set end0 up",
        "link add link end0 name v30 type vlan id 30",
        "link add link end0 name s100 type vlan proto 802.1ad id 100",
        "link add link s100 name s100.30 type vlan id 30",
        "link set v30 up",
        "link set s100 up",
        "link set s100.30 up",
        "address add 10.8.0.1/24 dev v30",
        "address add 10.9.0.1/24 dev s100.30",
    ] {
        rig.in_host("wire", &format!("ip {command}"));
    }
    rig
}

fn vlan(name: &str, parent: &str, vid: u16, protocol: VlanProtocol) -> Vlan {
    Vlan {
        place: Place::Host,
        parent: parent.into(),
        link: names::link(LAB, "vlan", name),
        vid,
        protocol,
        mtu: 1400,
        port: None,
        addresses: Vec::new(),
        advertised: None,
    }
}

/// Bridge `lan` with guest `a` and a tagged uplink: VLAN 30 on `up0`, or, doubly tagged, within the provider's VLAN.
fn lab(double: bool) -> Vec<Node> {
    let on = Id::new(Kind::Bridge, "lan");
    let address = if double { "10.9.0.2/24" } else { "10.8.0.2/24" };
    let mut nic = veth("a", port("lan"), address);
    nic.needs.push(on.clone());
    let mut nodes = vec![bridge("lan"), nic];
    nodes.extend(guest("a"));
    let mut needs = vec![on];
    // The outer one comes after the inner one in the alphabet.
    let outer = vlan("lan.outer", "up0", 100, VlanProtocol::Dot1ad);
    let mut inner = vlan("lan", if double { &outer.link } else { "up0" }, 30, VlanProtocol::Dot1q);
    inner.port = Some(port("lan"));
    if double {
        needs.push(Id::new(Kind::Vlan, "lan.outer"));
        nodes.push(node(Kind::Vlan, "lan.outer", Resource::Vlan(outer), &[]));
    }
    nodes.push(node(Kind::Vlan, "lan", Resource::Vlan(inner), &needs));
    nodes
}

#[test]
#[ignore = "full-kernel"]
fn a_tagged_uplink_is_a_port() {
    let rig = rig();
    let wanted = lab(false);
    rig.up(&wanted);
    let inner = names::link(LAB, "vlan", "lan");
    let link = rig.link(&inner);
    assert_eq!(link["linkinfo"]["info_data"]["id"], 30);
    assert_eq!(link["linkinfo"]["info_data"]["protocol"], "802.1Q");
    assert_eq!(link["link"], "up0");
    assert_eq!(link["master"], bridge_link("lan").as_str());
    assert_eq!(rig.sh(&format!("ip -6 address show dev {inner}")), "", "the host is on it");
    rig.ping(&netns("a"), "10.8.0.1", true);
    let change = format!("ip link set {inner} nomaster");
    let reason = format!("update vlan lan: bridge none → `{}`", bridge_link("lan"));
    rig.mends(&wanted, &change, &[&reason]);
    rig.mends(&wanted, &format!("ip link set {inner} mtu 1300"), &["update vlan lan: MTU 1300 → 1400"]);
    rig.mends(
        &wanted,
        &format!("ip link set {inner} down"),
        &[&format!("update vlan lan: `{inner}` is down")],
    );
    rig.ping(&netns("a"), "10.8.0.1", true);
    rig.down();
}

#[test]
#[ignore = "full-kernel"]
fn two_tags_travel() {
    let rig = rig();
    let wanted = lab(true);
    rig.up(&wanted);
    let outer = names::link(LAB, "vlan", "lan.outer");
    assert_eq!(rig.link(&outer)["linkinfo"]["info_data"]["protocol"], "802.1ad");
    assert_eq!(rig.link(&names::link(LAB, "vlan", "lan"))["link"], outer.as_str());
    assert_eq!(rig.sh(&format!("ip -6 address show dev {outer}")), "", "the host is on it");
    let dump = rig.start("wire", "tcpdump -i end0 -nn -e -c 4 -w /run/tags.pcap icmp or vlan 2>/dev/null");
    rig.ping(&netns("a"), "10.9.0.1", true);
    rig.wait("frames", || std::fs::metadata("/run/tags.pcap").is_ok_and(|file| file.len() > 100));
    drop(dump);
    let frames = rig.sh("tcpdump -nn -e -r /run/tags.pcap 2>/dev/null || true");
    assert!(frames.contains("ethertype 802.1Q-QinQ (0x88a8)") && frames.contains("vlan 100"), "{frames}");
    assert!(frames.contains("ethertype 802.1Q (0x8100), vlan 30"), "{frames}");
    // The outer one is made anew, and what sits on it with it.
    rig.sh(&format!("ip link del {outer}"));
    assert_eq!(rig.up(&wanted), ["create vlan lan.outer: does not exist", "create vlan lan: does not exist"]);
    rig.ping(&netns("a"), "10.9.0.1", true);
    let mut other = lab(true);
    for node in &mut other {
        match &mut node.resource {
            Resource::Vlan(vlan) if vlan.vid == 100 => vlan.protocol = VlanProtocol::Dot1q,
            _ => {}
        }
    }
    assert_eq!(
        rig.up(&other),
        [
            "replace vlan lan.outer: tags 802.1ad → 802.1Q",
            "replace vlan lan: vlan lan.outer, which it uses, is made anew"
        ]
    );
    rig.ping(&netns("a"), "10.9.0.1", false);
    rig.down();
}

/// A guest's NIC in a VLAN of the wire without a bridge.
#[test]
#[ignore = "full-kernel"]
fn a_macvlan_may_sit_on_a_vlan() {
    let rig = rig();
    let below = vlan("wire", "up0", 30, VlanProtocol::Dot1q);
    let macvlan = Macvlan {
        place: Place::Netns(netns("a")),
        parent: below.link.clone(),
        link: "eth0".into(),
        mac: mac("a"),
        mtu: 1400,
        tap: false,
        mode: MacvlanMode::Bridge,
        addresses: vec!["10.8.0.9/24".parse().unwrap()],
        advertised: Some(false),
    };
    let needs = [Id::new(Kind::Sysctls, "a"), Id::new(Kind::Vlan, "wire")];
    let mut wanted = vec![
        node(Kind::Macvlan, "a/eth0", Resource::Macvlan(macvlan), &needs),
        node(Kind::Vlan, "wire", Resource::Vlan(below), &[]),
    ];
    wanted.extend(guest("a"));
    rig.up(&wanted);
    rig.ping(&netns("a"), "10.8.0.1", true);
    rig.down();
}

#[test]
#[ignore = "full-kernel"]
fn a_vlan_that_somebody_uses_is_named() {
    let rig = rig();
    rig.sh("ip link add link up0 name up0.30 type vlan id 30");
    let error = rig.refuses(&lab(false));
    assert_eq!(error.kind.exit_code(), 3);
    assert!(format!("{error:?}").contains("VLAN 30 of `up0` is in use: `up0.30`"), "{error:?}");
    // The same number in a provider's tag is another VLAN.
    let mut outer = lab(true);
    for node in &mut outer {
        match &mut node.resource {
            Resource::Vlan(vlan) if vlan.vid == 100 => vlan.vid = 30,
            _ => {}
        }
    }
    rig.up(&outer);
    rig.ping(&netns("a"), "10.9.0.1", false); // the wire's provider has 100
    rig.down();
}

/// Here or anywhere: a parent that does not exist is named before the kernel is asked.
#[test]
fn a_parent_that_is_missing_is_named() {
    let rig = Rig::new();
    let error = rig.refuses(&lab(false));
    assert_eq!(error.kind.exit_code(), 3);
    assert!(format!("{error:?}").contains("no link `up0`"), "{error:?}");
}
