//! What files, kernel, libvirt and guests say, at random: each function hands bytes to everything that reads one sort of
//! it, and panics where what comes out breaks a promise. For `fuzz/`, and for the tests that replay its corpus.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostics;
use crate::guest::seed;
use crate::host::libvirt::{Acceleration, DomainSpec, NicSpec, xml};
use crate::host::{agent, labdir, nft, sysctl};
use crate::inventory::{Found, Inventory};
use crate::resource::{Domain, Id, Kind, Node, Place, Resource, Service, desired, mark, names};
use crate::topology::{GuestKind, LoadOptions, Mac, Topology, load_bytes};
use crate::{apply, image, lease, plan, report};

/// A lab's file: from its text to the texts that would be handed to nft, dnsmasq, libvirt and cloud-init.
pub fn front_end(file: &[u8]) {
    for guests in [None, Some(GuestKind::Namespace)] {
        match load_bytes("netloom.yaml", file, &LoadOptions { guests }) {
            Ok(topology) => build(&topology),
            Err(diagnostics) => return show(&diagnostics),
        }
    }
}

fn show(diagnostics: &Diagnostics) {
    no_control("a diagnostic", &diagnostics.render(false));
    assert!(!diagnostics.errors().is_empty());
}

fn build(topology: &Topology) {
    // A policy may be refused when it is compiled: an error, not a panic.
    let Ok(nodes) = desired::nodes(topology, Path::new("/usr/bin/netloom")) else { return };
    for node in &nodes {
        render(topology, node);
    }
    let Ok(plan) = plan::compare(&nodes, &Inventory::default()) else { return };
    assert!(plan.removals.is_empty() && plan.strays.is_empty(), "a plan against nothing removes something");
    // What is there as it was wanted must not be changed again.
    let mut there = Inventory::default();
    for change in plan.changes {
        let Some(resource) = change.wanted else { continue };
        let digest = plan::digest(&resource);
        there.found.insert(change.id, Found { resource, defects: Vec::new(), digest });
    }
    let again = plan::compare(&nodes, &there).map(|plan| plan.summary());
    assert!(again.as_ref().is_ok_and(Vec::is_empty), "a second plan: {again:?}");
}

fn render(topology: &Topology, node: &Node) {
    let link = match &node.resource {
        Resource::Bridge(bridge) => &bridge.link,
        Resource::Tap(tap) => &tap.link,
        Resource::Ruleset(ruleset) => return no_control("a ruleset", &ruleset.script),
        Resource::Service(service) => {
            service.files.values().chain(&service.argv).for_each(|text| no_control("a service", text));
            return;
        }
        Resource::Domain(domain) => return render_domain(topology, node, domain),
        _ => return,
    };
    assert!((1..=15).contains(&link.len()), "{link} does not fit the kernel");
}

fn render_domain(topology: &Topology, node: &Node, domain: &Domain) {
    let nic = |(mac, tap, mtu): &(Mac, String, u32)| NicSpec { mac: *mac, tap: tap.clone(), mtu: *mtu };
    let spec = DomainSpec {
        name: domain.name.clone(),
        lab: topology.lab.clone(),
        guest: node.id.name.clone(),
        digest: plan::digest(&node.resource).unwrap_or_default(),
        memory_mib: domain.memory_mib,
        cpus: domain.cpus,
        acceleration: Acceleration::Tcg,
        emulator: None,
        kernel: None,
        disk: Some("/var/lib/netloom/disk.qcow2".into()),
        seed: Some("/var/lib/netloom/seed.img".into()),
        nics: domain.nics.iter().map(nic).collect(),
        console_log: PathBuf::from("/var/lib/netloom/console.log"),
    };
    let Ok(text) = xml::domain_xml(&spec) else { panic!("no XML for {spec:?}") };
    assert_eq!(xml::read_name(&text).as_deref(), Some(domain.name.as_str()));
    let mark = xml::read_mark(&text);
    assert!(mark.is_some_and(|mark| (mark.lab, mark.guest) == (spec.lab, spec.guest)), "{text}");
    let Ok(files) = seed::files(&domain.config) else { panic!("no seed for {}", node.id) };
    for file in files {
        no_control(&file.path, &file.text);
        let json = match file.path.as_str() {
            "user-data" => file.text.strip_prefix("#cloud-config\n").unwrap_or_default(),
            "meta-data" | "network-config" => file.text.as_str(),
            _ => continue,
        };
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{}: {json}", file.path);
    }
}

