//! Bridges without the host: what keeps it away, taken away by somebody else.

use netloom::resource::{Id, Kind, Node};

use crate::rig::{Rig, bridge, bridge_link, guest, netns, port, veth};

fn lab() -> Vec<Node> {
    let mut nic = veth("a", port("lan"), "10.8.0.10/24");
    nic.needs.push(Id::new(Kind::Bridge, "lan"));
    let mut nodes = vec![bridge("lan"), nic];
    nodes.extend(guest("a"));
    nodes
}

/// Whether the guest finds somebody at the host's address, which is on another link.
fn found(rig: &Rig) -> bool {
    let script = "ip neigh flush dev eth0; ping -c 2 -i 0.2 -W 1 10.8.0.1 >/dev/null || true; ip -j neigh show 10.8.0.1 dev eth0";
    let all: serde_json::Value = serde_json::from_str(&rig.in_host(&netns("a"), script)).unwrap();
    all.as_array().unwrap().iter().any(|entry| entry.get("lladdr").is_some())
}

#[test]
fn a_bridge_that_lets_the_host_in_again_is_mended() {
    let rig = Rig::new();
    rig.sh("ip address add 10.8.0.1/32 dev lo");
    let wanted = lab();
    rig.up(&wanted);
    assert!(!found(&rig));
    let link = bridge_link("lan");
    let setting = |path: &str| rig.sh(&format!("cat /proc/sys/net/{path}")).trim().to_owned();
    let arp = format!("ipv4/conf/{link}/arp_ignore");
    rig.sh(&format!("echo 0 > /proc/sys/net/{arp}"));
    assert!(found(&rig), "the kernel's own way");
    let seen = [format!("update bridge lan: `{link}` answers ARP for the host")];
    assert_eq!(rig.plan(&wanted), seen);
    assert_eq!(rig.up(&wanted), seen);
    assert_eq!(setting(&arp), "8");
    assert!(!found(&rig));
    let advertisements = format!("ipv6/conf/{link}/accept_ra");
    let seen = [format!("update bridge lan: `{link}` listens to router advertisements")];
    let change = format!("echo 1 > /proc/sys/net/{advertisements}");
    rig.mends(&wanted, &change, &seen.each_ref().map(String::as_str));
    assert_eq!(setting(&advertisements), "0");
    rig.down();
}

#[test]
fn a_leg_that_answers_nobody_is_mended() {
    let rig = Rig::new();
    let mut wanted = lab();
    if let netloom::resource::Resource::Bridge(bridge) = &mut wanted[0].resource {
        bridge.host_leg = true;
        bridge.addresses = vec!["10.8.0.1/24".parse().unwrap()];
    }
    rig.up(&wanted);
    assert!(found(&rig));
    let link = bridge_link("lan");
    let seen = format!("update bridge lan: `{link}` answers no ARP");
    rig.mends(&wanted, &format!("echo 8 > /proc/sys/net/ipv4/conf/{link}/arp_ignore"), &[&seen]);
    assert!(found(&rig));
    // Whether the host itself heeds routers there is the host's own affair.
    rig.sh(&format!("echo 2 > /proc/sys/net/ipv6/conf/{link}/accept_ra"));
    assert_eq!(rig.plan(&wanted), [""; 0]);
    rig.down();
}
