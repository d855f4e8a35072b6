//! What files mean: the model of each is compared with what the language's documentation says, written out by hand.

use netloom::resource::Resource;
use netloom::topology::{
    Addressing, Attach, GuestKind, Image, LoadOptions, Nic, Rule, RuleAction, Service, Topology, ZoneRef,
    load,
};

use super::{load_path, root};

fn good(name: &str) -> Topology {
    load_path(&root().join("tests/good").join(name)).unwrap_or_else(|said| panic!("{said}"))
}

fn fixed(addresses: &[&str]) -> Addressing {
    Addressing::Static(addresses.iter().map(|text| text.parse().unwrap()).collect())
}

fn nic<'t>(topology: &'t Topology, guest: &str, index: usize) -> &'t Nic {
    &topology.guests[guest].nics[index]
}

fn routes(topology: &Topology, guest: &str) -> Vec<String> {
    topology.guests[guest].routes.iter().map(|route| format!("{} via {}", route.to, route.via)).collect()
}

fn range(topology: &Topology, network: &str) -> Option<String> {
    topology.networks[network].dhcp.map(|range| format!("{}-{}", range.first, range.last))
}

fn services(rule: &Rule) -> Vec<String> {
    rule.services.iter().map(Service::to_string).collect()
}

fn targets(rule: &Rule) -> Vec<String> {
    rule.forward
        .iter()
        .map(|target| std::net::SocketAddr::new(target.address, target.port).to_string())
        .collect()
}

#[test]
fn the_example_means_what_the_documentation_says() {
    let lab = good("spec-example.yaml");
    let wan = &nic(&lab, "fw", 0).interfaces;
    assert_eq!(wan[0].addressing, Addressing::Dynamic { v4: true, v6: false });
    let core = nic(&lab, "fw", 1);
    assert_eq!(core.attach, Attach::Trunk { tagged: vec![10, 20], native: None });
    let names: Vec<(&str, &str)> =
        core.interfaces.iter().map(|i| (i.name.as_str(), i.reference.as_str())).collect();
    assert_eq!(names, [("eth1", "core"), ("eth1.10", "core.lan"), ("eth1.20", "core.dmz")]);
    assert_eq!(core.interfaces[0].addressing, Addressing::None);
    assert_eq!(core.interfaces[1].addressing, fixed(&["10.10.10.1/24"]));
    // The firewall's lease on `wan` brings its gateway; a fixed address on a host-only network brings none.
    assert_eq!(routes(&lab, "fw"), [""; 0]);
    assert_eq!(routes(&lab, "web"), ["0.0.0.0/0 via 10.10.20.1"]);
    // The lease of `pc` is the firewall's.
    assert_eq!(nic(&lab, "pc", 0).interfaces[0].addressing, Addressing::Dynamic { v4: true, v6: false });
    assert_eq!(nic(&lab, "pc", 0).attach, Attach::Access(10));
    let firewall = lab.guests["fw"].firewall.as_ref().unwrap();
    assert_eq!(firewall.zones["dmz"], ["eth1.20"]);
    assert_eq!(targets(&firewall.rules[2]), ["10.10.20.10:80"]);
    assert_eq!(lab.guests["fw"].memory_mib, 256);
    assert_eq!(lab.guests["pc"].memory_mib, 128);
    assert_eq!(lab.expect[3].via.as_deref(), Some("wan"));
    assert_eq!(lab.expect[3].service.to_string(), "tcp/80");
    assert_eq!(lab.expect[0].line, 40);
}

/// The uplink is a trunk; its untagged frames are the host's, in a VLAN that no guest is in.
#[test]
fn vlans_of_an_uplink_keep_the_hosts_own_frames_apart() {
    let mut lab = good("uplink-vlans.yaml");
    let net = lab.networks.get_mut("net").unwrap();
    assert_eq!(net.vlans["lan"].host, ["10.1.0.9/24".parse().unwrap()]);
    assert!(net.host.is_empty() && !net.wiring.barred);
    let attach = |lab: &Topology| {
        let nodes = netloom::resource::desired::nodes(lab, root()).unwrap();
        let found = nodes.into_iter().find_map(|node| match node.resource {
            Resource::Uplink(uplink) => Some(uplink.attach),
            _ => None,
        });
        found.unwrap()
    };
    assert_eq!(attach(&lab), Attach::Trunk { tagged: vec![1, 10], native: Some(2) });
    lab.networks.get_mut("net").unwrap().vlans.remove("dmz");
    assert_eq!(attach(&lab), Attach::Trunk { tagged: vec![10], native: Some(1) });
    let text = "lab: x\nnetworks: { n: { mode: bridged, uplink: eth0, vlans: { a: 10 } } }\n\
                guests: { g: { nics: [{ network: n, vlan: a }] } }\n";
    let bare = load("x", text, &LoadOptions::default()).unwrap();
    assert!(bare.networks["n"].wiring.barred, "without a leg the host takes no part");
}