/// What an inventory is made of: marks, libvirt's XML, lists of nftables, leases, records in directories, guests' answers.
pub fn inventory(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((lab, id)) = mark::read(&text) {
        assert_eq!(mark::read(&mark::write(&lab, &id)), Some((lab, id)));
    }
    let _ = (xml::read_name(&text), xml::read_console(&text), xml::read_emulator(&text));
    let _ = (xml::read_mark(&text), agent::read_any(&text));
    no_control("a table", &report::table(&[""], &[vec![text.clone().into_owned()]]));
    let mut tables = nft::tables::List::default();
    let _ = tables.read(bytes);
    if let Ok(listing) = serde_json::from_str::<serde_json::Value>(&text) {
        let _ = nft::forwards::read(&listing);
    }
    let _ = apply::ready::sight::leased(&text, Mac([0; 6]));
    let pairs = text.split(['\0', '\n']).filter_map(|line| line.split_once('='));
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if let Ok(lease) = lease::parse("eth0", &environment) {
        let _ = lease::routes(&environment, &lease);
    }
    let _ = serde_json::from_str::<labdir::LabInfo>(&text);
    let _ = (serde_json::from_str::<nft::Record>(&text), serde_json::from_str::<sysctl::Record>(&text));
    let _ = (serde_json::from_str::<lease::Lease>(&text), serde_json::from_str::<image::ImageInfo>(&text));
    if let Ok(domain) = serde_json::from_str::<Domain>(&text) {
        remove(Id::new(Kind::Domain, "a"), Resource::Domain(Box::new(domain)));
    }
    if let Ok(service) = serde_json::from_str::<Service>(&text) {
        remove(Id::new(Kind::Service, "a"), Resource::Service(service));
    }
}

/// A thing that some record describes, on its way out.
fn remove(id: Id, resource: Resource) {
    let mut there = Inventory::default();
    there.taken.insert(names::link("lab", "bridge", "a"));
    there.places.insert(Place::Host, crate::host::links::PlaceState::default());
    there.found.insert(id, Found { resource, defects: Vec::new(), digest: None });
    assert_eq!(plan::removal(&there).removals.len(), 1);
    assert!(plan::compare(&[], &there).is_ok_and(|plan| plan.removals.len() == 1));
}

/// The head of a disk image, and what the image builder reads of programs, kernels and their modules.
pub fn image(bytes: &[u8]) {
    let head = &bytes[..bytes.len().min(image::disk::HEAD)];
    if image::disk::format("x", head).is_ok_and(|format| format == "qcow2") {
        assert_eq!(head[8..16], [0; 8], "an image that names another file");
    }
    let _ = (image::elf::needed(bytes), image::elf::module_info(bytes), image::elf::loaded_size(bytes));
    let mut file = bytes.to_vec();
    if image::elf::rename_section(&mut file, b".BTF", b".btf").is_ok() {
        assert_eq!(file.len(), bytes.len());
    }
    let _ = image::kernel::payload(bytes);
    assert!(image::kernel::lean(file).map_or(0, |lean| lean.len()) <= bytes.len());
}

/// Nothing that could end a line, a string or a terminal's patience.
fn no_control(what: &str, text: &str) {
    let found = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert!(found.is_none(), "{what} holds {found:?}: {text:?}");
}
