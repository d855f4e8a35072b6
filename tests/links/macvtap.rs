//! Macvtaps: links by which VMs are on a link of the host. In place of a VM the test itself opens the device, and frames
//! are made and read by hand.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use netloom::resource::{Id, Kind, Macvlan, MacvlanMode, Node, Place, Resource, names};

use crate::rig::{LAB, Rig, mac, node};

/// `struct virtio_net_hdr`, in front of every frame of a macvtap that nobody has told otherwise.
const HEADER: usize = 10;

/// A host `sw` behind the uplink `up0`, which has an address of its own.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.host("sw");
    rig.sh("ip link add up0 type veth peer name down0 netns sw; ip link add up1 type veth peer name far1");
    rig.sh("ip link set up0 up; ip link set up1 up; ip address add 10.8.0.1/24 dev up0");
    rig.in_host("sw", "ip link set down0 up; ip address add 10.8.0.2/24 dev down0");
    rig
}

fn link(guest: &str) -> String {
    names::link(LAB, "macvtap", &format!("{guest}/eth0"))
}

fn nic(guest: &str, mode: MacvlanMode) -> Node {
    let macvlan = Macvlan {
        tap: true,
        place: Place::Host,
        parent: "up0".into(),
        link: link(guest),
        mac: mac(guest),
        mtu: 1400,
        mode,
        addresses: Vec::new(),
        advertised: None,
    };
    node(Kind::Macvlan, &format!("{guest}/eth0"), Resource::Macvlan(macvlan), &[] as &[Id])
}

fn lab(mode: MacvlanMode) -> Vec<Node> {
    vec![nic("a", mode), nic("b", mode)]
}

fn edited(mut nodes: Vec<Node>, edit: impl Fn(&mut Macvlan)) -> Vec<Node> {
    let Resource::Macvlan(first) = &mut nodes[0].resource else { unreachable!() };
    edit(first);
    nodes
}

fn device(rig: &Rig, guest: &str) -> PathBuf {
    format!("/dev/tap{}", rig.link(&link(guest))["ifindex"]).into()
}

/// A station in place of a VM.
struct Station {
    device: File,
    mac: [u8; 6],
    ip: [u8; 4],
}

impl Station {
    fn open(rig: &Rig, guest: &str, last: u8) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
        let device = options.open(device(rig, guest)).unwrap();
        Self { device, mac: mac(guest).0, ip: [10, 8, 0, last] }
    }

    /// An ARP packet (RFC 826) for IPv4 over Ethernet: 1 asks, 2 answers.
    fn arp(&mut self, operation: u8, to: [u8; 6], target: [u8; 4]) {
        let mut frame = vec![0; HEADER];
        frame.extend(to);
        frame.extend(self.mac);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(self.mac);
        frame.extend(self.ip);
        frame.extend(if operation == 1 { [0; 6] } else { to });
        frame.extend(target);
        assert_eq!(self.device.write(&frame).unwrap(), frame.len());
    }

    /// The next ARP packet that comes within a second: operation, sender's IP, target's IP.
    fn hears(&mut self) -> Option<(u8, [u8; 4], [u8; 4])> {
        let until = Instant::now() + Duration::from_secs(1);
        let mut bytes = [0; 2048];
        while Instant::now() < until {
            match self.device.read(&mut bytes) {
                Ok(count) if count >= HEADER + 42 && bytes[HEADER + 12..HEADER + 14] == [8, 6] => {
                    let arp = &bytes[HEADER + 14..];
                    return Some((arp[7], arp[14..18].try_into().unwrap(), arp[24..28].try_into().unwrap()));
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => panic!("{e}"),
            }
        }
        None
    }
}

const ALL: [u8; 6] = [0xff; 6];

