//! Compiled firewalls between real namespaces, judged by ping, bash, tcpdump, DHCP clients and what servers see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;

use std::collections::BTreeMap;

use bench::lab::{forward, guest, rule, topology};
use bench::{Bench, Checks, ICMP, tcp, udp};
use netloom::firewall::compile;
use netloom::topology::{AddressRange, Firewall, Route, Rule, RuleAction, Topology};

const WAN: &str = "192.0.2.1/24 fd99::1/64";
const LAN: &str = "10.10.10.1/24 fd10::1/64";
const DMZ: &str = "10.10.20.1/24 fd20::1/64";

fn firewall(rules: Vec<Rule>) -> Topology {
    let mut fw =
        guest("fw", &[("eth0", "wan", WAN), ("eth1.10", "core.lan", LAN), ("eth1.20", "core.dmz", DMZ)]);
    fw.routes.push(Route { to: "0.0.0.0/0".parse().unwrap(), via: "192.0.2.2".parse().unwrap() });
    fw.routes.push(Route { to: "::/0".parse().unwrap(), via: "fd99::2".parse().unwrap() });
    let zone = |name: &str, link: &str| (name.to_owned(), vec![link.to_owned()]);
    fw.firewall = Some(Firewall {
        flavour: "linux".into(),
        zones: BTreeMap::from([zone("wan", "eth0"), zone("lan", "eth1.10"), zone("dmz", "eth1.20")]),
        masquerade: vec!["wan".into()],
        dhcp: BTreeMap::from([(
            "lan".to_owned(),
            AddressRange { first: "10.10.10.100".parse().unwrap(), last: "10.10.10.199".parse().unwrap() },
        )]),
        rules,
    });
    let web = guest("web", &[("eth0", "core.dmz", "10.10.20.2/24 fd20::2/64")]);
    topology(vec![fw, web])
}

/// The firewall with one host in each zone; all know the way to each other.
fn lab(rules: Vec<Rule>) -> Bench {
    let bench = wired();
    let topology = firewall(rules);
    bench.nft("fw", &compile(&topology, &topology.guests["fw"]).unwrap().ruleset);
    bench
}

fn wired() -> Bench {
    let bench = Bench::new();
    bench.host("fw");
    bench.router("fw");
    for (host, link, ours, theirs) in [
        ("wan", "eth0", WAN, "192.0.2.2/24 fd99::2/64"),
        ("lan", "eth1.10", LAN, "10.10.10.2/24 fd10::2/64"),
        ("dmz", "eth1.20", DMZ, "10.10.20.2/24 fd20::2/64"),
    ] {
        bench.host(host);
        bench.cable(("fw", link, ours), (host, "eth0", theirs));
        let gateway: Vec<&str> = ours.split(['/', ' ']).collect();
        bench.in_host(
            host,
            &format!("ip route add default via {}; ip -6 route add default via {}", gateway[0], gateway[2]),
        );
    }
    bench.in_host("fw", "ip route add default via 192.0.2.2; ip -6 route add default via fd99::2");
    bench
}

fn usual() -> Vec<Rule> {
    vec![
        rule("lan", "wan dmz", &[], RuleAction::Accept),
        rule("dmz", "wan", &[tcp(80), ICMP], RuleAction::Accept),
        forward("wan", "dmz", tcp(8080), &[("10.10.20.2", 80), ("fd20::2", 80)]),
        forward("wan", "dmz", udp(5353), &[("10.10.20.2", 53), ("fd20::2", 53)]),
        rule("dmz", "lan", &[tcp(443)], RuleAction::Reject),
    ]
}

#[test]
fn policy_between_zones_in_both_families() {
    let bench = lab(usual());
    for host in ["lan", "dmz"] {
        bench.serve(host, &format!("lab/{host}"), &[tcp(80), tcp(81), tcp(443), udp(53)]);
    }
    bench.tell_peers("wan", 80);
    bench.tell_peers("wan", 81);
    let (wan, lan, dmz) = (["192.0.2.2", "fd99::2"], ["10.10.10.2", "fd10::2"], ["10.10.20.2", "fd20::2"]);
    let own = ["192.0.2.1", "fd99::1"];
    let mut checks = Checks::default();
    {
        let checks = std::cell::RefCell::new(&mut checks);
        let reads = |from: &'static str, to: &'static str, port: u16, wanted: &'static str| {
            checks.borrow_mut().add(move |bench| bench.tcp(from, to, port, wanted));
        };
        let asks = |from: &'static str, to: &'static str, port: u16, wanted: &'static str| {
            checks.borrow_mut().add(move |bench| bench.udp(from, to, port, wanted));
        };
        let pings = |from: &'static str, to: &'static str, wanted: bool| {
            checks.borrow_mut().add(move |bench| bench.ping(from, to, wanted));
        };
        for v in [0, 1] {
            reads("lan", dmz[v], 80, "lab/dmz tcp/80");
            asks("lan", dmz[v], 53, "lab/dmz udp/53");
            reads("lan", wan[v], 80, own[v]); // the server sees the firewall: masqueraded
            reads("dmz", wan[v], 80, own[v]);
            reads("dmz", wan[v], 81, ""); // a service that no rule names
            pings("dmz", wan[v], true);
            reads("dmz", lan[v], 80, "");
            pings("dmz", lan[v], false);
            // Through the port forward, and only through it, although the outside has a route.
            reads("wan", own[v], 8080, "lab/dmz tcp/80");
            asks("wan", own[v], 5353, "lab/dmz udp/53");
            reads("wan", own[v], 80, "");
            reads("wan", dmz[v], 80, "");
            pings("wan", lan[v], false);
            // Ping of the firewall itself from everywhere.
            pings("wan", own[v], true);
            pings("dmz", own[v], true);
        }
    }
    checks.run(&bench);
    for lan in lan {
        let refused =
            bench.try_in_host("dmz", &format!("LC_ALL=C timeout 15 bash -c '</dev/tcp/{lan}/443' 2>&1"));
        assert_eq!(refused.status.code(), Some(1), "rejected at once, not timed out");
    }
}

