//! Two hosts' bridges joined through tunnels, both hosts being this one: each tunnel's packets travel in an underlay of
//! its own, and a cable joins the two.

use netloom::resource::{Id, Kind, Node, Place, Resource, Veth, VethEnd, Vxlan, names};

use crate::rig::{LAB, Rig, bridge, bridge_link, guest, mac, netns, node, port, veth};

/// Addresses of the two ends of the cable.
const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const V6: [&str; 2] = ["fd99::1", "fd99::2"];

fn tunnel(number: usize) -> String {
    names::link(LAB, "vxlan", &format!("lan{number}"))
}

/// One end: bridge `lan0` with guest `g0`, and a tunnel through namespace `u0`.
fn node_of_overlay(number: usize, vni: u32, ends: [&str; 2]) -> Vec<Node> {
    let lan = format!("lan{number}");
    let on = Id::new(Kind::Bridge, &lan);
    let under = format!("u{number}");
    let vxlan = Vxlan {
        link: tunnel(number),
        underlay: Place::Netns(netns(&under)),
        vni,
        local: ends[number].parse().unwrap(),
        remote: ends[1 - number].parse().unwrap(),
        mtu: 1430,
        port: port(&lan),
    };
    let guest_name = format!("g{number}");
    let mut nic = veth(&guest_name, port(&lan), &format!("10.8.0.{}/24", number + 10));
    nic.needs.push(on.clone());
    let needs = [on, Id::new(Kind::Namespace, &under)];
    let mut nodes = vec![bridge(&lan), nic, node(Kind::Vxlan, &lan, Resource::Vxlan(vxlan), &needs)];
    nodes.extend(guest(&under));
    nodes.extend(guest(&guest_name));
    nodes
}

/// Both ends, and the cable between their underlays.
fn overlay(vnis: [u32; 2], ends: [&str; 2]) -> Vec<Node> {
    let mut nodes = node_of_overlay(0, vnis[0], ends);
    nodes.extend(node_of_overlay(1, vnis[1], ends));
    let end = |number: usize, link: String| VethEnd {
        place: Place::Netns(netns(&format!("u{number}"))),
        link,
        mac: mac(&format!("u{number}")),
        mtu: 1500,
        port: None,
        addresses: vec![
            format!("{}/24", V4[number]).parse().unwrap(),
            format!("{}/64", V6[number]).parse().unwrap(),
        ],
        advertised: Some(false),
        route_localnet: false,
    };
    let cable = [end(0, names::link(LAB, "veth", "u0/u1")), end(1, "under0".into())];
    let needs = [Id::new(Kind::Sysctls, "u0"), Id::new(Kind::Sysctls, "u1")];
    nodes.push(node(Kind::Veth, "u0/u1", Resource::Veth(Veth { ends: cable }), &needs));
    nodes
}

#[test]
fn guests_of_two_bridges_meet_through_the_underlay() {
    let rig = Rig::new();
    let wanted = overlay([100, 100], V4);
    rig.up(&wanted);
    for number in [0, 1] {
        let link = rig.link(&tunnel(number));
        let data = &link["linkinfo"]["info_data"];
        assert_eq!((data["id"].as_u64(), data["port"].as_u64()), (Some(100), Some(4789)));
        assert_eq!((&data["local"], &data["remote"]), (&V4[number].into(), &V4[1 - number].into()));
        assert_eq!(link["master"], bridge_link(&format!("lan{number}")).as_str());
        assert!(link["link_netnsid"].is_number(), "its packets are the host's own: {link}");
        let addresses = rig.sh(&format!("ip -6 address show dev {}", tunnel(number)));
        assert_eq!(addresses, "", "the host is on the tunnel");
        let sockets = rig.in_host(&netns(&format!("u{number}")), "ss -Hlnu");
        assert!(sockets.contains(":4789"), "{sockets}");
    }
    assert!(!rig.sh("ss -Hlnu").contains("4789"), "the socket is the host's");
    let under = netns("u1");
    let dump = rig.start(&under, "tcpdump -i under0 -nn -U -w /run/under.pcap udp port 4789 2>/dev/null");
    rig.wait("tcpdump", || std::fs::metadata("/run/under.pcap").is_ok());
    rig.ping(&netns("g0"), "10.8.0.11", true);
    rig.wait("frames", || std::fs::metadata("/run/under.pcap").is_ok_and(|file| file.len() > 200));
    drop(dump);
    let frames = rig.sh("tcpdump -nn -r /run/under.pcap 2>/dev/null || true");
    assert!(
        frames.contains("192.0.2.1") && frames.contains("192.0.2.2.4789: VXLAN, flags [I] (0x08), vni 100"),
        "{frames}"
    );
    assert!(frames.contains("10.8.0.10 > 10.8.0.11: ICMP echo request"), "{frames}");
    // There is no other way.
    rig.in_host(&under, "ip link set under0 down");
    rig.ping(&netns("g0"), "10.8.0.11", false);
    let mended = rig.up(&wanted);
    assert!(mended.len() == 1 && mended[0].starts_with("update veth u0/u1: `under0` is down"), "{mended:?}");
    rig.ping(&netns("g0"), "10.8.0.11", true);

    // Another VNI is another network; and IPv6 carries it as well.
    let apart = rig.up(&overlay([100, 101], V4));
    assert_eq!(apart, ["replace vxlan lan1: VNI 100 → 101"]);
    rig.ping(&netns("g1"), "10.8.0.10", false);
    let sixth = rig.up(&overlay([100, 100], V6));
    assert!(sixth.len() == 2 && sixth.iter().all(|line| line.starts_with("replace vxlan lan")), "{sixth:?}");
    rig.ping(&netns("g1"), "10.8.0.10", true);
    rig.down();
}

