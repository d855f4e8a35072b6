#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::mode::example::example;
use crate::resource::BRIDGE_RULESET;
use crate::topology::{self, LoadOptions};

/// Everything has one and the same few names: networks, VLANs, guests, zones.
const ONE_NAME: &str = "
lab: eth0
networks:
  eth0: { mode: nat, subnet: 10.1.0.0/24, forward: [{ service: tcp/80, to: eth0 }] }
  eth1: { mode: user, subnet: 10.2.0.0/24 }
  host-eth0: { mode: internal }
  tag0: { mode: internal, vlans: { eth0: 10, tag0: 20 } }
  router: { mode: internal }
  dnsmasq: { mode: proxmox/sdn-qinq, uplink: eth0, tag: [100, 10] }
  network: { mode: bridged, uplink: eth1, tag: 100 }
links:
  - { between: [host-eth0, router] }
guests:
  eth0:
    nics: [{ network: eth0 }, { network: host-eth0, address: 10.3.0.1/24 }, { network: tag0, trunk: [eth0, tag0], addresses: { eth0: 10.4.0.1/24, tag0: 10.5.0.1/24 } }]
    firewall: { zones: { eth0: [eth0], eth1: [host-eth0] }, dhcp: { eth1: 10.3.0.100-10.3.0.120 } }
    serve: [tcp/80]
  eth1:
    nics: [{ network: eth1 }, { network: router }, { network: tag0, vlan: eth0, address: 10.4.0.2/24 }]
    serve: [tcp/80]
  tag0: { nics: [{ network: dnsmasq, address: 10.6.0.1/24 }, { network: network, address: 10.7.0.1/24 }] }
  router: { nics: [{ network: eth0 }, { network: eth1 }] }
  network: { nics: [{ network: eth0 }] }
";

/// What a file with guests of this kind wants; an error where the file cannot have such guests.
fn nodes_of(text: &str, guests: GuestKind) -> Result<Vec<Node>, String> {
    let topology = topology::load("test", text, &LoadOptions { guests: Some(guests) });
    let topology = topology.map_err(|e| e.to_string())?;
    Ok(nodes(&topology, Path::new("/usr/bin/netloom")).unwrap())
}

/// Every file that can be built, by its name.
fn files() -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([("one name".to_owned(), ONE_NAME.to_owned())]);
    for directory in ["topologies", "tests/good"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "yaml") {
                out.insert(path.display().to_string(), fs::read_to_string(path).unwrap());
            }
        }
    }
    out.extend(mode::all().map(|mode| (mode.id.to_owned(), example(mode, None))));
    out
}

/// Where a resource's links live, with their kernel names.
fn links(resource: &Resource) -> Vec<(Place, String)> {
    match resource {
        Resource::Bridge(bridge) => vec![(Place::Host, bridge.link.clone())],
        Resource::Tap(tap) => vec![(Place::Host, tap.link.clone())],
        Resource::Veth(veth) => veth.ends.iter().map(|end| (end.place.clone(), end.link.clone())).collect(),
        Resource::Vlan(vlan) => vec![(vlan.place.clone(), vlan.link.clone())],
        Resource::Macvlan(macvlan) => vec![(macvlan.place.clone(), macvlan.link.clone())],
        Resource::Vxlan(vxlan) => vec![(Place::Host, vxlan.link.clone())],
        _ => Vec::new(),
    }
}

/// Two resources of one name would be one: the second is never made, or takes the first one's place.
#[test]
fn no_two_resources_have_one_name() {
    let files = files();
    assert!(files.len() > 60, "{}", files.len());
    for (name, text) in &files {
        for kind in [GuestKind::Namespace, GuestKind::Vm] {
            let nodes = match nodes_of(text, kind) {
                Err(e) => {
                    assert_eq!(kind, GuestKind::Vm, "{name}: {e}");
                    continue;
                }
                Ok(nodes) => nodes,
            };
            let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
            for node in &nodes {
                assert!(ids.insert(&node.id), "{name}: two are called {}", node.id);
                for link in links(&node.resource) {
                    assert!(taken.insert(link.clone()), "{name}: two links {link:?}, one of {}", node.id);
                }
            }
            // A service's files are in a directory of its own.
            let directory = |id: &&Id| id.kind == Kind::Service;
            let dirs: BTreeSet<_> =
                ids.iter().copied().filter(directory).map(|id| id.name.replace('/', ".")).collect();
            assert_eq!(dirs.len(), ids.iter().copied().filter(directory).count(), "{name}");
            for need in nodes.iter().flat_map(|node| &node.needs) {
                assert!(ids.contains(need), "{name}: nobody makes {need}");
            }
        }
    }
}

