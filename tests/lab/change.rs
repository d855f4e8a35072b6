//! A file is edited and `up` runs again: what differs changes, for the reason given, and nothing else is made anew.

use crate::rig::{Rig, differing, identities};

const LAB: &str = "
lab: edited
networks:
  lan: { mode: nat, subnet: 10.71.0.0/24 }
  side: { mode: internal }
guests:
  fw:
    nics:
      - { network: lan, address: 10.71.0.2/24 }
      - { network: side, address: 10.71.1.1/24 }
    firewall:
      zones: { lan: lan, side: side }
      masquerade: [lan]
      rules: [{ from: side, to: lan }]
  a:
    nics: [{ network: lan, address: 10.71.0.10/24 }]
    serve: [tcp/80]
  b:
    nics: [{ network: lan }]
    serve: [tcp/80]
  c:
    nics: [{ network: side, address: 10.71.1.3/24, gateway: 10.71.1.1 }]
";

/// A lab that is up, and what it was made of.
struct Edited {
    rig: Rig,
    lab: &'static str,
}

impl Edited {
    fn up(lab: &'static str, text: &str) -> Self {
        let rig = Rig::new();
        rig.up(&rig.file("lab.yaml", text));
        Self { rig, lab }
    }

    /// Brings the lab to another text. The plan must say exactly `planned` (change, words of its reasons), `up` must do
    /// just that, and of all links, namespaces and processes only those whose names hold one of `touched` may be other
    /// ones than before.
    #[track_caller]
    fn change(&self, text: &str, planned: &[(&str, &str)], touched: &[&str]) {
        let file = self.rig.file("lab.yaml", text);
        let before = identities(&self.rig, self.lab);
        let plan = self.rig.plan(&file);
        let mut wanted: Vec<&str> = planned.iter().map(|(change, _)| *change).collect();
        wanted.sort_unstable();
        assert_eq!(plan.keys().map(String::as_str).collect::<Vec<_>>(), wanted, "{plan:?}");
        for (change, reason) in planned {
            assert!(plan[*change].contains(reason), "{change}: `{reason}` is missing in `{}`", plan[*change]);
        }
        assert_eq!(self.rig.run(&["plan", "--check", &file]).code, 1);
        assert_eq!(self.rig.up(&file), wanted);
        let differing = differing(&before, &identities(&self.rig, self.lab));
        let strange: Vec<_> =
            differing.iter().filter(|name| !touched.iter().any(|word| name.contains(word))).collect();
        assert!(strange.is_empty(), "made anew, though unchanged: {strange:?} (all: {differing:?})");
        self.rig.ok(&["plan", "--check", &file]);
    }

    fn down(self) {
        self.rig.ok(&["down", self.lab]);
        self.rig.assert_gone();
    }
}

#[test]
fn an_address_a_service_and_a_rule() {
    let edited = Edited::up("edited", LAB);
    let host = |script: &str| edited.rig.sh("edited/host", script);
    // An address, in place.
    let text = LAB.replace("10.71.0.10/24", "10.71.0.11/24");
    let reason = "address 10.71.0.10/24 is extra, address 10.71.0.11/24 is missing";
    // The network's name server knows the guest by its address.
    let known = ("replace service lan+network/dnsmasq", "its configuration differs");
    edited.change(&text, &[("update veth a/eth0", reason), known], &["service:lan+network/dnsmasq"]);
    host("ping -c 1 -w 3 10.71.0.11");
    // A service: its process alone.
    let text = text.replace("tcp/80]\n  b:", "tcp/80, tcp/81]\n  b:");
    edited.change(&text, &[("replace service a/serve", "tcp/81")], &["service:a/serve"]);
    let sockets = edited.rig.sh("edited/a", "ss -Hltn");
    assert!(sockets.contains(":81 "), "{sockets}");
    // A firewall rule, in place: the connections of the guest's own world stay.
    let text = text.replace("rules: [", "rules: [{ from: lan, to: side, service: tcp/8080 }, ");
    edited.change(&text, &[("update ruleset fw", "rules differ")], &[]);
    let rules = edited.rig.sh("edited/fw", "nft -j list ruleset");
    assert!(rules.contains("8080"), "{rules}");
    // And back to the first text: all three at once.
    let all = [
        ("update veth a/eth0", "10.71.0.11/24 is extra"),
        ("replace service a/serve", "command"),
        ("update ruleset fw", "rules differ"),
        known,
    ];
    edited.change(LAB, &all, &["service:a/serve", "service:lan+network/dnsmasq"]);
    let rules = edited.rig.sh("edited/fw", "nft -j list ruleset");
    assert!(!rules.contains("8080"), "{rules}");
    edited.down();
}

#[test]
fn a_guest_comes_and_goes() {
    let edited = Edited::up("edited", LAB);
    let guest = "  new:\n    nics: [{ network: side, address: 10.71.1.9/24 }]\n    serve: [udp/53]\n";
    let more = format!("{LAB}{guest}");
    let created = [
        ("create namespace new", "does not exist"),
        ("create sysctls new", ""),
        ("create veth new/eth0", ""),
        ("create service new/serve", ""),
    ];
    edited.change(&more, &created, &["new", &veth("edited", "new/eth0")]);
    edited.rig.sh("edited/c", "ping -c 1 -w 3 10.71.1.9");
    let deleted = [
        ("delete namespace new", "is not wanted"),
        ("delete veth new/eth0", "is not wanted"),
        ("delete service new/serve", "is not wanted"),
    ];
    edited.change(LAB, &deleted, &["new", &veth("edited", "new/eth0")]);
    edited.down();
}

