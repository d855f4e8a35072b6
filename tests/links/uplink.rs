//! A link of the host as a trunk port: its native VLAN is the host's own network.

use netloom::resource::{Id, Kind, Node, Resource, Uplink};
use netloom::topology::Attach;
use serde_json::Value;

use crate::rig::{Rig, bridge, bridge_link, guest, netns, node, port, veth};

/// A host with an address on `up0`, whose other end `wire` is on that network and, tagged, in VLAN 30.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.host("wire");
    rig.sh("ip link add up0 type veth peer name end0 netns wire; ip link set up0 up");
    rig.in_host("wire", "ip link set end0 up; ip address add 10.5.0.1/24 dev end0");
    rig.in_host("wire", "ip link add link end0 name v30 type vlan id 30; ip link set v30 up");
    rig.in_host("wire", "ip address add 10.8.0.1/24 dev v30; ip address add 198.51.100.1/32 dev lo");
    rig.sh("ip address add 10.5.0.2/24 dev up0; ip route add default via 10.5.0.1");
    rig
}

/// Guest `a` in VLAN 30, guest `b` in the native VLAN 7, and the uplink with both.
fn lab(tagged: &[u16]) -> Vec<Node> {
    let on = Id::new(Kind::Bridge, "lan");
    let mut lan = bridge("lan");
    if let Resource::Bridge(bridge) = &mut lan.resource {
        bridge.vlan_filtering = true;
        bridge.host_leg = true;
        bridge.uplinked = true;
        bridge.own_native = Some(7);
    }
    let attach = Attach::Trunk { tagged: tagged.to_vec(), native: Some(7) };
    let uplink = Uplink { link: "up0".into(), bridge: bridge_link("lan"), attach };
    let mut nodes = vec![lan, node(Kind::Uplink, "lan", Resource::Uplink(uplink), std::slice::from_ref(&on))];
    for (name, vid, address) in [("a", 30, "10.8.0.2/24"), ("b", 7, "10.5.0.3/24")] {
        let mut port = port("lan");
        port.attach = Attach::Access(vid);
        let mut nic = veth(name, port, address);
        nic.needs.push(on.clone());
        nodes.push(nic);
        nodes.extend(guest(name));
    }
    nodes
}

/// `VID FLAGS` of a link, ranges as `bridge` shows them.
fn vlans(rig: &Rig, link: &str) -> Vec<String> {
    let all: Value = serde_json::from_str(&rig.sh("bridge -j -compressvlans vlan")).unwrap();
    let port = all.as_array().unwrap().iter().find(|port| port["ifname"] == link).unwrap();
    let line = |vlan: &Value| {
        let flags: Vec<&str> =
            vlan["flags"].as_array().into_iter().flatten().map(|flag| flag.as_str().unwrap()).collect();
        let end = vlan.get("vlanEnd").map(|end| format!("-{end}")).unwrap_or_default();
        format!("{}{end} {}", vlan["vlan"], flags.join(" ")).trim().to_owned()
    };
    port["vlans"].as_array().unwrap().iter().map(line).collect()
}

/// Whether the host itself still gets out by its own network.
#[track_caller]
fn host_is_online(rig: &Rig) {
    rig.wait("answer from beyond the uplink", || {
        rig.sh("ping -c 1 -w 1 198.51.100.1 >/dev/null && echo yes || echo no") == "yes\n"
    });
}

#[test]
#[ignore = "full-kernel"]
fn an_uplink_can_be_a_trunk() {
    let rig = rig();
    host_is_online(&rig);
    let before = rig.sh("ip -o address show dev up0 scope global; ip route");
    let wanted = lab(&[30]);
    rig.up(&wanted);
    assert_eq!(vlans(&rig, "up0"), ["7 PVID Egress Untagged", "30"]);
    assert_eq!(vlans(&rig, &bridge_link("lan")), ["7 PVID Egress Untagged"]);
    host_is_online(&rig);
    let online = |rig: &Rig| {
        rig.ping(&netns("a"), "10.8.0.1", true);
        rig.ping(&netns("b"), "10.5.0.1", true);
        rig.ping(&netns("b"), "10.5.0.2", true); // the host
    };
    online(&rig);
    // A guest of another VLAN is not on the host's network, whatever address it takes.
    rig.in_host(&netns("a"), "ip address add 10.5.0.9/24 dev eth0");
    rig.ping(&netns("a"), "10.5.0.2", false);
    rig.in_host(&netns("a"), "ip address del 10.5.0.9/24 dev eth0");

    let lan = bridge_link("lan");
    let seen = ["update uplink lan: port access 7 → trunk [30] native 7"];
    rig.mends(&wanted, "bridge vlan del dev up0 vid 30", &seen);
    let seen = ["update bridge lan: the host's native VLAN none → 7"];
    rig.mends(&wanted, &format!("bridge vlan del dev {lan} vid 7 self"), &seen);
    let seen = ["update uplink lan: port trunk [7,30] → trunk [30] native 7"];
    rig.mends(&wanted, "bridge vlan add dev up0 vid 7", &seen);
    online(&rig);
    host_is_online(&rig);

    // All VLANs there are: one request of ranges, and a dump that is more than one message without them.
    let every: Vec<u16> = (1..=4094).filter(|vid| *vid != 7).collect();
    assert_eq!(
        rig.up(&lab(&every)),
        ["update uplink lan: port trunk [30] native 7 → trunk [1-6,8-4094] native 7"]
    );
    assert_eq!(vlans(&rig, "up0"), ["1-6", "7 PVID Egress Untagged", "8-4094"]);
    online(&rig);
    rig.up(&wanted);
    assert_eq!(vlans(&rig, "up0"), ["7 PVID Egress Untagged", "30"]);

    rig.down();
    assert_eq!(rig.sh("ip -o address show dev up0 scope global; ip route"), before);
    host_is_online(&rig);
}