/// Before QEMU opens it, what comes in goes to the host, which must neither answer ARP there nor give itself the address
/// that the VM will have.
#[test]
fn the_host_does_not_stand_in_for_the_vm() {
    let rig = rig();
    let wanted = lab(MacvlanMode::Vepa);
    rig.up(&wanted);
    let link = link("a");
    let setting = |name: &str| rig.sh(&format!("cat /proc/sys/net/{name}")).trim().to_owned();
    let (arp, ra) = (format!("ipv4/conf/{link}/arp_ignore"), format!("ipv6/conf/{link}/accept_ra"));
    let silent = || assert_eq!((setting(&arp).as_str(), setting(&ra).as_str()), ("8", "0"));
    silent();
    let seen = format!("update macvlan a/eth0: `{link}` answers ARP for the host");
    rig.mends(&wanted, &format!("echo 0 > /proc/sys/net/{arp}"), &[&seen]);
    silent();
    let seen = format!("update macvlan a/eth0: `{link}` listens to router advertisements");
    rig.mends(&wanted, &format!("echo 1 > /proc/sys/net/{ra}"), &[&seen]);
    silent();
    rig.down();
}

#[test]
fn each_mode_reaches_whom_it_should() {
    let rig = rig();
    for (number, mode) in
        [MacvlanMode::Bridge, MacvlanMode::Vepa, MacvlanMode::Private].into_iter().enumerate()
    {
        let done = rig.up(&lab(mode));
        assert!(number == 0 || done.iter().all(|line| line.starts_with("update macvlan ")), "{done:?}");
        assert_eq!(done.len(), 2);
        for guest in ["a", "b"] {
            let found = rig.link(&link(guest));
            assert_eq!(found["linkinfo"]["info_kind"], "macvtap");
            assert_eq!(found["linkinfo"]["info_data"]["mode"], mode.word());
            assert_eq!((&found["link"], &found["mtu"]), (&"up0".into(), &1400.into()));
            assert_eq!(found["address"], mac(guest).to_string());
            assert_eq!(found["inet6_addr_gen_mode"], "none");
            assert!(found["ifalias"].as_str().unwrap().starts_with("netloom:links:macvlan:"));
            let flags: Vec<&str> =
                found["flags"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
            assert!(flags.contains(&"UP") && flags.contains(&"ALLMULTI"), "{flags:?}");
        }
        let (mut a, mut b) = (Station::open(&rig, "a", 10), Station::open(&rig, "b", 11));
        // The network beyond the uplink answers, the host below does not.
        a.arp(1, ALL, [10, 8, 0, 2]);
        assert_eq!(a.hears(), Some((2, [10, 8, 0, 2], a.ip)), "{mode:?}");
        let between = (mode == MacvlanMode::Bridge).then_some((1, a.ip, [10, 8, 0, 2]));
        assert_eq!(b.hears(), between, "{mode:?}");
        a.arp(1, ALL, [10, 8, 0, 1]);
        assert_eq!(a.hears(), None, "{mode:?}");
    }
    rig.down();
}

#[test]
fn a_group_that_nobody_joined_is_heard() {
    let rig = rig();
    rig.up(&lab(MacvlanMode::Bridge));
    let mut a = Station::open(&rig, "a", 10);
    // Neighbour discovery asks a group that depends on the address (RFC 4861); the kernel sees no VM join it.
    rig.in_host(
        "sw",
        "ip address add fe80::2/64 dev down0 nodad; ping -c 1 -W 1 -I down0 fe80::1234:5678 || true",
    );
    let until = Instant::now() + Duration::from_secs(2);
    let mut bytes = [0; 2048];
    let mut heard = false;
    while !heard && Instant::now() < until {
        match a.device.read(&mut bytes) {
            Ok(read) => {
                heard = bytes[..read].get(HEADER..HEADER + 6) == Some(&[0x33, 0x33, 0xff, 0x34, 0x56, 0x78])
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!(heard);
    rig.down();
}

/// The kernel has one directory for the devices of all namespaces.
#[test]
fn its_device_is_its_own_and_goes_with_it() {
    let rig = rig();
    // Somebody else's, elsewhere, with the next indices that would be given out here.
    rig.host("other");
    let next = rig.link("far1")["ifindex"].as_u64().unwrap() + 1;
    rig.in_host("other", "ip link add name base index 901 type veth peer name end index 902");
    for index in next..next + 4 {
        let words = format!("ip link add link base name m{index} index {index} type macvtap");
        rig.in_host("other", &words);
    }
    rig.up(&lab(MacvlanMode::Bridge));
    let devices = ["a", "b"].map(|guest| device(&rig, guest));
    for (guest, device) in ["a", "b"].into_iter().zip(&devices) {
        // What `link` of the kernel's own tree says, where it is this namespace's.
        let script = "umount /sys 2>/dev/null; mount -t sysfs s /sys && cat /sys/class/net/$1/macvtap/*/dev";
        let number = rig.sh(&format!("unshare -m sh -c '{script}' - {}", link(guest)));
        let rdev = fs::metadata(device).unwrap().rdev();
        let found = format!("{}:{}", nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
        assert_eq!(number.trim(), found);
    }
    rig.down();
    assert!(devices.iter().all(|device| !device.exists()), "{devices:?}");
}

#[test]
fn drift_is_seen_and_mended() {
    let rig = rig();
    let wanted = lab(MacvlanMode::Bridge);
    rig.up(&wanted);
    let a = link("a");
    let update = |reason: &str| format!("update macvlan a/eth0: {reason}");
    for (command, reason) in [
        (format!("ip link set {a} type macvtap mode private"), "mode private → bridge".to_owned()),
        (format!("ip link set {a} mtu 1300"), "MTU 1300 → 1400".to_owned()),
        (format!("ip link set {a} down"), format!("`{a}` is down")),
        (format!("ip address add 10.8.0.99/24 dev {a}"), "address 10.8.0.99/24 is extra".to_owned()),
    ] {
        rig.mends(&wanted, &command, &[&update(&reason)]);
    }
    // A macvlan with a macvtap's mark.
    let mark = rig.link(&a)["ifalias"].as_str().unwrap().to_owned();
    let group = rig.link(&a)["group"].as_str().unwrap().to_owned();
    rig.sh(&format!(
        "ip link del {a}; ip link add link up0 name {a} address {} mtu 1400 type macvlan mode bridge; \
         ip link set {a} group {group} alias {mark} addrgenmode none up",
        mac("a")
    ));
    assert_eq!(rig.up(&wanted), ["replace macvlan a/eth0: kind macvlan → macvtap"]);
    let moved = edited(lab(MacvlanMode::Bridge), |nic| nic.parent = "up1".into());
    assert_eq!(rig.up(&moved), ["replace macvlan a/eth0: parent up0 → up1"]);
    assert_eq!(rig.link(&a)["link"], "up1");
    rig.down();
}

/// A run that was cut off right after the request: no alias yet, but the group.
#[test]
fn what_a_run_that_was_cut_off_left_is_removed() {
    let rig = rig();
    let wanted = lab(MacvlanMode::Bridge);
    rig.up(&wanted);
    let a = link("a");
    let old = device(&rig, "a");
    rig.sh(&format!("ip link set {a} alias ''"));
    let gone = format!("delete link {a}: left by a run that was cut off");
    assert_eq!(rig.up(&wanted), [gone.as_str(), "create macvlan a/eth0: does not exist"]);
    assert!(!old.exists() && device(&rig, "a").exists());
    rig.down();
}

#[test]
fn a_parent_that_cannot_carry_it_is_named() {
    let rig = rig();
    let error = rig.refuses(&edited(lab(MacvlanMode::Vepa), |nic| nic.parent = "up7".into()));
    let text = format!("{error:?}");
    assert!(error.kind.exit_code() == 3 && text.contains("no link `up7`") && text.contains("up0"), "{text}");
}
