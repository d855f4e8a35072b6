//! The host's rulesets, judged by ping, bash and the addresses that servers see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;

use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use bench::{Bench, Checks, tcp};
use ipnetwork::IpNetwork;
use netloom::host::netns;
use netloom::mode::barrier::{Barrier, bridge_ruleset};
use netloom::mode::by_id;
use netloom::mode::ruleset::{HostNetwork, host_ruleset};
use netloom::resource::Place;

fn network(name: &str, mode: &str, subnets: &[&str]) -> HostNetwork {
    HostNetwork {
        name: name.into(),
        bridge: format!("br-{name}"),
        wiring: by_id(mode).unwrap().wiring,
        subnets: subnets.iter().map(|s| s.parse::<IpNetwork>().unwrap()).collect(),
        forwards: Vec::new(),
        loopback: None,
        served: Vec::new(),
    }
}

fn networks() -> Vec<HostNetwork> {
    vec![
        network("nat1", "nat", &["10.1.0.0/24", "fd01::/64"]),
        network("nat2", "nat", &["10.2.0.0/24", "fd02::/64"]),
        network("routed", "routed", &["10.3.0.0/24", "fd03::/64"]),
        network("only", "host-only", &["10.4.0.0/24", "fd04::/64"]),
        network("inside", "internal", &["10.5.0.0/24", "fd05::/64"]),
        network("bridged", "bridged", &["10.6.0.0/24", "fd06::/64"]),
    ]
}

/// A host that routes between a guest on each network and one machine outside, which has routes to all.
fn lab() -> Bench {
    let bench = Bench::new();
    bench.host("host");
    bench.router("host");
    bench.host("out");
    bench.cable(("host", "up0", "192.0.2.1/24 fd99::1/64"), ("out", "eth0", "192.0.2.2/24 fd99::2/64"));
    bench.in_host("out", "ip route add default via 192.0.2.1; ip -6 route add default via fd99::1");
    for (i, network) in networks().iter().enumerate() {
        let (n, guest, bridge) = (i + 1, format!("g-{}", network.name), &network.bridge);
        bench.host(&guest);
        bench.in_host("host", &format!("ip link add {bridge} type bridge; ip link set {bridge} up; ip addr add 10.{n}.0.1/24 dev {bridge}; ip addr add fd0{n}::1/64 dev {bridge} nodad"));
        let port = format!("p{n}");
        bench.cable(("host", &port, ""), (&guest, "eth0", &format!("10.{n}.0.2/24 fd0{n}::2/64")));
        bench.in_host("host", &format!("ip link set {port} master {bridge}"));
        bench.in_host(
            &guest,
            &format!("ip route add default via 10.{n}.0.1; ip -6 route add default via fd0{n}::1"),
        );
        bench.serve(&guest, &format!("lab/{guest}"), &[tcp(80)]);
    }
    bench.tell_peers("out", 80);
    bench
}

