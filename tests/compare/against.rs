//! netloom's constructs beside libvirt's own networks and Incus's. The oracles for what is theirs are virsh and incus,
//! pointed at the daemon in the sandbox; what is broken in the real network by hand must show in the cell that it makes.

use std::collections::BTreeSet;
use std::process::Command;

use netloom::compare::against::system::System;
use netloom::compare::against::things::{self, Thing};
use netloom::compare::against::{Likeness, Pair};
use netloom::compare::{Row, cases};
use netloom::resource::names;
use serde_json::Value;

use crate::rig::{Ended, Rig};

/// What a libvirt or an Incus of the host's own would hold.
fn of_the_host() -> BTreeSet<String> {
    let script = "iptables-save 2>/dev/null | grep LIBVIRT; ip6tables-save 2>/dev/null | grep LIBVIRT
        find /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
        ip -br link | grep -E 'vnet|virbr|macvtap'; grep -E 'libvirt|incus' /proc/self/mounts
        find /var/lib/incus /var/log/incus /var/cache/incus /run/incus* /dev/incus; nft list tables | grep incus
        cut -d ' ' -f 1 /proc/modules; find /sys/fs/cgroup -name '*incus*'; true";
    let said = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The lab of a real thing with namespaces as guests, up in a sandbox.
struct Real {
    rig: Rig,
    thing: &'static Thing,
    lab: String,
    host: BTreeSet<String>,
}

impl Real {
    #[track_caller]
    fn up(construct: &str) -> Self {
        let (rig, host) = (Rig::new(), of_the_host());
        let case = cases::find(construct, 0).unwrap();
        let thing = things::of(construct).next().unwrap();
        let file = rig.file("real.yaml", &thing.file(&case));
        rig.ok(&["__against", "up", construct, thing.name, "namespace", "0", &file]);
        Self { rig, thing, lab: thing.lab(&case), host }
    }

    #[track_caller]
    fn measure(&self) -> Row {
        let words =
            ["__against", "measure", self.thing.construct, self.thing.name, "namespace", "0", &self.lab];
        serde_json::from_value(self.rig.json(&words)).unwrap()
    }

    /// Runs a script on the host of the sandbox. `$BRIDGE` is the network's bridge.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let bridge = names::link(&self.lab, "bridge", "net");
        self.rig.sh(&format!("{}/host", self.lab), &format!("BRIDGE={bridge}\n{script}"))
    }

    #[track_caller]
    fn virsh(&self, words: &str) -> String {
        self.sh(&format!("virsh -q -c qemu:///system {words}"))
    }

    #[track_caller]
    fn down(self) {
        self.rig.ok(&["-q", "down", &self.lab]);
        self.rig.assert_gone();
        assert_eq!(of_the_host(), self.host);
    }
}

#[test]
fn the_real_network_is_libvirts_own() {
    let real = Real::up("libvirt/isolated");
    let bridge = names::link(&real.lab, "bridge", "net");
    let words: Vec<String> = real.virsh("net-list").split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[..2], ["real", "active"], "{words:?}");
    let network = real.virsh("net-dumpxml real");
    assert!(
        network.contains(&format!("<bridge name='{bridge}'")) && !network.contains("<forward"),
        "{network}"
    );
    assert!(network.contains("<range start='10.88.0."), "{network}");
    // The rules are libvirt's, the leases its dnsmasq's, and netloom has no ruleset on this host.
    let rules = real.sh("iptables-save");
    assert!(rules.contains(&format!("-A LIBVIRT_FWI -o {bridge} -j REJECT")), "{rules}");
    assert!(!real.sh("nft list tables").contains("netloom"));
    let leases = real.virsh("net-dhcp-leases real");
    for guest in ["a", "b"] {
        assert!(leases.lines().any(|line| line.split_whitespace().any(|word| word == guest)), "{leases}");
    }
    assert!(real.sh(&format!("ip -br link show master {bridge}")).lines().count() == 2);
    // It asks QEMU once what that can, also where /dev/kvm is root's alone. Dozens of times for each domain is minutes.
    let learnt = || {
        real.virsh("domcapabilities >/dev/null");
        real.sh("stat -c '%n %y' /var/cache/libvirt/qemu/capabilities/*.xml")
    };
    assert_eq!(learnt(), learnt());
    real.down();
}