/// Ports of every sort on bridges that are filtered: the host barred, an uplink guarded, no leg of the host.
const FILTERED: &str = "
lab: filtered
networks:
  barred: { mode: esxi/port-group, uplink: eth0 }
  guarded: { mode: bridged, uplink: eth1, ingress: false }
  tagged: { mode: esxi/port-group, uplink: eth2, tag: 10 }
  inner: { mode: internal }
  far: { mode: internal }
  user: { mode: user }
  legs: { mode: nat, vlans: { red: { id: 10, subnet: 10.9.0.0/24, host: true } } }
links:
  - { between: [barred, inner] }
  - { between: [guarded, far], vxlan: 7 }
guests:
  vm: { kind: vm, nics: [{ network: barred }, { network: guarded }, { network: inner, address: 10.8.0.1/24 }] }
  pc: { kind: namespace, nics: [{ network: barred }, { network: tagged }, { network: user }] }
";

/// A port that comes up on a running bridge before the changed tables name it passes what they would stop.
#[test]
fn no_port_comes_up_before_the_tables_know_it() {
    let topology = topology::load("test", FILTERED, &LoadOptions::default());
    let topology = topology.map_err(|e| e.to_string()).unwrap();
    let nodes = nodes(&topology, Path::new("/usr/bin/netloom")).unwrap();
    let tables = [Id::new(Kind::Ruleset, HOST), Id::new(Kind::Ruleset, BRIDGE_RULESET)];
    assert!(tables.iter().all(|table| nodes.iter().any(|node| node.id == *table)));
    let mut ports = BTreeSet::new();
    for node in &nodes {
        let plugged = match &node.resource {
            Resource::Tap(_) | Resource::Uplink(_) | Resource::Vxlan(_) => true,
            Resource::Veth(veth) => veth.ends.iter().any(|end| end.port.is_some()),
            // The host's legs pass what the tables are about, too.
            Resource::Vlan(vlan) => vlan.place == Place::Host,
            _ => false,
        };
        if plugged {
            ports.insert(node.id.to_string());
            assert!(tables.iter().all(|table| node.needs.contains(table)), "{}: {:?}", node.id, node.needs);
        }
    }
    assert_eq!(
        ports.into_iter().collect::<Vec<_>>(),
        [
            "tap vm/eth0",
            "tap vm/eth1",
            "tap vm/eth2",
            "uplink barred",
            "uplink guarded",
            "veth barred/inner.0",
            "veth pc/eth0",
            "veth pc/eth1",
            "veth pc/eth2",
            "veth user+router/inside",
            "vlan legs.red",
            "vlan tagged/tag",
            "vxlan guarded+far+1+0",
            "vxlan guarded+far+1+1"
        ]
    );
}

/// The kernel has one interface for a VLAN of a link: customers inside a provider's VLAN share it.
#[test]
fn customers_share_the_providers_vlan() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good/customer-vlans.yaml");
    let nodes = nodes_of(&fs::read_to_string(path).unwrap(), GuestKind::Namespace).unwrap();
    let mut vlans = BTreeMap::new();
    let name = |link: &str| {
        let of = |node: &&Node| matches!(&node.resource, Resource::Vlan(vlan) if vlan.link == link);
        nodes.iter().find(of).map_or(link.to_owned(), |node| node.id.name.clone())
    };
    for node in &nodes {
        let Resource::Vlan(vlan) = &node.resource else { continue };
        let below = Id::new(Kind::Vlan, name(&vlan.parent));
        assert_eq!(node.needs.contains(&below), nodes.iter().any(|node| node.id == below), "{}", node.id);
        let line = format!("{} {} {} on {}", vlan.vid, vlan.protocol.word(), vlan.mtu, name(&vlan.parent));
        vlans.insert(node.id.name.clone(), (line, vlan.port.is_some()));
    }
    let wanted = [
        ("blue/tag", "20 802.1Q 1400 on eth0+100", true),
        ("eth0+100", "100 802.1ad 1496 on eth0", false),
        ("eth1+100", "100 802.1ad 1500 on eth1", false),
        ("far/tag", "10 802.1Q 1500 on eth1+100", true),
        ("plain/tag", "10 802.1Q 1500 on eth0", true),
        ("red/tag", "10 802.1Q 1496 on eth0+100", true),
    ];
    let wanted = wanted.map(|(name, line, port)| (name.to_owned(), (line.to_owned(), port)));
    assert_eq!(vlans, BTreeMap::from(wanted));
}
