//! Guests' NICs right on a link of the host.

use netloom::resource::{Id, Kind, Macvlan, MacvlanMode, Node, Place, Resource};

use crate::rig::{Rig, guest, mac, netns, node};

/// A host whose link `up0` ends in a switch `sw` that sends frames back the way they came, and which has an address.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.host("sw");
    rig.sh("ip link add up0 type veth peer name down0 netns sw; ip link add up1 type veth peer name far1");
    rig.sh("ip link set up0 up; ip link set up1 up; ip address add 10.8.0.1/24 dev up0");
    // A guest's NIC has a name of its own place, which another link has on the host.
    rig.sh("ip link add eth0 type bridge");
    rig.in_host("sw", "ip link add sw0 type bridge; ip link set down0 master sw0 up; ip link set sw0 up");
    rig.in_host("sw", "bridge link set dev down0 hairpin on; ip address add 10.8.0.2/24 dev sw0");
    rig
}

fn nic(name: &str, mode: MacvlanMode, number: u8) -> Node {
    let macvlan = Macvlan {
        place: Place::Netns(netns(name)),
        parent: "up0".into(),
        link: "eth0".into(),
        mac: mac(name),
        mtu: 1400,
        tap: false,
        mode,
        addresses: vec![format!("10.8.0.{number}/24").parse().unwrap()],
        advertised: Some(false),
    };
    let needs = [Id::new(Kind::Sysctls, name)];
    node(Kind::Macvlan, &format!("{name}/eth0"), Resource::Macvlan(macvlan), &needs)
}

fn lab(mode: MacvlanMode) -> Vec<Node> {
    let mut nodes = vec![nic("a", mode, 10), nic("b", mode, 11)];
    nodes.extend(guest("a").into_iter().chain(guest("b")));
    nodes
}

fn edited(mut nodes: Vec<Node>, edit: impl Fn(&mut Macvlan)) -> Vec<Node> {
    let Resource::Macvlan(first) = &mut nodes[0].resource else { unreachable!() };
    edit(first);
    nodes
}

#[test]
fn each_mode_reaches_whom_it_should() {
    let rig = rig();
    let (a, b) = (netns("a"), netns("b"));
    // Whether they reach one another without the switch's help, and with it.
    let modes = [
        (MacvlanMode::Bridge, true, true),
        (MacvlanMode::Vepa, false, true),
        (MacvlanMode::Private, false, false),
    ];
    for (number, (mode, alone, helped)) in modes.into_iter().enumerate() {
        let done = rig.up(&lab(mode));
        assert!(number == 0 || done.iter().all(|line| line.starts_with("update macvlan ")), "{done:?}");
        assert_eq!(done.len(), if number == 0 { 6 } else { 2 });
        for name in ["a", "b"] {
            let link = rig.guest_link(name, "eth0");
            assert_eq!(link["linkinfo"]["info_kind"], "macvlan");
            assert_eq!(link["linkinfo"]["info_data"]["mode"], mode.word());
            assert_eq!(link["link_index"], rig.link("up0")["ifindex"]);
            assert_eq!(link["address"], mac(name).to_string());
            assert_eq!(link["mtu"], 1400);
            assert!(link["ifalias"].as_str().unwrap().starts_with("netloom:links:macvlan:"));
            rig.ping(&netns(name), "10.8.0.2", true);
            // Private bars broadcasts: who knows a neighbour already would reach it with the switch's help.
            rig.in_host(&netns(name), "ip neigh flush all");
        }
        rig.in_host("sw", "bridge link set dev down0 hairpin off");
        rig.ping(&a, "10.8.0.11", alone);
        rig.ping(&a, "10.8.0.1", false); // the host below
        rig.in_host("sw", "bridge link set dev down0 hairpin on");
        rig.ping(&b, "10.8.0.10", helped);
    }
    rig.down();
}

#[test]
fn drift_is_seen_and_mended() {
    let rig = rig();
    let wanted = lab(MacvlanMode::Bridge);
    rig.up(&wanted);
    let a = netns("a");
    let inside = |command: &str| format!("ip netns exec {a} ip {command}");
    let update = |reason: &str| format!("update macvlan a/eth0: {reason}");
    for (command, reason) in [
        ("link set eth0 type macvlan mode private", "mode private → bridge"),
        ("link set eth0 mtu 1300", "MTU 1300 → 1400"),
        ("link set eth0 down", "`eth0` is down"),
        ("address add 10.8.0.99/24 dev eth0", "address 10.8.0.99/24 is extra"),
    ] {
        rig.mends(&wanted, &inside(command), &[&update(reason)]);
    }
    let other = "link set eth0 address 02:00:00:00:00:77";
    rig.mends(&wanted, &inside(other), &[&update(&format!("MAC 02:00:00:00:00:77 → {}", mac("a")))]);
    // Of a mode that nobody asked for: what is there is not what its mark says.
    rig.sh(&inside("link set eth0 type macvlan mode source"));
    let anew = ["delete link eth0: left by a run that was cut off", "create macvlan a/eth0: does not exist"];
    assert_eq!(rig.up(&wanted), anew);
    let moved = edited(lab(MacvlanMode::Bridge), |nic| nic.parent = "up1".into());
    assert_eq!(rig.up(&moved), ["replace macvlan a/eth0: parent up0 → up1"]);
    assert_eq!(rig.guest_link("a", "eth0")["link_index"], rig.link("up1")["ifindex"]);
    rig.down();
}

/// Debian's kernel is older than the one that this may run on.
#[test]
#[ignore = "full-kernel"]
fn a_full_kernel_agrees() {
    drift_is_seen_and_mended();
}

/// On the host itself, for example as its own leg on a network of such guests.
#[test]
fn it_may_live_on_the_host() {
    let rig = rig();
    rig.sh("ip address flush dev up0");
    let wanted = edited(lab(MacvlanMode::Bridge), |nic| {
        nic.place = Place::Host;
        nic.link = "nlleg".into();
        nic.advertised = None;
    });
    rig.up(&wanted);
    rig.ping(&netns("b"), "10.8.0.10", true);
    assert_eq!(rig.link("nlleg")["link"], "up0");
    rig.down();
}

#[test]
fn a_parent_that_cannot_carry_it_is_named() {
    let rig = rig();
    for (trouble, parent, says, hint) in [
        ("true", "up7", "no link `up7`", "up0"),
        ("ip link set up1 mtu 1300", "up1", "MTU of 1300", "an MTU of 1300"),
        ("ip link set up1 mtu 1500 master eth0", "up1", "port of `eth0`", "name `eth0`"),
    ] {
        rig.sh(trouble);
        let error = rig.refuses(&edited(lab(MacvlanMode::Vepa), |nic| nic.parent = parent.into()));
        let text = format!("{error:?}");
        assert_eq!(error.kind.exit_code(), 3, "{text}");
        assert!(text.contains(says) && text.contains(hint), "{text}");
    }
}
