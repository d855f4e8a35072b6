//! Constructs that are about VLANs, with frames that carry tags: what they promise is measured, and a capture on the
//! uplink says which tags there were.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use netloom::compare::cases::{self, Case};
use serde_json::Value;

use crate::rig::{Rig, eventually, signal};
use crate::whole::said;

/// The tags of a frame, the outer one first: type (`8100` 802.1Q, `88a8` 802.1ad) and VID.
type Tags = Vec<(String, u16)>;

/// A frame as `tcpdump -e -xx` shows it, from its bytes.
fn frame(bytes: &[u8]) -> (String, String, Tags) {
    let mac = |at: usize| bytes[at..at + 6].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    let mut tags = Vec::new();
    let mut at = 12;
    while let [a, b, c, d, ..] = bytes[at..]
        && matches!([a, b], [0x81, 0x00] | [0x88, 0xa8])
    {
        tags.push((format!("{a:02x}{b:02x}"), u16::from_be_bytes([c, d]) & 0x0fff));
        at += 4;
    }
    (mac(6), mac(0), tags)
}

/// Frames of a capture that was written as text.
fn frames(text: &str) -> Vec<(String, String, Tags)> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        match line.trim_start().strip_prefix("0x") {
            Some(rest) => {
                let (_, words) = rest.split_once(':').unwrap();
                let digits: String = words.chars().filter(|c| !c.is_whitespace()).collect();
                let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
                all.last_mut().unwrap().extend((0..digits.len()).step_by(2).map(byte));
            }
            None => all.push(Vec::new()),
        }
    }
    all.iter().filter(|bytes| bytes.len() >= 14).map(|bytes| frame(bytes)).collect()
}

/// Measures a case in a lab of its own, and captures what passes its uplink meanwhile.
#[track_caller]
fn captured(case: &Case) -> (Vec<(String, String, Tags)>, BTreeSet<String>) {
    let rig = Rig::new();
    let lab = case.lab();
    rig.up(&rig.file("lab.yaml", &case.example()));
    let host = format!("{lab}/host");
    let guests: BTreeSet<String> = ["a", "b"]
        .iter()
        .map(|guest| {
            rig.sh(&format!("{lab}/{guest}"), "ip -j link show eth0 | jq -r '.[].address'").trim().to_owned()
        })
        .collect();

    let (seen, said) = (rig.work.join("frames"), rig.work.join("said"));
    let words = ["exec", &host, "--", "tcpdump", "-Z", "root", "-i", "eth0", "-nn", "-l", "-xx", "-s", "64"];
    let mut capture = rig
        .command(&words)
        .stdout(fs::File::create(&seen).unwrap())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let text = || fs::read_to_string(&said).unwrap();
    eventually("the capture runs", || text().contains("listening on").then_some(()), text);
    let row: Value = rig.json(&["__measure", &lab, &case.index.to_string()]);
    signal("TERM", &[capture.id().to_string()]);
    capture.wait().unwrap();

    let cells = row["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 7, "{row}");
    for cell in cells {
        assert_eq!(cell["agreement"], "equal", "{}: {cell}", case.mode.id);
    }
    (frames(&fs::read_to_string(&seen).unwrap()), guests)
}

/// Guests' frames carry these tags and no others, and nobody's frames carry any that the LAN does not know.
#[track_caller]
fn only_tagged(construct: &str, index: usize, tags: &[(&str, u16)]) {
    let (frames, guests) = captured(&cases::find(construct, index).unwrap());
    let tags_of = |list: &[(&str, u16)]| -> Tags {
        list.iter().map(|(kind, vid)| ((*kind).to_owned(), *vid)).collect()
    };
    let wanted = tags_of(tags);
    // What the LAN's router tells everybody in its three segments passes the uplink as well.
    let known = [Vec::new(), tags_of(&[("8100", 10)]), tags_of(&[("88a8", 100), ("8100", 10)])];
    let (mut sent, mut received) = (BTreeMap::new(), 0);
    for (from, to, tags) in &frames {
        let of_guests = guests.contains(from) || guests.contains(to);
        assert!(!of_guests || *tags == wanted, "{from} {to} {tags:?}");
        assert!(known.contains(tags), "{from} {to} {tags:?}");
        received += usize::from(guests.contains(to));
        if guests.contains(from) {
            *sent.entry(from).or_insert(0) += 1;
        }
    }
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent.values().all(|count| *count > 20) && received > 40, "{sent:?} {received}");
}

#[test]
#[ignore = "full-kernel"]
fn a_network_with_a_vlan_id_tags_frames() {
    only_tagged("harvester/vlan", 0, &[("8100", 10)]);
}

#[test]
#[ignore = "full-kernel"]
fn a_trunk_port_group_hands_tags_to_the_guest() {
    only_tagged("esxi/port-group-trunk", 0, &[("8100", 10)]);
}

#[test]
#[ignore = "full-kernel"]
fn a_customers_vlan_travels_in_the_providers() {
    only_tagged("proxmox/sdn-qinq", 0, &[("88a8", 100), ("8100", 10)]);
}

/// Every state of those that have several: without and with a leg of the host in the VLAN, without and with a VLAN ID.
#[test]
#[ignore = "full-kernel"]
fn constructs_of_vlans_keep_their_contracts_in_every_state() {
    let rig = Rig::new();
    let temporary = rig.work.join("tmp");
    fs::create_dir(&temporary).unwrap();
    let variable = format!("TMPDIR={}", temporary.display());
    let rig = rig.through(&["env", &variable]);
    let constructs = ["proxmox/vlan-aware", "harvester/vlan", "esxi/port-group"];
    let ended = rig.run(&[&["-q", "compare", "--json"], &constructs[..]].concat());
    let document = said(&ended);
    assert_eq!((&document["counts"]["rows"], &document["counts"]["cells"]), (&6.into(), &42.into()));
    // The neighbour was asked in the VLAN and nowhere else.
    let rows = document["rows"].as_array().unwrap().iter();
    let tagged = rows.filter(|row| row["state"] != "VLAN ID 0");
    let cells = tagged.flat_map(|row| row["cells"].as_array().unwrap());
    let probes = cells.flat_map(|cell| cell["probes"].as_array().unwrap());
    let asked: BTreeSet<&str> = probes
        .filter(|probe| probe["to"] == "lan" && probe["service"] != "dhcp")
        .map(|probe| probe["address"].as_str().unwrap())
        .collect();
    assert_eq!(asked, BTreeSet::from(["2001:db8:3::20", "203.0.113.20"]));
    rig.assert_gone();
}

/// A kernel without VLANs is no failure of a construct, and the way to measure it is said.
#[test]
fn what_needs_vlans_is_counted_where_there_are_none() {
    if has_vlans() {
        return;
    }
    let rig = Rig::new();
    let ended = rig.run(&["compare", "proxmox/sdn-qinq", "esxi/port-group-trunk", "--json"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["counts"]["lacking"], 2);
    for row in document["rows"].as_array().unwrap() {
        assert_eq!(row["outcome"]["reason"], "needs VLANs: not measured on this kernel");
    }
    assert!(
        ended.stderr.contains("2 rows need VLANs") && ended.stderr.contains("make compare"),
        "{}",
        ended.stderr
    );
}

/// Whether this kernel has VLANs, by `ip`.
fn has_vlans() -> bool {
    let script = "ip link add probe type bridge vlan_filtering 1 && ip link add link probe name probe.7 type vlan id 7";
    let status = std::process::Command::new("unshare").args(["-n", "sh", "-c", script]).output().unwrap();
    status.status.success()
}