/// Cells of a pair that are not the same.
fn odd(pair: &Pair) -> Vec<String> {
    let odd = pair.twins.iter().filter(|twin| twin.likeness != Likeness::Equal);
    odd.map(|twin| format!("{} {} {:?}", twin.property.words(), twin.theirs, twin.likeness)).collect()
}

#[test]
#[ignore = "slow"]
fn what_is_broken_in_the_real_network_is_noticed() {
    let real = Real::up("libvirt/nat");
    let sound = real.measure();
    let pair = |theirs| Pair::new(real.thing, "namespace", sound.clone(), theirs);
    let same = pair(sound.clone());
    assert!(odd(&same).is_empty() && same.twins.len() == 7, "{same:?}");
    assert!(sound.cells.iter().all(|cell| cell.measured == cell.promised), "{sound:?}");

    // What keeps the LAN out.
    real.sh("for tool in iptables ip6tables; do
            reject=$($tool -S LIBVIRT_FWI | sed -n 's/^-A //p' | grep REJECT)
            $tool -D $reject
        done");
    assert_eq!(odd(&pair(real.measure())), ["LAN → guest pass Differs"]);
    // And what hides the guests.
    real.sh("iptables -t nat -F LIBVIRT_PRT; ip6tables -t nat -F LIBVIRT_PRT");
    assert_eq!(odd(&pair(real.measure())), ["guest → LAN block Differs", "LAN → guest pass Differs"]);
    real.down();
}

#[track_caller]
fn compared(rig: &Rig, networks: &[&str]) -> Value {
    compared_with("libvirt", rig, networks)
}

#[track_caller]
fn compared_with(system: &str, rig: &Rig, networks: &[&str]) -> Value {
    let host = of_the_host();
    let constructs: Vec<String> = networks.iter().map(|name| format!("{system}/{name}")).collect();
    let mut words = vec![env!("CARGO_BIN_EXE_netloom"), "-q", "compare", "--against", system, "--json"];
    words.extend(constructs.iter().map(String::as_str));
    // Longer than the rig gives a command: under emulation VMs are minutes of two processors.
    let ended = Ended::from(rig.patient(1800, &words).output().unwrap());
    let document = ended.json();
    let counts = &document["counts"];
    let sound = ["differ", "unknown", "failed"].iter().all(|name| counts[name] == 0);
    assert!(sound && [0, 3].contains(&ended.code), "{}{counts} {}", ended.stderr, document["pairs"]);
    rig.assert_gone();
    assert_eq!(of_the_host(), host);
    document
}

#[test]
#[ignore = "slow"]
fn networks_of_libvirts_own_are_equal() {
    let document = compared(&Rig::new(), &["nat", "route", "open", "isolated", "very-isolated"]);
    assert_eq!(document["counts"]["pairs"], 5);
    assert_eq!(document["counts"]["compared"], 35);
    assert_eq!(document["counts"]["equal"], 35);
    assert!(document["pairs"].as_array().unwrap().iter().all(|pair| pair["guests"] == "namespace"));
}

/// Whether Incus can be had here. A release that has no package of it cannot show it; where there is one, it is installed.
fn has_incus() -> bool {
    let said = Command::new("apt-cache").args(["show", "incus-base"]).output();
    let packaged = said.is_ok_and(|said| said.status.success());
    let installed = System::Incus.is_possible();
    assert!(installed.is_ok() || !packaged, "{installed:?}: scripts/setup.sh --tests installs it");
    if let Err(missing) = &installed {
        eprintln!("not run: {missing}, and there is no package of it here");
    }
    installed.is_ok()
}

#[test]
fn the_managed_bridge_is_incus_own() {
    if !has_incus() {
        return;
    }
    let real = Real::up("incus/bridge");
    let bridge = names::link(&real.lab, "bridge", "net");
    let incus =
        |words: &str| real.sh(&format!("INCUS_DIR=/run/incus INCUS_CONF=/run/incus-client incus {words}"));
    let list: Value = serde_json::from_str(&incus("network list --format json")).unwrap();
    let ours = list.as_array().unwrap().iter().find(|network| network["name"] == bridge.as_str()).unwrap();
    assert_eq!((&ours["managed"], &ours["type"]), (&true.into(), &"bridge".into()), "{ours}");
    assert_eq!(ours["config"]["ipv4.address"], "10.88.0.1/24");
    let forwards: Value =
        serde_json::from_str(&incus(&format!("network forward list {bridge} --format json"))).unwrap();
    assert_eq!(forwards.as_array().unwrap().len(), 2, "{forwards}");
    // The rules are Incus's, the leases its dnsmasq's, and netloom has no ruleset on this host.
    assert_eq!(real.sh("nft list tables").trim(), "table inet incus");
    let leases = real.sh(&format!("cat /run/incus/networks/{bridge}/dnsmasq.leases"));
    assert!(leases.contains(" a ") && leases.contains(" b "), "{leases}");
    assert!(real.sh(&format!("ip -br link show master {bridge}")).lines().count() == 2);

    let sound = real.measure();
    let ours = |theirs| Pair::new(real.thing, "namespace", sound.clone(), theirs);
    assert!(odd(&ours(sound.clone())).is_empty(), "{sound:?}");
    // What hides the guests.
    real.sh(&format!("nft flush chain inet incus pstrt.{bridge}"));
    assert_eq!(odd(&ours(real.measure())), ["guest → LAN block Differs"]);
    real.down();
}

#[test]
fn incus_own_network_is_equal_or_explained() {
    if !has_incus() {
        return;
    }
    let document = compared_with("incus", &Rig::new(), &["bridge"]);
    let counts = &document["counts"];
    assert_eq!((&counts["compared"], &counts["equal"]), (&7.into(), &6.into()), "{document}");
    assert_eq!(counts["explained"], 1, "{document}");
}

/// These libvirt plugs a domain into itself. Where it is known to be another thing, the reason is printed.
#[test]
#[ignore = "slow"]
fn what_libvirt_plugs_domains_into_is_equal_or_explained() {
    let networks = ["bridge", "macvtap-bridge", "macvtap-vepa", "macvtap-private", "user", "isolated-port"];
    let document = compared(&Rig::new().with_images(), &networks);
    assert!(document["pairs"].as_array().unwrap().iter().all(|pair| pair["guests"] == "vm"));
    assert_eq!(document["counts"]["pairs"], 8);
    assert_eq!(document["counts"]["compared"], 58);
    assert_eq!(document["counts"]["explained"], 7);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let rig = Rig::new();
    rig.run(&["compare", "--against", "libvirt", "vmware/nat"]).said(2, &["none of these", "libvirt's"]);
    rig.run(&["compare", "--against", "incus", "libvirt/nat"]).said(2, &["none of these", "incus's"]);
    rig.run(&["compare", "--against", "beos"]).said(2, &["libvirt", "incus"]);
    if has_incus() {
        rig.run(&["compare", "--against", "incus", "--guests", "vm"]).said(2, &["namespaces as guests"]);
    }
    let ordinary = Rig::ordinary();
    ordinary.run(&["compare", "--against", "libvirt", "libvirt/nat"]).said(3, &["needs root", "sudo"]);
    ordinary.run(&["compare", "--against", "incus"]).said(3, &["needs root", "sudo"]);
    ordinary.assert_gone();
}