#[test]
fn drift_is_seen_and_mended() {
    let rig = Rig::new();
    let wanted = overlay([7, 7], V4);
    rig.up(&wanted);
    let link = tunnel(0);
    let lan = bridge_link("lan0");
    for (change, reason) in [
        (
            format!("ip link set {link} type vxlan id 7 remote 192.0.2.99"),
            "remote 192.0.2.99 → 192.0.2.2".into(),
        ),
        (
            format!("ip link set {link} type vxlan id 7 local 192.0.2.98"),
            "local 192.0.2.98 → 192.0.2.1".into(),
        ),
        (format!("ip link set {link} mtu 1400"), "MTU 1400 → 1430".into()),
        (format!("ip link set {link} nomaster"), format!("bridge none → `{lan}`")),
        (format!("bridge link set dev {link} isolated on"), "port isolation on → off".into()),
        (format!("ip link set {link} down"), format!("`{link}` is down")),
    ] {
        rig.mends(&wanted, &change, &[&format!("update vxlan lan0: {reason}")]);
    }
    rig.ping(&netns("g0"), "10.8.0.11", true);
    // The same tunnel in the wrong stack.
    let ends = "local 192.0.2.1 remote 192.0.2.2";
    let alias = "netloom:links:vxlan:lan0";
    let change = format!(
        "ip link del {link}; ip link add {link} mtu 1430 group {} type vxlan id 7 {ends} dstport 4789; ip link set {link} alias {alias} addrgenmode none; ip link set {link} master {lan} up",
        names::group(LAB)
    );
    rig.mends(&wanted, &change, &["replace vxlan lan0: its packets travel elsewhere"]);
    rig.ping(&netns("g0"), "10.8.0.11", true);
    // With the underlay everything goes that was in it, or had its socket there.
    rig.sh(&format!("ip netns del {}", netns("u0")));
    rig.wait("end of the namespace", || !rig.sh("ip -o link").contains(link.as_str()));
    let made = rig.up(&wanted);
    for id in ["namespace u0", "sysctls u0", "veth u0/u1", "vxlan lan0"] {
        assert!(made.contains(&format!("create {id}: does not exist")), "{id}: {made:?}");
    }
    rig.ping(&netns("g0"), "10.8.0.11", true);
    rig.down();
}

/// Debian's kernel is older than the one that this may run on.
#[test]
#[ignore = "full-kernel"]
fn a_full_kernel_agrees() {
    drift_is_seen_and_mended();
}

#[test]
fn a_failure_leaves_nothing() {
    let rig = Rig::new();
    let mut wanted = overlay([7, 7], V4);
    for node in &mut wanted {
        match &mut node.resource {
            Resource::Vxlan(vxlan) if node.id.name == "lan1" => vxlan.port.bridge = "nosuchbridge".into(),
            _ => {}
        }
    }
    let error = rig.refuses(&wanted);
    assert!(format!("{error:?}").contains("nosuchbridge"), "{error:?}");
    assert!(!rig.sh("ip -o link").contains("vxlan"));
}
