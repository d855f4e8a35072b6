//! `netloom modes` from outside.

use std::process::{Command, Output};

use netloom::mode;
use netloom::topology::{GuestKind, LoadOptions, load};
use serde_json::Value;

fn netloom(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netloom")).args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = netloom(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

#[test]
fn the_list_has_every_mode_once_generic_ones_first() {
    let text = stdout(&["modes"]);
    let listed: Vec<&str> = text.lines().skip(1).map_while(|line| line.split_whitespace().next()).collect();
    let ids: Vec<&str> = mode::all().map(|mode| mode.id).collect();
    assert_eq!(listed, ids);
    assert_eq!(ids.first(), Some(&"nat"));
    assert_eq!(ids.iter().filter(|id| id.contains('/')).count(), 49);
    let line = text.lines().find(|line| line.starts_with("vmware/nat ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().take(7).collect();
    assert_eq!(words, ["vmware/nat", "vmnet8", "pass", "pass", "pass", "pass", "fwd"]);

    let list = json(&["modes", "--json"]);
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|mode| mode["id"].as_str().unwrap()).collect();
    assert_eq!(names, ids);
}

/// The table of the VirtualBox manual, chapter "Virtual Networking": who reaches whom in five of its modes. A plus sign
/// there is `pass`, the words "port forward" are `forward`.
#[test]
fn virtualbox_is_as_its_manual_says() {
    let table = [
        ("host-only", ["pass", "pass", "pass", "block", "block"]),
        ("internal", ["block", "block", "pass", "block", "block"]),
        ("bridged", ["pass", "pass", "pass", "pass", "pass"]),
        ("nat", ["pass", "forward", "block", "pass", "forward"]),
        ("nat-network", ["pass", "forward", "pass", "pass", "forward"]),
    ];
    for (construct, cells) in table {
        let said = json(&["modes", "show", &format!("virtualbox/{construct}"), "--json"]);
        let found = ["g2h", "h2g", "g2g", "g2l", "l2g"].map(|direction| said["cells"][direction].clone());
        assert_eq!(found, cells.map(Value::from), "{construct}");
    }
}

#[test]
fn a_mode_is_explained_with_a_file_that_loads() {
    let text = stdout(&["modes", "show", "vmnet8"]);
    assert!(text.starts_with("vmware/nat (vmnet8)\n"), "{text}");
    let part = |from: &str| text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}")).1;
    assert!(part("\nContract\n").contains("LAN → guest    forward"), "{text}");
    assert!(part("\nDefaults\n").contains(".128 to .254"), "{text}");
    assert!(part("\nOn Linux\n").contains("masqueraded"), "{text}");
    let indented = part("\nHow to write it\n");
    let file: Vec<&str> = indented.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    load("printed", &file.join("\n"), &LoadOptions::default()).unwrap();
    for line in text.split("How to write it").next().unwrap().lines() {
        assert!(line.chars().count() <= 102, "{line}");
    }
}

#[test]
fn the_document_says_all_of_a_mode() {
    for mode in mode::all() {
        let said = json(&["modes", "show", mode.id, "--json"]);
        assert_eq!(said["id"], mode.id);
        assert_eq!(said["contract"].is_null(), mode.contract.is_none(), "{}", mode.id);
        let mut examples = vec![said["example"].as_str().unwrap().to_owned()];
        for state in said["contract"]["states"].as_array().into_iter().flatten() {
            let example = state["example"].as_str().unwrap();
            for key in state["keys"].as_array().unwrap() {
                assert!(example.contains(&format!("    {}\n", key.as_str().unwrap())), "{example}");
            }
            examples.push(example.to_owned());
        }
        for example in examples {
            for guests in [None, Some(GuestKind::Namespace)] {
                let lab = load(mode.id, &example, &LoadOptions { guests }).unwrap();
                assert_eq!(lab.networks["net"].mode, mode.id);
                assert_eq!(lab.guests.keys().collect::<Vec<_>>(), ["a", "b"]);
            }
        }
    }
    let provider = json(&["modes", "show", "openstack/provider", "--json"]);
    assert_eq!(provider["contract"]["cells"]["l2g"], "depends");
    assert_eq!(provider["contract"]["states"][2]["keys"], serde_json::json!(["host: true", "ingress: true"]));
}

/// What VirtualBox users know by heart needs no word in the file.
#[test]
fn defaults_are_those_of_the_system() {
    let text = "lab: known\nnetworks:\n  n: { mode: virtualbox/nat }\n  h: { mode: virtualbox/host-only }\n\
                guests:\n  a: { nics: [{ network: n }, { network: h }] }\n";
    let lab = load("known", text, &LoadOptions::default()).unwrap();
    let nat = &lab.networks["n"];
    assert_eq!(nat.subnets, ["10.0.2.0/24".parse().unwrap()]);
    assert_eq!(nat.gateway, ["10.0.2.2/24".parse().unwrap()]);
    assert_eq!(nat.resolver.map(|address| address.ip()), Some("10.0.2.3".parse().unwrap()));
    assert_eq!(nat.dhcp.unwrap().first, "10.0.2.15".parse::<std::net::IpAddr>().unwrap());
    assert!(nat.host.is_empty());
    let host_only = &lab.networks["h"];
    assert_eq!(host_only.host, ["192.168.56.1/24".parse().unwrap()]);
    let range = host_only.dhcp.unwrap();
    assert_eq!(format!("{}-{}", range.first, range.last), "192.168.56.101-192.168.56.254");
}

#[test]
fn an_unknown_mode_is_refused_with_the_nearest_one() {
    for (wrong, hint) in [
        ("vmware/nta", "did you mean `vmware/nat`?"),
        ("lan-segment", "of that name there is `vmware/lan-segment`"),
        ("zzzzzzzzzzzzzz", "`netloom modes` lists all modes"),
    ] {
        let output = netloom(&["modes", "show", wrong]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("there is no mode `{wrong}`")) && said.contains(hint), "{said}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(netloom(&["modes", "show"]).status.code(), Some(2));
}

#[test]
fn shells_complete_the_verb_and_the_modes() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("modes"), "{shell}");
        // Fish's scripts complete no values of arguments without a name.
        assert!(shell == "fish" || script.contains("vsphere/private-vlan-isolated"), "{shell}");
    }
}