#[test]
fn networks_are_apart_as_their_modes_promise() {
    let bench = lab();
    // Without the ruleset everything reaches everything: what is silent later is silent because of it.
    bench.tcp("out", "10.1.0.2", 80, "lab/g-nat1 tcp/80");
    let script = host_ruleset("a-lab", &networks()).unwrap();
    bench.nft("host", &script);
    bench.nft("host", &script); // it replaces itself
    let names = ["nat1", "nat2", "routed", "only", "inside", "bridged"];
    let address =
        |to: usize, v6: bool| if v6 { format!("fd0{}::2", to + 1) } else { format!("10.{}.0.2", to + 1) };
    // Rows: from; columns: to. The bridged guest stands for any machine of another network, as `out` does.
    let expected = [
        [true, false, true, false, false, true],
        [false, true, true, false, false, true],
        [false, false, true, false, false, true],
        [false, false, false, true, false, false],
        [false, false, false, false, true, false],
        [false, false, true, false, false, true],
    ];
    let mut checks = Checks::default();
    for v6 in [false, true] {
        for (i, from) in names.iter().enumerate() {
            let guest = format!("g-{from}");
            let mut reads = |from: &str, to: usize, wanted: bool| {
                let (from, to, answer) =
                    (from.to_owned(), address(to, v6), format!("lab/g-{} tcp/80", names[to]));
                checks.add(move |bench| bench.tcp(&from, &to, 80, if wanted { &answer } else { "" }));
            };
            for (j, wanted) in expected[i].into_iter().enumerate() {
                reads(&guest, j, wanted);
            }
            reads("out", i, ["routed", "bridged"].contains(from));
            let mut pings = |to: String, wanted: bool| {
                let guest = guest.clone();
                checks.add(move |bench| bench.ping(&guest, &to, wanted));
            };
            let leaves = ["nat1", "nat2", "routed", "bridged"].contains(from);
            pings(if v6 { "fd99::2" } else { "192.0.2.2" }.to_owned(), leaves);
            // The host, which has a leg on each network here, has none by the contract of an internal one.
            pings(address(i, v6).replace("::2", "::1").replace(".0.2", ".0.1"), *from != "inside");
        }
    }
    checks.run(&bench);
}

#[test]
fn only_nat_hides_the_guests_address() {
    let bench = lab();
    bench.nft("host", &host_ruleset("a-lab", &networks()).unwrap());
    bench.tcp("g-nat1", "192.0.2.2", 80, "192.0.2.1");
    bench.tcp("g-nat1", "fd99::2", 80, "fd99::1");
    bench.tcp("g-routed", "192.0.2.2", 80, "10.3.0.2");
    bench.tcp("g-routed", "fd99::2", 80, "fd03::2");
    // An address that is not the network's would leave as it is; it does not leave.
    bench.in_host("g-nat1", "ip addr add 10.77.0.1/32 dev lo");
    bench.in_host("host", "ip route add 10.77.0.1 via 10.1.0.2");
    bench.ping("host", "10.77.0.1", true); // the address itself works
    let ping = bench.try_in_host("g-nat1", "ping -c 2 -i 0.2 -W 1 -I 10.77.0.1 192.0.2.2");
    assert!(!ping.status.success());
}

#[test]
fn other_tables_are_left_alone() {
    let bench = Bench::new();
    bench.host("host");
    let foreign =
        "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy accept;\n }\n}\n";
    bench.nft("host", foreign);
    let before = bench.in_host("host", "nft list ruleset");
    bench.nft("host", &host_ruleset("a-lab", &networks()).unwrap());
    let listing = bench.in_host("host", "nft list tables");
    assert_eq!(listing, "table ip filter\ntable inet netloom_a_lab\n");
    bench.in_host("host", "nft delete table inet netloom_a_lab");
    assert_eq!(bench.in_host("host", "nft list ruleset"), before);
}

#[test]
fn networks_that_need_no_rule_get_no_table() {
    let networks = [network("a", "routed", &["10.3.0.0/24"]), network("b", "bridged", &[])];
    assert_eq!(host_ruleset("lab", &networks), None);
    assert_eq!(host_ruleset("lab", &[]), None);
}

