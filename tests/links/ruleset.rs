//! The host's table for bridges.

use netloom::firewall::TABLE;
use netloom::host::nft;
use netloom::resource::{BRIDGE_RULESET, Id, Kind, Node, Place, Resource, Ruleset, RulesetFamily, names};

use crate::rig::{LAB, Rig, bridge, guest, netns, node, port, veth};

/// Guests `a` and `b` and the host on a bridge; with the table, the host hears nothing from there and sends nothing.
fn lab(barred: bool) -> Vec<Node> {
    let on = Id::new(Kind::Bridge, "lan");
    let mut lan = bridge("lan");
    if let Resource::Bridge(bridge) = &mut lan.resource {
        bridge.addresses = vec!["10.8.0.1/24".parse().unwrap()];
        bridge.host_leg = true;
    }
    let mut nodes = vec![lan];
    for (name, number) in [("a", 10), ("b", 11)] {
        let mut nic = veth(name, port("lan"), &format!("10.8.0.{number}/24"));
        nic.needs.push(on.clone());
        nodes.push(nic);
        nodes.extend(guest(name));
    }
    if barred {
        let table = names::table(LAB);
        let script = format!(
            "add table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n chain input {{\n  type filter hook input priority 0; policy drop;\n }}\n chain output {{\n  type filter hook output priority 0; policy drop;\n }}\n}}\n"
        );
        let ruleset =
            Ruleset { place: Place::Host, family: RulesetFamily::Bridge, table, script, ports: Vec::new() };
        nodes.push(node(Kind::Ruleset, BRIDGE_RULESET, Resource::Ruleset(ruleset), &[]));
    }
    nodes
}

fn tables(rig: &Rig) -> String {
    names_of(&rig.sh("nft -j list tables"))
}

fn names_of(text: &str) -> String {
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let name = |entry: &serde_json::Value| {
        let table = entry.get("table")?;
        Some(format!("{} {}", table["family"].as_str()?, table["name"].as_str()?))
    };
    all["nftables"].as_array().unwrap().iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_host_can_be_barred_from_its_bridge() {
    let rig = Rig::new();
    rig.up(&lab(false));
    assert_eq!(tables(&rig), "");
    rig.ping(&netns("a"), "10.8.0.1", true);
    let wanted = lab(true);
    assert_eq!(rig.up(&wanted), ["create ruleset host.bridge: does not exist"]);
    assert_eq!(tables(&rig), "bridge netloom_links");
    rig.ping(&netns("a"), "10.8.0.1", false);
    rig.ping(&netns("a"), "10.8.0.11", true);
    // Somebody lets the host in; somebody removes all of it.
    let seen = ["update ruleset host.bridge: was changed by somebody else"];
    rig.mends(
        &wanted,
        "nft flush table bridge netloom_links; nft delete chain bridge netloom_links input",
        &seen,
    );
    rig.ping(&netns("a"), "10.8.0.1", false);
    let seen = ["create ruleset host.bridge: does not exist"];
    rig.mends(&wanted, "nft delete table bridge netloom_links", &seen);
    assert_eq!(rig.up(&lab(false)), ["delete ruleset host.bridge: is not wanted"]);
    assert_eq!(tables(&rig), "");
    rig.ping(&netns("a"), "10.8.0.1", true);
    rig.down();
}

/// The directory of the lab was lost, and with it every note about tables.
#[test]
fn it_is_found_without_any_file() {
    let rig = Rig::new();
    rig.up(&lab(true));
    rig.sh("nft add table bridge foreign; nft add table inet netloom_other_lab; rm -r /run/state/labs");
    assert_eq!(nft::labs().unwrap(), ["links", "other-lab"].map(str::to_owned).into());
    rig.down();
    assert_eq!(tables(&rig), "bridge foreign, inet netloom_other_lab");
}

/// The same, and the lab goes on: what its file does not want any more goes, on the host and in a guest.
#[test]
fn what_is_not_wanted_is_found_without_any_file() {
    let rig = Rig::new();
    let mut wanted = lab(true);
    let place = Place::Netns(netns("a"));
    let table = TABLE.to_owned();
    let script = format!("add table inet {TABLE}\ntable inet {TABLE} {{\n chain own {{\n }}\n}}\n");
    let own = Ruleset { place, family: RulesetFamily::Inet, table, script, ports: Vec::new() };
    let needs = [Id::new(Kind::Namespace, "a")];
    wanted.push(node(Kind::Ruleset, "a", Resource::Ruleset(own), &needs));
    rig.up(&wanted);
    let guests = |rig: &Rig| names_of(&rig.in_host(&netns("a"), "nft -j list tables"));
    rig.in_host(
        &netns("a"),
        "nft 'add table inet mine; add table ip netloom; add table bridge netloom_links'",
    );
    rig.sh("nft add table inet foreign; nft add table ip netloom_links; rm -r /run/state/labs");
    let mine = "inet mine, ip netloom, bridge netloom_links";
    assert_eq!(guests(&rig), format!("inet netloom, {mine}"));
    assert_eq!(rig.inventory(&lab(false)).found.keys().filter(|id| id.kind == Kind::Ruleset).count(), 2);
    let gone = ["delete ruleset host.bridge: is not wanted", "delete ruleset a: is not wanted"];
    assert_eq!(rig.up(&lab(false)), gone);
    assert_eq!((tables(&rig), guests(&rig)), ("inet foreign, ip netloom_links".into(), mine.into()));
    rig.ping(&netns("a"), "10.8.0.1", true);
    rig.down();
}