#[test]
fn rules_come_in_the_files_order_and_self_is_guarded() {
    let bench = lab(vec![
        rule("lan", "self", &[tcp(22)], RuleAction::Accept),
        rule("dmz", "self", &[ICMP], RuleAction::Drop),
        rule("any", "wan", &[tcp(25)], RuleAction::Drop),
        rule("any", "wan", &[], RuleAction::Accept),
        rule("self", "wan", &[tcp(81)], RuleAction::Drop),
    ]);
    bench.serve("fw", "lab/fw", &[tcp(22)]);
    bench.serve("wan", "lab/wan", &[tcp(25), tcp(80), tcp(81)]);
    bench.tcp("lan", "10.10.10.1", 22, "lab/fw tcp/22");
    bench.tcp("dmz", "10.10.20.1", 22, "");
    bench.tcp("wan", "fd99::1", 22, "");
    bench.ping("dmz", "10.10.20.1", false);
    bench.ping("dmz", "fd20::1", false);
    bench.ping("lan", "10.10.20.1", true); // the rule is about the zone it comes from
    bench.tcp("dmz", "192.0.2.2", 25, "");
    bench.tcp("dmz", "192.0.2.2", 80, "lab/wan tcp/80");
    bench.tcp("fw", "192.0.2.2", 80, "lab/wan tcp/80");
    bench.tcp("fw", "192.0.2.2", 81, "");
}

