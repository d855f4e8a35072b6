//! What a link is born with in a guest's namespace.

use netloom::resource::{Id, Kind, Node};

use crate::rig::{Rig, bridge, guest, netns, port, veth};

fn setting(rig: &Rig, path: &str) -> String {
    rig.in_host(&netns("a"), &format!("cat /proc/sys/net/{path}")).trim().to_owned()
}

/// The kernel asks for `default` when a link is made and never again, so that it is said right before, not looked at.
#[test]
fn a_link_is_born_as_wanted_whatever_its_namespace_has_for_new_ones() {
    let rig = Rig::new();
    let mut nic = veth("a", port("lan"), "10.8.0.10/24");
    nic.needs.push(Id::new(Kind::Bridge, "lan"));
    let mut wanted: Vec<Node> = vec![bridge("lan"), nic];
    wanted.extend(guest("a"));
    rig.up(&wanted);
    let own = ["ipv6/conf/eth0/accept_ra", "ipv6/conf/eth0/accept_dad"];
    assert_eq!(own.map(|path| setting(&rig, path)), ["0", "0"]);

    let odd = "cd /proc/sys/net/ipv6/conf/default; echo 1 >accept_ra; echo 1 >accept_dad";
    rig.in_host(&netns("a"), odd);
    assert_eq!(rig.plan(&wanted), [""; 0]);
    rig.in_host(&netns("a"), "ip link del eth0");
    assert_eq!(rig.up(&wanted), ["create veth a/eth0: does not exist"]);
    assert_eq!(own.map(|path| setting(&rig, path)), ["0", "0"]);
    rig.down();
}

/// Both families, each way; the file says what netlink told.
#[test]
fn a_guest_that_forwards_of_its_own_is_mended() {
    let rig = Rig::new();
    let wanted = guest("a");
    rig.up(&wanted);
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        rig.in_host(&netns("a"), &format!("echo 1 >/proc/sys/net/{path}"));
        let seen = format!("update sysctls a: net/{path} 1 → 0");
        assert_eq!(rig.up(&wanted), [seen]);
        assert_eq!(setting(&rig, path), "0");
    }
    rig.down();
}