/// Each frame on a bridge passes them, where `br_netfilter` is loaded.
#[test]
fn many_networks_have_few_rules() {
    let modes = ["internal", "host-only", "nat"];
    let name = |i: usize| format!("a-network-with-a-long-name-{i}");
    let networks: Vec<HostNetwork> = (0..600)
        .map(|i| {
            let mut network = network(&name(i), modes[i % 3], &[]);
            network.bridge = format!("nl-{i}");
            network
        })
        .collect();
    let script = host_ruleset("a-lab", &networks).unwrap();
    let bench = Bench::new();
    bench.host("host");
    bench.nft("host", &script);
    let listing: serde_json::Value =
        serde_json::from_str(&bench.in_host("host", "nft -j list ruleset")).unwrap();
    let rules = || listing["nftables"].as_array().unwrap().iter().filter_map(|entry| entry.get("rule"));
    let comments: Vec<&str> = rules().filter_map(|rule| rule["comment"].as_str()).collect();
    assert_eq!([rules().count(), comments.len()], [7, 7], "{comments:#?}");
    let all = |link: &str| {
        let quoted = format!("\"{link}\"");
        rules().filter(|rule| rule.to_string().contains(&quoted)).count()
    };
    // Between its own ports and as an end: the host's leg and both ways, both ways, both families and what comes in.
    assert_eq!([0, 599, 1, 598].map(|i| all(&format!("nl-{i}"))), [4, 4, 3, 3]);
    assert!(comments[0].starts_with(&name(0)) && comments[0].contains(" more: "), "{}", comments[0]);
}

/// Which of these datagrams, `(source port, destination port)`, come from `out` to the guest's `to`.
fn arriving(bench: &Bench, to: &str, datagrams: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let scope: u32 = bench.in_host("out", "ip -o link show dev eth0 | cut -d: -f1").trim().parse().unwrap();
    let come = |(from, port): &(u16, u16)| {
        let (from, port, ip) = (*from, *port, to.parse::<IpAddr>().unwrap());
        let any = if ip.is_ipv4() { "0.0.0.0" } else { "::" };
        let bind = move |port: u16| UdpSocket::bind((any, port)).unwrap();
        let server = netns::within(&Place::Netns("guest".into()), move || bind(port)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        netns::within(&Place::Netns("out".into()), move || {
            let to = match ip {
                IpAddr::V4(_) => SocketAddr::new(ip, port),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
            };
            let socket = bind(from);
            for _ in 0..3 {
                socket.send_to(b"reply", to).unwrap();
            }
        })
        .unwrap();
        server.recv(&mut [0; 16]).is_ok()
    };
    datagrams.iter().copied().filter(come).collect()
}

/// Who asks for a lease asks everybody, so what comes back is no answer of anybody who was asked.
#[test]
fn a_guarded_uplink_lets_leases_in_and_nothing_else() {
    let bench = Bench::new();
    for name in ["host", "out", "guest"] {
        bench.host(name);
    }
    bench.cable(("host", "up0", ""), ("out", "eth0", "10.6.0.1/24"));
    bench.cable(("host", "p0", ""), ("guest", "eth0", "10.6.0.2/24"));
    bench.in_host("host", "ip link add br0 type bridge; ip link set br0 up; ip link set up0 master br0; ip link set p0 master br0");
    let local = |who: &str| {
        let words = bench.in_host(who, "ip -o -6 address show dev eth0 scope link -tentative");
        words.split_whitespace().nth(3).map(|net| net.split('/').next().unwrap().to_owned())
    };
    // Who has none yet can neither be sent to nor send.
    bench.wait("link-local addresses", || local("guest").is_some() && local("out").is_some());
    bench.ping("out", "10.6.0.2", true);
    let guest = local("guest").unwrap();
    let six = [(547, 546), (1547, 546), (547, 7546)];
    let four = [(67, 68), (1067, 68), (67, 7068)];
    assert_eq!(arriving(&bench, &guest, &six), six);
    assert_eq!(arriving(&bench, "10.6.0.2", &four), four);
    let barrier = Barrier {
        network: "lan".into(),
        ports: vec!["p0".into()],
        barred: false,
        guarded: true,
        ..Barrier::default()
    };
    bench.nft("host", &bridge_ruleset("a-lab", &[barrier]).unwrap());
    assert_eq!(arriving(&bench, &guest, &six), [(547, 546)]);
    assert_eq!(arriving(&bench, "10.6.0.2", &four), [(67, 68)]);
    bench.ping("out", "10.6.0.2", false);
    bench.ping("guest", "10.6.0.1", true);
}