#[test]
fn vlans_have_tagged_legs_and_lead_out_through_them() {
    let lab = good("vlan-legs.yaml");
    let core = &lab.networks["core"];
    let legs =
        |name: &str| -> Vec<String> { core.vlans[name].host.iter().map(ToString::to_string).collect() };
    assert_eq!(legs("red"), ["10.1.0.1/24", "fd00:1::1/64"]);
    assert_eq!(legs("blue"), ["10.2.0.254/24"]);
    assert_eq!(legs("bare"), [""; 0]);
    assert!(core.host.is_empty() && core.subnets.is_empty());
    assert!(!core.wiring.dhcp && !core.wiring.dns);
    assert_eq!(routes(&lab, "access"), ["0.0.0.0/0 via 10.1.0.1", "::/0 via fd00:1::1"]);
    let trunk = nic(&lab, "trunk", 0);
    assert_eq!(trunk.attach, Attach::Trunk { tagged: vec![20, 30], native: Some(10) });
    let names: Vec<(&str, &str, Option<u16>)> =
        trunk.interfaces.iter().map(|i| (i.name.as_str(), i.reference.as_str(), i.vid)).collect();
    let wanted =
        [("eth0", "core.red", None), ("eth0.20", "core.blue", Some(20)), ("eth0.30", "core.bare", Some(30))];
    assert_eq!(names, wanted);
    assert_eq!(trunk.interfaces[2].addressing, Addressing::None);
    assert_eq!(routes(&lab, "trunk"), ["0.0.0.0/0 via 10.1.0.1"]);
    assert_eq!(nic(&lab, "7", 0).interfaces[0].addressing, Addressing::None);
    assert_eq!(
        lab.expect[1].via.as_deref(),
        Some("core.red"),
        "the short name of an access port is made whole"
    );
}

