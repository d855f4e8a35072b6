#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::host::links::LinkState;
use crate::inventory::Found;
use crate::resource::desired;
use crate::topology::{self, GuestKind, LoadOptions};

const LAB: &str = "
lab: plans
networks:
  wan: { mode: nat, subnet: 10.99.0.0/24 }
  core: { mode: internal, vlans: { lan: 10, dmz: 20 } }
guests:
  a: { nics: [{ network: wan, address: 10.99.0.10/24 }], serve: [tcp/80] }
  b: { nics: [{ network: core, vlan: dmz, address: 10.10.20.10/24 }] }
";

fn nodes(text: &str, kind: GuestKind) -> Vec<Node> {
    let options = LoadOptions { guests: Some(kind) };
    let topology = topology::load("test", text, &options).map_err(|e| e.to_string()).unwrap();
    desired::nodes(&topology, Path::new("/usr/bin/netloom")).unwrap()
}

/// What a host looks like once everything wanted is there.
fn built(nodes: &[Node]) -> Inventory {
    let found = nodes.iter().filter(|node| !is_nothing(&node.resource)).map(|node| {
        let digest = digest(&node.resource);
        (node.id.clone(), Found { resource: node.resource.clone(), defects: Vec::new(), digest })
    });
    Inventory { found: found.collect(), ..Inventory::default() }
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.summary()
        .iter()
        .map(|s| format!("{} {} {}: {}", s.verb, s.kind, s.name, s.reasons.join(", ")))
        .collect()
}

#[test]
fn what_is_there_needs_no_change() {
    for kind in [GuestKind::Vm, GuestKind::Namespace] {
        let nodes = nodes(LAB, kind);
        assert_eq!(lines(&compare(&nodes, &built(&nodes)).unwrap()), Vec::<String>::new());
    }
}

#[test]
fn an_empty_host_needs_everything_after_what_it_needs() {
    let nodes = nodes(LAB, GuestKind::Namespace);
    let plan = compare(&nodes, &Inventory::default()).unwrap();
    let ids: BTreeSet<&Id> = plan.changes.iter().map(|change| &change.id).collect();
    assert!(plan.changes.iter().all(|change| change.verb == Verb::Create));
    assert!(plan.changes.iter().flat_map(|change| &change.needs).all(|need| ids.contains(need)));
    assert!(ids.contains(&Id::new(Kind::Bridge, "core")) && ids.contains(&Id::new(Kind::Veth, "a/eth0")));
}

#[test]
fn a_changed_vlan_changes_one_port_and_says_so() {
    let old = nodes(LAB, GuestKind::Namespace);
    let new = nodes(&LAB.replace("vlan: dmz", "vlan: lan"), GuestKind::Namespace);
    let plan = compare(&new, &built(&old)).unwrap();
    assert_eq!(lines(&plan), ["update veth b/eth0: port access 20 → access 10"]);
}

#[test]
fn a_removed_guest_is_removed_and_nothing_else() {
    let old = nodes(LAB, GuestKind::Namespace);
    let text: String =
        LAB.lines().filter(|line| !line.starts_with("  b:")).map(|line| format!("{line}\n")).collect();
    let plan = compare(&nodes(&text, GuestKind::Namespace), &built(&old)).unwrap();
    assert!(plan.changes.is_empty(), "{:?}", lines(&plan));
    let removed: Vec<String> = plan.removals.iter().map(|change| change.id.to_string()).collect();
    assert_eq!(removed, ["veth b/eth0", "namespace b", "sysctls b"]);
}

#[test]
fn a_domain_follows_its_tap_and_nothing_else_does() {
    let nodes = nodes(LAB, GuestKind::Vm);
    let mut host = built(&nodes);
    host.found.remove(&Id::new(Kind::Tap, "b/eth0"));
    let plan = compare(&nodes, &host).unwrap();
    assert_eq!(
        lines(&plan),
        ["create tap b/eth0: does not exist", "replace domain b: tap b/eth0, which it uses, is made anew"]
    );
}

#[test]
fn more_memory_is_a_new_domain_with_the_reason() {
    let old = nodes(LAB, GuestKind::Vm);
    let new = nodes(&LAB.replace("  a: {", "  a: { memory: 256 MiB,"), GuestKind::Vm);
    let plan = compare(&new, &built(&old)).unwrap();
    assert_eq!(lines(&plan), ["replace domain a: memory 128 MiB → 256 MiB"]);
}

#[test]
fn a_foreign_object_in_the_way_is_named_and_left() {
    let nodes = nodes(LAB, GuestKind::Vm);
    let mut host = Inventory::default();
    host.taken.insert(domain_key("plans-a"));
    let error = compare(&nodes, &host).unwrap_err();
    assert_eq!(error.kind.exit_code(), 3);
    assert!(error.message().contains("domain plans-a exists and is not netloom's"), "{error}");
}

