//! The dnsmasq text of a network, judged by dnsmasq itself, a DHCP client, a resolver and the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;

use bench::{Bench, Running};
use netloom::dhcp::{DhcpNetwork, Upstream, network_config};
use netloom::topology::AddressRange;

fn network() -> DhcpNetwork {
    DhcpNetwork {
        lab: "lab".into(),
        link: "br0".into(),
        addresses: vec!["10.1.0.1/24".parse().unwrap(), "fd01::1/64".parse().unwrap()],
        range: Some(AddressRange {
            first: "10.1.0.100".parse().unwrap(),
            last: "10.1.0.199".parse().unwrap(),
        }),
        advertise: true,
        dns: true,
        upstream: Upstream::AsHost,
        routes: [true, true],
        mtu: 1400,
        resolver: None,
        reserved: Vec::new(),
        hosts: vec![
            ("host".into(), "10.1.0.1".parse().unwrap()),
            ("web".into(), "10.1.0.7".parse().unwrap()),
            ("web".into(), "fd01::7".parse().unwrap()),
            ("web".into(), "10.2.0.7".parse().unwrap()),
        ],
    }
}

/// A host with the server on a bridge, and a guest that listens to routers.
fn served(network: &DhcpNetwork) -> (Bench, Running) {
    let bench = Bench::new();
    bench.host("host");
    bench.host("pc");
    bench.in_host("host", "ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.0.1/24 dev br0; ip addr add fd01::1/64 dev br0 nodad");
    bench.cable(("host", "p0", ""), ("pc", "eth0", ""));
    bench.in_host("host", "ip link set p0 master br0");
    std::fs::create_dir("/run/service").unwrap();
    let config = network_config(network).replace("{dir}", "/run/service");
    std::fs::write("/run/service/dnsmasq.conf", config).unwrap();
    bench.sh("dnsmasq --test -C /run/service/dnsmasq.conf");
    let server = bench.start("host", "dnsmasq -C /run/service/dnsmasq.conf 2>/run/service/log");
    bench.wait("start of dnsmasq", || {
        std::fs::read_to_string("/run/service/log").is_ok_and(|log| log.contains("started, version"))
    });
    (bench, server)
}

/// What the client is told, as `variable=value` lines.
fn lease(bench: &Bench) -> String {
    let script = "#!/bin/sh\n[ \"$1\" = bound ] && env > /run/lease\nexit 0\n";
    std::fs::write("/run/told", script).unwrap();
    bench.sh("chmod +x /run/told");
    bench.in_host("pc", "busybox udhcpc -n -q -f -t 20 -T 1 -i eth0 -x hostname:pc -O mtu -s /run/told");
    std::fs::read_to_string("/run/lease").unwrap()
}

#[test]
fn a_network_that_leads_out_hands_out_everything() {
    let (bench, _server) = served(&network());
    let lease = lease(&bench);
    let line = |key: &str| lease.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    assert!(line("ip").unwrap().starts_with("10.1.0.1"), "{lease}");
    assert_eq!(line("router"), Some("10.1.0.1"));
    assert_eq!(line("dns"), Some("10.1.0.1"));
    assert_eq!(line("mtu"), Some("1400"));
    assert_eq!((line("lease"), line("mask"), line("domain")), (Some("600"), Some("24"), Some("lab")));
    bench.in_host("pc", &format!("ip addr add {}/24 dev eth0", line("ip").unwrap()));
    let web = bench.in_host("pc", "busybox nslookup web.lab 10.1.0.1");
    assert!(["10.1.0.7", "10.2.0.7", "fd01::7"].iter().all(|address| web.contains(address)), "{web}");
    let own = bench.in_host("pc", "busybox nslookup pc.lab 10.1.0.1");
    assert!(own.contains(line("ip").unwrap()), "a lease's name resolves: {own}");
    bench.wait("IPv6 address", || bench.in_host("pc", "ip -6 addr show dev eth0").contains("fd01:"));
    bench.wait("IPv6 route", || bench.in_host("pc", "ip -6 route show default").contains("via fe80::"));
    assert_eq!(bench.in_host("pc", "cat /proc/sys/net/ipv6/conf/eth0/mtu").trim(), "1400");
    assert!(std::fs::read_to_string("/run/service/leases").unwrap().contains(" pc "));
}

#[test]
fn a_network_that_leads_nowhere_offers_no_router_and_no_resolver() {
    let isolated = DhcpNetwork {
        dns: false,
        upstream: Upstream::Nowhere,
        routes: [false, false],
        mtu: 1500,
        ..network()
    };
    let (bench, _server) = served(&isolated);
    let lease = lease(&bench);
    for key in ["router=", "dns=", "mtu="] {
        assert!(!lease.lines().any(|line| line.starts_with(key)), "{key} in {lease}");
    }
    bench.wait("IPv6 address", || bench.in_host("pc", "ip -6 addr show dev eth0").contains("fd01:"));
    assert_eq!(bench.in_host("pc", "ip -6 route show default"), "");
    assert_eq!(bench.in_host("host", "ss -Hlntu 'sport = 53'"), "");
}

#[test]
fn the_server_runs_as_root_of_a_user_namespace() {
    let bench = Bench::new();
    let config = network_config(&network()).replace("{dir}", "/run/service");
    bench.sh("mkdir -m 777 /run/service");
    std::fs::write("/run/service/dnsmasq.conf", config).unwrap();
    let script = "ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.0.1/24 dev br0; \
        exec timeout 1 dnsmasq -C /run/service/dnsmasq.conf";
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urn", "sh", "-ec", script])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("started, version") && log.contains("DHCP, IP range"), "{log}");
    assert_eq!(output.status.code(), Some(124), "it runs until it is stopped: {log}");
}

#[test]
fn only_a_network_that_leads_out_forwards_queries() {
    let forwards = |dns, upstream| {
        !network_config(&DhcpNetwork { dns, upstream, ..network() }).contains("\nno-resolv\n")
    };
    assert!(forwards(true, Upstream::AsHost) && forwards(true, Upstream::Beyond));
    assert!(!forwards(true, Upstream::Nowhere) && !forwards(false, Upstream::AsHost));
}