#[test]
fn linked_networks_are_one_broadcast_domain() {
    let lab = good("linked-nat.yaml");
    assert_eq!(lab.links.len(), 2);
    assert_eq!(lab.links[0].attach, [Attach::Plain, Attach::Plain]);
    assert_eq!(nic(&lab, "far", 0).interfaces[0].addressing, Addressing::Dynamic { v4: true, v6: false });
    assert_eq!(nic(&lab, "far", 0).mtu, 9000);
    assert_eq!(nic(&lab, "fixed", 0).mtu, 1400);
    assert_eq!(nic(&lab, "fixed", 0).mac.to_string(), "52:54:00:aa:bb:01");
    assert_eq!(routes(&lab, "fixed"), ["0.0.0.0/0 via 10.3.0.1"]);
    // The upper half of 10.3.0.1 to 10.3.0.62 is .32 to .62; the longest run without .40 is .41 to .62.
    assert_eq!(range(&lab, "up").as_deref(), Some("10.3.0.41-10.3.0.62"));
    assert!(lab.networks["third"].stp && !lab.networks["up"].stp);
    assert!(lab.networks["up"].wiring.dhcp && !lab.networks["up"].wiring.dns);
    assert_eq!(lab.outside, ["198.51.100.7".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn rules_and_forwards_are_resolved() {
    let lab = good("forwards.yaml");
    let firewall = lab.guests["fw"].firewall.as_ref().unwrap();
    let all: Vec<(Vec<String>, Vec<String>)> =
        firewall.rules.iter().filter(|r| !r.forward.is_empty()).map(|r| (services(r), targets(r))).collect();
    let wanted: [(&[&str], &[&str]); 5] = [
        (&["tcp/80"], &["10.5.0.9:80", "[fd00:5::9]:80"]),
        (&["tcp/443"], &["10.5.0.9:443", "[fd00:5::9]:443"]),
        (&["udp/5353"], &["10.6.9.9:53"]),
        (&["tcp/8080"], &["10.5.0.9:80", "[fd00:5::9]:80"]),
        (&["tcp/81"], &["[fd00:5::9]:80"]),
    ];
    assert_eq!(all.len(), wanted.len());
    for ((services, targets), (want_services, want_targets)) in all.iter().zip(wanted) {
        assert_eq!(services, want_services);
        assert_eq!(targets, want_targets);
    }
    let last = &firewall.rules[firewall.rules.len() - 3..];
    assert_eq!((&last[0].from, &last[0].to), (&vec![ZoneRef::Any], &vec![ZoneRef::Itself]));
    assert_eq!(last[0].action, RuleAction::Reject);
    assert!(last[1].services.is_empty());
    assert_eq!(last[2].action, RuleAction::Drop);
    assert_eq!(firewall.masquerade, ["wan"]);
    // IPv4 by the file, IPv6 by default: the host.
    assert_eq!(routes(&lab, "fw"), ["0.0.0.0/0 via 10.4.0.1", "::/0 via fd00:4::1"]);
    assert_eq!(
        routes(&lab, "web"),
        ["0.0.0.0/0 via 10.5.0.1", "::/0 via fd00:5::1", "10.99.0.0/16 via 10.5.0.1"]
    );
    assert_eq!((lab.guests["fw"].cpus, lab.guests["fw"].memory_mib), (2, 1024));
}

#[test]
fn guests_are_made_of_what_the_file_says() {
    let lab = good("images.yaml");
    assert_eq!(lab.lab, "2024");
    let disk = |source: &str, sha256: Option<&str>| Image::Disk {
        source: source.to_owned(),
        sha256: sha256.map(str::to_owned),
    };
    assert_eq!(lab.guests["path"].image, disk("images/disk.qcow2", None));
    let sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_eq!(lab.guests["url"].image, disk("https://example.org/disk.qcow2", Some(sum)));
    assert_eq!(lab.guests["url"].memory_mib, 2048);
    assert_eq!(lab.guests["container"].kind, GuestKind::Namespace);
    assert_eq!(nic(&lab, "container", 1).interfaces[0].reference, "spare");
    let text = std::fs::read_to_string(root().join("tests/good/images.yaml")).unwrap();
    let all = LoadOptions { guests: Some(GuestKind::Namespace) };
    let lab = load("images.yaml", &text, &all).unwrap();
    assert!(lab.guests.values().all(|guest| guest.kind == GuestKind::Namespace));
}

#[test]
fn dhcp_gets_what_is_left() {
    let lab = good("ranges.yaml");
    assert_eq!(range(&lab, "usual").as_deref(), Some("10.10.1.100-10.10.1.199"));
    assert_eq!(range(&lab, "holed").as_deref(), Some("10.10.2.131-10.10.2.199"));
    // .4 to .6 are the upper half; .5 is a guest's and .6 the host's.
    assert_eq!(range(&lab, "small").as_deref(), Some("10.10.3.4-10.10.3.4"));
    assert_eq!(range(&lab, "chosen").as_deref(), Some("10.10.4.10-10.10.4.20"));
    assert_eq!(range(&lab, "off"), None);
    assert_eq!(range(&lab, "six"), None);
    let addressing: Vec<&Addressing> =
        lab.guests["a"].nics.iter().map(|nic| &nic.interfaces[0].addressing).collect();
    assert_eq!(addressing[2], &Addressing::None, "neither leases nor advertisements without DHCP");
    assert_eq!(addressing[3], &Addressing::Dynamic { v4: false, v6: true });
    assert_eq!(addressing[4], &Addressing::None, "no addresses from a prefix that is not 64 bits long");
    assert!(lab.networks["six"].wiring.dhcp, "router advertisements are the DHCP server's");
    assert_eq!(routes(&lab, "a"), ["0.0.0.0/0 via 10.10.3.6"], "host-only leads nowhere, routed does");
}

#[test]
fn one_text_has_one_meaning() {
    let text = std::fs::read_to_string(root().join("topologies/vlan-campus.yaml")).unwrap();
    let one = load("a", &text, &LoadOptions::default()).unwrap();
    let two = load("b", &text, &LoadOptions::default()).unwrap();
    assert_eq!(one, two);
}

/// The MAC addresses of thousands of NICs come from 24 bits; they are unique all the same.
#[test]
fn mac_addresses_never_meet() {
    let mut text = String::from("lab: many\nnetworks:\n  lan: { mode: internal }\nguests:\n");
    for guest in 0..9000 {
        text.push_str(&format!("  g{guest}: {{ nics: [{{ network: lan }}] }}\n"));
    }
    let lab = load("many", &text, &LoadOptions::default()).unwrap();
    let macs: std::collections::HashSet<_> =
        lab.guests.values().flat_map(|guest| &guest.nics).map(|nic| nic.mac).collect();
    assert_eq!(macs.len(), 9000);
}

/// Nanoseconds of CPU this thread has used; wall time says nothing on a busy machine.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Eight times the guests take about eight times as long: no check compares every guest with every other.
#[test]
fn time_grows_with_the_file_and_no_faster() {
    let cost = |guests: u32| {
        let mut text =
            String::from("lab: large\nnetworks:\n  lan: { mode: nat, subnet: 10.0.0.0/8 }\nguests:\n");
        for guest in 0..guests {
            let (high, low) = (guest / 200 + 1, guest % 200 + 1);
            text.push_str(&format!(
                "  g{guest}:\n    nics: [{{ network: lan, address: 10.1.{high}.{low}/8 }}]\n"
            ));
            text.push_str("    serve: [tcp/80]\n");
        }
        text.push_str("expect:\n");
        for guest in 1..guests {
            text.push_str(&format!("  - {{ from: g0, to: g{guest}, verdict: reachable }}\n"));
        }
        let before = cpu_time();
        assert_eq!(load("large", &text, &LoadOptions::default()).unwrap().guests.len(), guests as usize);
        cpu_time() - before
    };
    let (few, many) = (cost(1000), cost(8000));
    assert!(many < few * 20, "1000 guests take {few} ns, 8000 take {many} ns");
}