#[test]
fn defects_are_mended() {
    let nodes = nodes(LAB, GuestKind::Namespace);
    let mut host = built(&nodes);
    host.found.get_mut(&Id::new(Kind::Bridge, "wan")).unwrap().defects.push("`nlx` is down".into());
    host.strays.push((Place::Host, "nlstray".into()));
    let plan = compare(&nodes, &host).unwrap();
    assert_eq!(
        lines(&plan),
        ["delete link nlstray: left by a run that was cut off", "update bridge wan: `nlx` is down"]
    );
}

#[test]
fn removal_goes_backwards() {
    let nodes = nodes(LAB, GuestKind::Namespace);
    let plan = removal(&built(&nodes));
    assert_eq!(plan.removals.len(), built(&nodes).found.len());
    assert!(plan.removals.is_sorted_by(|a, b| a.id.kind >= b.id.kind));
}

const MOVES: &str = "
lab: plans
networks:
  one: { mode: nat, subnet: [10.1.0.0/24, 'fd01::/64'] }
  two: { mode: nat, subnet: 10.2.0.0/24 }
guests:
  a: { nics: [{ network: one, address: [10.1.0.9/24, 'fd01::9/64'] }] }
  b: { nics: [{ network: one }] }
";

/// Kinds and names of what is made anew when `MOVES` becomes what it is with `from` replaced by `to`.
fn anew(from: &str, to: &str) -> Vec<String> {
    let old = nodes(MOVES, GuestKind::Namespace);
    let new = nodes(&MOVES.replace(from, to), GuestKind::Namespace);
    let plan = compare(&new, &built(&old)).unwrap();
    let replaced = plan.changes.iter().filter(|change| change.verb == Verb::Replace);
    replaced.map(|change| change.id.to_string()).collect()
}

/// Neighbours, advertised addresses and the lease of the old network would stay otherwise.
#[test]
fn a_guest_that_moves_forgets_its_old_network() {
    assert_eq!(
        anew("b: { nics: [{ network: one", "b: { nics: [{ network: two"),
        ["veth b/eth0", "service b/dhcp-eth0"]
    );
}

#[test]
fn an_interface_that_begins_to_heed_advertisements_is_made_anew() {
    // The server's names change too; the client of the other guest stays.
    assert_eq!(
        anew(", address: [10.1.0.9/24, 'fd01::9/64']", ""),
        ["veth a/eth0", "service one+network/dnsmasq"]
    );
}

/// The lease names a router that is there no more.
#[test]
fn clients_ask_again_when_the_offer_changes() {
    assert_eq!(
        anew("'fd01::/64'] }", "'fd01::/64'], host: [10.1.0.7, 'fd01::1'] }"),
        ["service b/dhcp-eth0", "service one+network/dnsmasq"]
    );
}

/// The host's own network, or another lab's, would be cut off.
#[test]
fn a_subnet_that_the_host_has_elsewhere_is_refused() {
    use crate::host::links::PlaceState;
    let nodes = nodes(MOVES, GuestKind::Namespace);
    let with = |address: &str| {
        let mut state = PlaceState::default();
        let link = LinkState { name: "eth0".into(), addresses: vec![address.parse().unwrap()], ..link() };
        state.links.insert(2, link);
        Inventory { places: BTreeMap::from([(Place::Host, state)]), ..Inventory::default() }
    };
    for taken in ["10.1.0.200/16", "10.2.0.77/32", "fd01::5/128"] {
        let error = compare(&nodes, &with(taken)).unwrap_err();
        assert_eq!(error.kind.exit_code(), 3);
        assert!(error.message().contains("eth0") && error.message().contains(taken), "{error}");
    }
    for free in ["10.3.0.1/16", "fd02::1/64"] {
        assert!(compare(&nodes, &with(free)).is_ok(), "{free}");
    }
    let mut built = built(&nodes);
    built.places = with("10.1.0.200/16").places;
    assert!(compare(&nodes, &built).unwrap().is_empty(), "what is there stays");
}

fn link() -> LinkState {
    LinkState {
        index: 2,
        name: String::new(),
        alias: String::new(),
        altnames: Vec::new(),
        link_local: true,
        accepts_ra: false,
        ipv6_off: false,
        answers_arp: true,
        route_localnet: false,
        group: 0,
        kind: crate::host::links::LinkKind::Other,
        mac: None,
        mtu: 1500,
        up: true,
        carrier: true,
        controller: None,
        settling: false,
        isolated: false,
        odd: Vec::new(),
        lower: None,
        netns_below: None,
        addresses: Vec::new(),
        dynamic: Vec::new(),
        vlans: Vec::new(),
    }
}