/// Whether the firewall's answers to pings with a foreign source address come out where that address lives.
fn spoof_is_answered(bench: &Bench, from: &str, source: &str, to: &str, victim: &str) -> bool {
    let prefix = if source.contains(':') { 128 } else { 32 };
    bench.in_host(from, &format!("ip addr replace {source}/{prefix} dev lo"));
    let place = netloom::resource::Place::Netns(victim.to_owned());
    let reply = if prefix == 32 { "icmp[0] == 0" } else { "icmp6 and ip6[40] == 129" };
    let filter = format!("{reply} and dst host {source}");
    let mut capture = netloom::host::netns::within(&place, move || {
        std::process::Command::new("tcpdump")
            .args(["--immediate-mode", "-lnp", "-i", "eth0", "-c", "1", &filter])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    })
    .unwrap();
    let mut banner = std::io::BufReader::new(capture.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut banner, &mut line).unwrap() > 0, "tcpdump does not start");
    }
    bench.try_in_host(from, &format!("ping -c 5 -i 0.3 -w 3 -I {source} {to}"));
    bench.in_host(from, &format!("ip addr del {source}/{prefix} dev lo"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let seen = capture.try_wait().unwrap().is_some();
    if !seen {
        capture.kill().unwrap();
        capture.wait().unwrap();
    }
    seen
}

#[test]
fn spoofed_sources_get_nowhere() {
    let bench = wired();
    let spoofs = [
        ("wan", "10.10.10.77", "192.0.2.1", "lan"),
        ("wan", "fd10::77", "fd99::1", "lan"),
        ("dmz", "10.10.10.78", "10.10.20.1", "lan"),
        ("dmz", "fd10::78", "fd20::1", "lan"),
        ("dmz", "203.0.113.9", "10.10.20.1", "wan"),
    ];
    // The firewall must not need to resolve an address that is not there.
    let mac = bench.in_host("lan", "ip -br link show dev eth0 | awk '{print $3}'");
    for address in ["10.10.10.77", "10.10.10.78", "fd10::77", "fd10::78"] {
        bench.in_host("fw", &format!("ip neigh replace {address} lladdr {} dev eth1.10", mac.trim()));
    }
    let all = |answered: bool| {
        let mut checks = Checks::default();
        for (from, source, to, victim) in spoofs {
            checks.add(move |bench| {
                assert_eq!(
                    spoof_is_answered(bench, from, source, to, victim),
                    answered,
                    "{from} as {source}"
                );
            });
        }
        checks.run(&bench);
    };
    all(true); // what is silent later is silent because of the ruleset
    let topology = firewall(usual());
    bench.nft("fw", &compile(&topology, &topology.guests["fw"]).unwrap().ruleset);
    all(false);
    // Honest ones still get through.
    bench.ping("wan", "192.0.2.1", true);
    bench.ping("dmz", "fd20::1", true);
}

#[test]
fn a_forward_back_into_its_own_zone_works() {
    let bench = lab(vec![forward("any", "dmz", tcp(8080), &[("10.10.20.2", 80)])]);
    bench.host("peer"); // a second host in the dmz, behind the first one's bridge
    bench.in_host("dmz", "ip link add br0 type bridge; ip link set br0 up; ip addr flush dev eth0; ip link set eth0 master br0; ip addr add 10.10.20.2/24 dev br0; ip route add default via 10.10.20.1");
    bench.cable(("dmz", "p0", ""), ("peer", "eth0", "10.10.20.3/24"));
    bench.in_host("dmz", "ip link set p0 master br0");
    bench.in_host("peer", "ip route add default via 10.10.20.1");
    bench.serve("dmz", "lab/dmz", &[tcp(80)]);
    bench.tcp("peer", "192.0.2.1", 8080, "lab/dmz tcp/80");
    bench.tcp("lan", "192.0.2.1", 8080, "lab/dmz tcp/80");
}

#[test]
fn the_zone_it_serves_gets_leases_and_names() {
    let bench = lab(usual());
    let topology = firewall(usual());
    let config = compile(&topology, &topology.guests["fw"]).unwrap().dnsmasq.unwrap();
    std::fs::write("/run/dnsmasq.conf", &config).unwrap();
    bench.sh("dnsmasq --test -C /run/dnsmasq.conf");
    let server =
        bench.start("fw", "dnsmasq -k -C /run/dnsmasq.conf --pid-file= --dhcp-leasefile=/run/leases");
    bench.in_host("lan", "ip addr flush dev eth0 scope global");
    let lease = bench.in_host("lan", "busybox udhcpc -n -q -f -t 20 -T 1 -i eth0 -s /bin/true 2>&1");
    assert!(lease.contains("lease of 10.10.10.1"), "{lease}");
    bench.in_host("lan", "ip addr add 10.10.10.2/24 dev eth0");
    let name = bench.in_host("lan", "busybox nslookup web.lab 10.10.10.1");
    assert!(name.contains("10.10.20.2") && name.contains("fd20::2"), "{name}");
    // Zones that it does not serve get no answer.
    let other = bench.try_in_host("dmz", "timeout 2 busybox nslookup web.lab 10.10.20.1");
    assert!(!other.status.success());
    // Router advertisements bring an address and a default route. (A namespace's defaults accept them.)
    bench.in_host("lan", "ip -6 route del default via fd10::1; ip link set eth0 down; ip link set eth0 up");
    bench.wait("an address from the advertisement", || {
        bench.in_host("lan", "ip -6 addr show dev eth0 dynamic").contains("fd10:")
    });
    drop(server);
}

#[test]
fn every_shape_of_policy_is_accepted_by_nft() {
    let bench = Bench::new();
    bench.host("fw");
    let actions = [RuleAction::Accept, RuleAction::Drop, RuleAction::Reject];
    let services = [vec![], vec![ICMP], vec![tcp(1), tcp(2), udp(3), ICMP]];
    let ends =
        [("lan", "wan"), ("any", "any"), ("self", "lan dmz"), ("lan wan", "self"), ("lan", "self any")];
    let mut rules = Vec::new();
    for action in actions {
        for services in &services {
            for (from, to) in ends {
                rules.push(rule(from, to, services, action));
            }
        }
    }
    rules.push(forward("any", "any", udp(65535), &[("fd20::2", 1)]));
    let mut topology = firewall(rules);
    let zones = &mut topology.guests.get_mut("fw").unwrap().firewall.as_mut().unwrap().zones;
    zones.insert("1-empty".into(), Vec::new());
    zones.get_mut("lan").unwrap().push("eth2".into());
    bench.nft("fw", &compile(&topology, &topology.guests["fw"]).unwrap().ruleset);
}

#[test]
fn the_firewalls_of_all_topologies_are_accepted_and_stay_readable() {
    let bench = Bench::new();
    bench.host("fw");
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/topologies")).unwrap() {
        let path = entry.unwrap().path();
        let topology = netloom::topology::load_file(&path, &Default::default()).unwrap();
        for guest in topology.guests.values().filter(|guest| guest.firewall.is_some()) {
            seen += 1;
            let compiled = compile(&topology, guest).unwrap();
            bench.nft("fw", &compiled.ruleset);
            if let Some(config) = &compiled.dnsmasq {
                std::fs::write("/run/dnsmasq.conf", config).unwrap();
                bench.sh("dnsmasq --test -C /run/dnsmasq.conf");
            }
            if topology.lab == "hci-firewall" {
                insta::assert_snapshot!("hci-firewall", compiled.ruleset);
                insta::assert_snapshot!("hci-firewall-dnsmasq", compiled.dnsmasq.unwrap());
            }
        }
    }
    assert!(seen >= 2, "topologies with firewalls were not found");
}