#[test]
fn an_mtu_changes_in_place() {
    let edited = Edited::up("edited", LAB);
    let text = LAB.replace("side: { mode: internal }", "side: { mode: internal, mtu: 9000 }");
    let planned = [
        ("update bridge side", "MTU 1500 → 9000"),
        ("update veth c/eth0", "MTU 1500 → 9000"),
        ("update veth fw/eth1", "MTU 1500 → 9000"),
    ];
    edited.change(&text, &planned, &[]);
    // A frame of that size, not to be cut in pieces, is the judge.
    edited.rig.sh("edited/c", "ping -M do -s 8972 -c 1 -w 3 10.71.1.1");
    edited.down();
}

/// A network with a guest of its own; the host's address on another one moves.
#[test]
fn a_network_comes_and_a_subnet_moves() {
    let edited = Edited::up("edited", LAB);
    let text = LAB
        .replace("\nguests:", "\n  extra: { mode: host-only, subnet: 10.71.9.0/24 }\nguests:")
        .replace("  c:\n    nics: [", "  c:\n    nics: [{ network: extra, address: 10.71.9.5/24 }, ");
    let file = edited.rig.file("lab.yaml", &text);
    let before = identities(&edited.rig, "edited");
    edited.rig.up(&file);
    edited.rig.sh("edited/host", "ping -c 1 -w 3 10.71.9.5");
    edited.rig.sh("edited/c", "ping -c 1 -w 3 10.71.1.1");
    let differing = differing(&before, &identities(&edited.rig, "edited"));
    let strange: Vec<_> = differing
        .iter()
        .filter(|name| {
            ["namespace ", "link a/", "link fw/", "service:a/", "service:b/", "service:lan/"]
                .iter()
                .any(|word| name.contains(word))
        })
        .collect();
    assert!(strange.is_empty(), "{strange:?} of {differing:?}");
    edited.rig.ok(&["plan", "--check", &file]);
    edited.down();
}

const SWITCH: &str = "
lab: switch
networks:
  core: { mode: internal, vlans: { red: 10, blue: 20 } }
guests:
  r:
    nics:
      - { network: core, trunk: [red, blue], addresses: { red: 10.72.10.1/24, blue: 10.72.20.1/24 } }
  a: { nics: [{ network: core, vlan: red, address: 10.72.10.2/24 }] }
  b: { nics: [{ network: core, vlan: blue, address: 10.72.20.2/24 }] }
";

/// A port moves to another VLAN, a trunk gains one; judged by `bridge`, and by who answers.
#[test]
#[ignore = "full-kernel"]
fn ports_change_in_place() {
    let edited = Edited::up("switch", SWITCH);
    let port = |name: &str| {
        let link = veth("switch", name);
        let text = edited.rig.sh("switch/host", "bridge -j vlan");
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let port = all.as_array().unwrap().iter().find(|port| port["ifname"] == *link).unwrap();
        let vlan = |vlan: &serde_json::Value| {
            let flags: Vec<&str> =
                vlan["flags"].as_array().into_iter().flatten().map(|flag| flag.as_str().unwrap()).collect();
            format!("{} {}", vlan["vlan"], flags.join(" ")).trim().to_owned()
        };
        port["vlans"].as_array().unwrap().iter().map(vlan).collect::<Vec<_>>()
    };
    assert_eq!(port("a/eth0"), ["10 PVID Egress Untagged"]);
    assert_eq!(port("r/eth0"), ["10", "20"]);
    edited.rig.sh("switch/r", "ping -c 1 -w 3 10.72.10.2 && ping -c 1 -w 3 10.72.20.2");

    let text = SWITCH.replace("vlan: blue, address: 10.72.20.2/24", "vlan: red, address: 10.72.10.3/24");
    edited.change(&text, &[("update veth b/eth0", "port access 20 → access 10")], &[]);
    assert_eq!(port("b/eth0"), ["10 PVID Egress Untagged"]);
    edited.rig.sh("switch/a", "ping -c 1 -w 3 10.72.10.3");

    let text = text
        .replace("blue: 20 }", "blue: 20, green: 30 }")
        .replace("trunk: [red, blue]", "trunk: [red, blue, green]")
        .replace("blue: 10.72.20.1/24", "blue: 10.72.20.1/24, green: 10.72.30.1/24");
    let planned = [
        ("update veth r/eth0", "port trunk [10,20] → trunk [10,20,30]"),
        ("create vlan r/eth0.30", "does not exist"),
    ];
    edited.change(&text, &planned, &["r/eth0.30"]);
    assert_eq!(port("r/eth0"), ["10", "20", "30"]);

    // Another VID for a name moves every port of that VLAN.
    let text = text.replace("red: 10,", "red: 11,");
    let file = edited.rig.file("lab.yaml", &text);
    edited.rig.up(&file);
    assert_eq!(port("a/eth0"), ["11 PVID Egress Untagged"]);
    assert_eq!(port("r/eth0"), ["11", "20", "30"]);
    edited.rig.sh("switch/r", "ping -c 1 -w 3 10.72.10.2 && ping -c 1 -w 3 10.72.10.3");
    edited.down();
}

fn veth(lab: &str, name: &str) -> String {
    netloom::resource::names::link(lab, "veth", name)
}