/// An interface on a link that is made anew goes with it, and a rollback must know.
#[test]
fn what_sits_on_a_link_is_made_anew_with_it() {
    use crate::resource::{Port, Vlan, VlanProtocol};
    let vlan = |link: &str, parent: &str, vid, protocol, port| Vlan {
        place: Place::Host,
        parent: parent.into(),
        link: link.into(),
        vid,
        protocol,
        mtu: 1500,
        port,
        addresses: Vec::new(),
        advertised: None,
    };
    let lab = |protocol, isolated| {
        let node = |name: &str, vlan, needs| Node {
            id: Id::new(Kind::Vlan, name),
            resource: Resource::Vlan(vlan),
            needs,
        };
        let port = Port { bridge: "nlb".into(), attach: crate::topology::Attach::Plain, isolated };
        let outer = vlan("nlo", "eth0", 100, protocol, None);
        let inner = vlan("nli", "nlo", 30, VlanProtocol::Dot1q, Some(port));
        let needs = vec![Id::new(Kind::Vlan, "wan.outer")];
        vec![node("wan", inner, needs), node("wan.outer", outer, Vec::new())]
    };
    let changed = |new: &[Node]| lines(&compare(new, &built(&lab(VlanProtocol::Dot1ad, false))).unwrap());
    assert_eq!(
        changed(&lab(VlanProtocol::Dot1q, false)),
        [
            "replace vlan wan.outer: tags 802.1ad → 802.1Q",
            "replace vlan wan: vlan wan.outer, which it uses, is made anew"
        ]
    );
    assert_eq!(changed(&lab(VlanProtocol::Dot1ad, true)), ["update vlan wan: port isolation off → on"]);
    assert_eq!(changed(&lab(VlanProtocol::Dot1ad, false)), Vec::<String>::new());
}

const FORWARDS: &str = "
lab: plans
networks:
  one: { mode: nat, subnet: [10.1.0.0/24, 'fd01::/64'], forward: [{ service: tcp/8080-8089, to: a }] }
  two: { mode: user, subnet: 10.2.0.0/24, forward: [{ service: udp/53, to: b, address: 192.0.2.10 }] }
guests:
  a: { nics: [{ network: one, address: 10.1.0.9/24 }] }
  b: { nics: [{ network: two }] }
";

/// The kernel would take whichever rule it comes to first, and one lab's guests would be silent.
#[test]
fn a_port_that_another_lab_forwards_is_refused() {
    use crate::resource::HostPort;
    use crate::topology::Protocol::{Tcp, Udp};
    let wanted = nodes(FORWARDS, GuestKind::Namespace);
    let with = |protocol, address: Option<&str>, six, ports| {
        let address = address.map(|ip| ip.parse().unwrap());
        let theirs = HostPort { protocol, six, address, ports };
        Inventory { forwards: vec![("other".into(), theirs)], ..Inventory::default() }
    };
    for (taken, words) in [
        (with(Tcp, None, false, (8080, 8080)), "`other` forwards tcp/8080 on every IPv4 address"),
        (with(Tcp, None, false, (8000, 8080)), "`other` forwards tcp/8000-8080 on every IPv4 address"),
        (with(Tcp, Some("192.0.2.99"), false, (8089, 9000)), "on 192.0.2.99 of this host already"),
        (with(Udp, Some("192.0.2.10"), false, (53, 53)), "this lab wants to forward udp/53 on 192.0.2.10"),
        (with(Udp, None, false, (1, 65535)), "this lab wants to forward udp/53 on 192.0.2.10"),
    ] {
        let error = compare(&wanted, &taken).unwrap_err();
        assert_eq!(error.kind.exit_code(), 3);
        assert!(error.message().contains(words), "{error}");
        // What is in force is not taken back; what changes is looked at again.
        let mut there = Inventory { forwards: taken.forwards, ..built(&wanted) };
        assert!(compare(&wanted, &there).unwrap().is_empty());
        there.found.get_mut(&Id::new(Kind::Ruleset, "host")).unwrap().digest = None;
        assert!(compare(&wanted, &there).is_err());
    }
    let listens = |protocol, address: Option<&str>, six, port| {
        let address = address.map(|ip| ip.parse().unwrap());
        let theirs = HostPort { protocol, six, address, ports: (port, port) };
        Inventory { listening: vec![theirs], ..Inventory::default() }
    };
    for (taken, words) in [
        (listens(Tcp, None, false, 8080), "listens on tcp/8080 on every IPv4 address"),
        (listens(Tcp, Some("127.0.0.1"), false, 8085), "listens on tcp/8085 on 127.0.0.1"),
        (listens(Udp, Some("192.0.2.10"), false, 53), "this lab wants to forward udp/53 on 192.0.2.10"),
    ] {
        let error = compare(&wanted, &taken).unwrap_err();
        assert_eq!(error.kind.exit_code(), 3);
        assert!(error.message().contains(words), "{error}");
    }
    for free in [
        listens(Tcp, None, true, 8080),
        listens(Udp, Some("127.0.0.53"), false, 53),
        // What serves the network itself.
        listens(Tcp, Some("10.1.0.1"), false, 8080),
        with(Tcp, None, true, (8080, 8089)),
        with(Udp, None, false, (8080, 8089)),
        with(Tcp, None, false, (8090, 8099)),
        with(Udp, Some("192.0.2.11"), false, (53, 53)),
    ] {
        assert!(compare(&wanted, &free).is_ok(), "{:?}", free.forwards);
    }
}
