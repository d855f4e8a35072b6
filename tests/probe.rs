//! Verdicts over real networks: what is reachable, what a packet filter blocks, and what proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bench::lab::{expect, forward, guest, guest_end, topology};
use bench::{Bench, ICMP, tcp, udp};
use netloom::error::{Error, Result};
use netloom::host::netns;
use netloom::probe::{Endpoints, Exec, Executed, Measured, Options, Vantage, Verdict, evaluate};
use netloom::resource::Place;
use netloom::topology::{Endpoint, Expectation, ExpectedVerdict, Firewall, Topology};

use ExpectedVerdict::{Blocked, Reachable};

/// Guests are namespaces of the same name; addresses are given.
#[derive(Default)]
struct Fixed {
    addresses: BTreeMap<Endpoint, Vec<(Option<&'static str>, IpAddr)>>,
    /// Guests that are asked through a shell, as VMs are.
    through_shell: bool,
    path: Option<String>,
    down: Vec<Endpoint>,
}

struct Shell {
    guest: String,
    /// Where it finds its commands, when not where everybody does.
    path: Option<String>,
}

#[async_trait]
impl Exec for Shell {
    async fn exec(&self, argv: &[String], _timeout: Duration) -> Result<Executed> {
        let (place, argv) = (Place::Netns(self.guest.clone()), argv.to_vec());
        let path = self.path.clone().unwrap_or_else(|| std::env::var("PATH").unwrap());
        let run = move || {
            std::process::Command::new("env").arg(format!("PATH={path}")).args(&argv).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(move || netns::within(&place, run)).await.unwrap()?;
        Ok(Executed {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

#[async_trait]
impl Endpoints for Fixed {
    async fn vantage(&self, endpoint: &Endpoint) -> Result<Option<Vantage>> {
        if self.down.contains(endpoint) {
            return Err(Error::failed(format!("guest `{endpoint}` does not run")));
        }
        Ok(match endpoint {
            Endpoint::Guest(name) if self.through_shell => {
                let shell = Shell { guest: name.clone(), path: self.path.clone() };
                Some(Vantage::Exec(Arc::new(shell)))
            }
            Endpoint::Guest(name) => Some(Vantage::Netns(Place::Netns(name.clone()))),
            Endpoint::Host => Some(Vantage::Netns(Place::Host)),
            _ => None,
        })
    }

    async fn addresses(&self, endpoint: &Endpoint, via: Option<&str>) -> Result<Vec<IpAddr>> {
        let all = self.addresses.get(endpoint).cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|(on, _)| via.is_none() || *on == via).map(|(_, ip)| ip).collect())
    }
}

impl Fixed {
    fn with(mut self, endpoint: Endpoint, list: &[(&'static str, &str)]) -> Self {
        let list = list.iter().map(|(on, ip)| (Some(*on), ip.parse().unwrap()));
        self.addresses.entry(endpoint).or_default().extend(list);
        self
    }
}

fn pair(bench: &Bench) -> Fixed {
    for host in ["pc", "web"] {
        bench.host(host);
    }
    bench.cable(("pc", "eth0", "10.0.0.1/24 fd00::1/64"), ("web", "eth0", "10.0.0.2/24 fd00::2/64"));
    Fixed::default()
        .with(guest_end("pc"), &[("net", "10.0.0.1"), ("net", "fd00::1")])
        .with(guest_end("web"), &[("net", "10.0.0.2"), ("net", "fd00::2")])
}

/// Two guests on one network; web serves.
fn two(expect: Vec<Expectation>) -> Topology {
    let mut web = guest("web", &[("eth0", "net", "10.0.0.2/24 fd00::2/64")]);
    web.serve = vec![tcp(80), udp(53)];
    Topology { expect, ..topology(vec![guest("pc", &[("eth0", "net", "10.0.0.1/24 fd00::1/64")]), web]) }
}

fn measure(topology: &Topology, endpoints: &Fixed) -> Vec<Measured> {
    measure_with(topology, endpoints, &Options::default())
}

fn measure_with(topology: &Topology, endpoints: &Fixed, options: &Options) -> Vec<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(evaluate(topology, endpoints, options)).unwrap()
}

fn to_web(verdict: ExpectedVerdict) -> Vec<Expectation> {
    [ICMP, tcp(80), udp(53)]
        .into_iter()
        .map(|service| expect(guest_end("pc"), guest_end("web"), service, verdict))
        .collect()
}

#[track_caller]
fn all_are(measured: &[Measured], verdict: Verdict, detail: &str) {
    assert_eq!(measured.len(), 6, "three services over two families: {measured:#?}");
    for one in measured {
        assert_eq!(one.verdict, verdict, "{one:#?}");
        assert!(one.detail.contains(detail), "{one:#?}");
    }
}

#[test]
fn a_live_server_is_reachable() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.serve("web", "lab/web", &[tcp(80), udp(53)]);
    let began = Instant::now();
    let measured = measure(&two(to_web(Reachable)), &ends);
    all_are(&measured, Verdict::Reachable, "answered");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(measured.iter().all(|one| one.ok && one.rtt_us.is_some_and(|rtt| rtt < 15_000_000)));
    assert!(measured.iter().skip(2).all(|one| one.detail == "answered by lab/web"), "{measured:#?}");
    assert!(
        measure(&two(to_web(Blocked)), &ends).iter().all(|one| one.verdict == Verdict::Reachable && !one.ok)
    );
}

const DROP: &str = "table inet t {\n chain input {\n type filter hook input priority 0; policy drop;\n iifname \"lo\" accept\n icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n }\n}\n";

#[test]
fn a_packet_filter_blocks_while_the_control_passes() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.serve("web", "lab/web", &[tcp(80), udp(53)]);
    bench.nft("web", DROP);
    let began = Instant::now();
    let measured = measure(&two(to_web(Blocked)), &ends);
    all_are(&measured, Verdict::Blocked, "timed out");
    assert!(
        measured
            .iter()
            .all(|one| one.ok && one.control.as_deref().is_some_and(|c| c.contains("web itself answers")))
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let measured = measure(&two(to_web(Reachable)), &ends);
    assert!(measured.iter().all(|one| one.verdict == Verdict::Blocked && !one.ok));
}

#[test]
fn a_dead_server_proves_nothing() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.nft("web", DROP);
    let measured = measure(&two(to_web(Blocked)), &ends);
    for one in &measured {
        let wanted = if one.service == ICMP { Verdict::Blocked } else { Verdict::Inconclusive };
        assert_eq!(one.verdict, wanted, "{one:#?}");
        assert_eq!(one.ok, one.service == ICMP);
        assert!(one.service == ICMP || one.detail.contains("web itself does not answer"), "{one:#?}");
    }
    bench.in_host("web", "nft delete table inet t");
    let measured = measure(&two(to_web(Blocked)), &ends);
    for one in measured.iter().filter(|one| one.service != ICMP) {
        assert_eq!(one.verdict, Verdict::Inconclusive, "{one:#?}");
        assert!(one.detail.starts_with("refused"), "{one:#?}");
    }
}

#[test]
fn a_dead_source_proves_nothing() {
    let bench = Bench::new();
    let mut ends = pair(&bench);
    bench.serve("web", "lab/web", &[tcp(80), udp(53)]);
    // Its addresses are gone, but nobody has noticed.
    bench.in_host("pc", "ip link set eth0 down; ip addr flush dev eth0; ip link set lo down");
    all_are(&measure(&two(to_web(Blocked)), &ends), Verdict::Inconclusive, "pc does not reach its own");
    ends.down.push(guest_end("pc"));
    all_are(&measure(&two(to_web(Blocked)), &ends), Verdict::Inconclusive, "does not run");
    let nowhere = Fixed::default().with(guest_end("web"), &[("net", "10.0.0.2")]);
    let measured = measure(&two(to_web(Blocked)), &nowhere);
    assert!(
        measured.iter().all(|one| one.verdict == Verdict::Inconclusive && one.detail == "pc has no address")
    );
}

#[test]
fn a_refusal_names_who_refused() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.serve("web", "lab/web", &[tcp(80), udp(53)]);
    let reject = "table inet t {\n chain input {\n type filter hook input priority 0; policy accept;\n iifname \"lo\" accept\n icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n reject with icmpx type admin-prohibited\n }\n}\n";
    bench.nft("web", reject);
    let measured = measure(&two(to_web(Blocked)), &ends);
    all_are(&measured, Verdict::Blocked, "administratively prohibited");
    for one in &measured {
        let by = if one.family == Some(4) { "by 10.0.0.2:" } else { "by fd00::2:" };
        assert!(one.detail.contains(by), "{one:#?}");
    }
    let reset =
        reject.replace("reject with icmpx type admin-prohibited", "tcp dport 80 reject with tcp reset");
    bench.in_host("web", "nft delete table inet t");
    bench.nft("web", &reset);
    let measured = measure(&two(vec![expect(guest_end("pc"), guest_end("web"), tcp(80), Blocked)]), &ends);
    assert!(
        measured.iter().all(|one| one.verdict == Verdict::Blocked && one.detail == "refused"),
        "{measured:#?}"
    );
}

#[test]
fn somebody_elses_answer_is_no_answer() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.serve("web", "lab/other", &[tcp(80), udp(53)]);
    for verdict in [Reachable, Blocked] {
        let measured = measure(&two(to_web(verdict)), &ends);
        for one in measured.iter().filter(|one| one.service != ICMP) {
            assert_eq!(one.verdict, Verdict::Inconclusive, "{one:#?}");
            assert!(one.detail.contains("answered by lab/other instead of lab/web"), "{one:#?}");
        }
    }
}

#[test]
fn an_accepted_connection_without_the_servers_line_is_no_answer() {
    let bench = Bench::new();
    let ends = pair(&bench);
    // A server of its own kind in between accepts everything and says nothing, except on loopback.
    bench.serve("web", "lab/web", &[tcp(80)]);
    netns::within(&Place::Netns("web".into()), || {
        let listener = std::net::TcpListener::bind("10.0.0.2:81").unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
    })
    .unwrap();
    bench.nft("web", "table ip t {\n chain pre {\n type nat hook prerouting priority dstnat;\n tcp dport 80 redirect to :81\n }\n}\n");
    let mut only = two(vec![expect(guest_end("pc"), guest_end("web"), tcp(80), Blocked)]);
    only.expect[0].family = Some(4);
    let measured = measure(&only, &ends);
    assert_eq!(measured[0].verdict, Verdict::Blocked, "{measured:#?}");
    assert!(measured[0].detail.contains("never came"), "{measured:#?}");
}

#[test]
fn a_late_server_is_waited_for() {
    let bench = Bench::new();
    let ends = pair(&bench);
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(1500));
        let services = [tcp(80), udp(53)];
        netns::within(&Place::Netns("web".into()), move || netloom::serve::run("lab/web", &services).unwrap())
    });
    all_are(&measure(&two(to_web(Reachable)), &ends), Verdict::Reachable, "answered");
}

#[test]
fn families_are_those_that_both_ends_have_and_the_source_has_a_route_for() {
    let bench = Bench::new();
    let ends = pair(&bench);
    let far = |service, family| Expectation {
        family,
        ..expect(guest_end("pc"), Endpoint::Outside, service, Reachable)
    };
    bench.in_host("web", "ip addr add 192.0.2.9/32 dev lo; ip addr add 2001:db8::9/128 dev lo");
    bench.in_host("pc", "ip route add 192.0.2.0/24 via 10.0.0.2");
    let ends = ends.with(Endpoint::Outside, &[("", "192.0.2.9"), ("", "2001:db8::9")]);
    let measured = measure(&two(vec![far(ICMP, None), far(ICMP, Some(6))]), &ends);
    let found: Vec<_> = measured.iter().map(|one| (one.index, one.family, one.verdict)).collect();
    assert_eq!(found[..1], [(0, Some(4), Verdict::Reachable)], "{measured:#?}");
    assert_eq!((found[1].0, found[1].1), (1, Some(6)));
    assert!(measured[1].detail.contains("no route") && measured.len() == 2, "{measured:#?}");
    // Nobody reached it over IPv6 and nothing can be started there, so nothing is proven.
    assert_eq!(measured[1].verdict, Verdict::Inconclusive);
}

#[test]
fn a_bare_address_is_controlled_by_whoever_reached_it() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.host("spy");
    bench.cable(("spy", "eth0", "10.0.1.1/24"), ("web", "eth1", "10.0.1.2/24"));
    bench.in_host("spy", "ip route add default via 10.0.1.2");
    let ends = ends.with(guest_end("spy"), &[("side", "10.0.1.1")]);
    bench.nft("web", "table inet t {\n chain input {\n type filter hook input priority 0; policy accept;\n iifname \"eth1\" drop\n }\n}\n");
    let address = Endpoint::Address("10.0.0.2".parse().unwrap());
    let both = two(vec![
        expect(guest_end("spy"), address.clone(), ICMP, Blocked),
        expect(guest_end("pc"), address, ICMP, Reachable),
    ]);
    let measured = measure(&both, &ends);
    assert!(measured.iter().all(|one| one.ok), "{measured:#?}");
    assert_eq!(measured[0].control.as_deref(), Some("pc reaches icmp at 10.0.0.2"));
    let alone = Topology { expect: both.expect[..1].to_vec(), ..both };
    assert_eq!(measure(&alone, &ends)[0].verdict, Verdict::Inconclusive);
}

#[test]
fn a_port_forward_is_answered_and_controlled_by_the_guest_behind_it() {
    let bench = Bench::new();
    for host in ["out", "fw", "web"] {
        bench.host(host);
    }
    bench.cable(("out", "eth0", "192.0.2.2/24"), ("fw", "eth0", "192.0.2.1/24"));
    bench.cable(("fw", "eth1", "10.0.0.1/24"), ("web", "eth0", "10.0.0.2/24"));
    bench.in_host("web", "ip route add default via 10.0.0.1");
    bench.router("fw");
    let mut fw = guest("fw", &[("eth0", "wan", "192.0.2.1/24"), ("eth1", "dmz", "10.0.0.1/24")]);
    let zone = |name: &str, link: &str| (name.to_owned(), vec![link.to_owned()]);
    fw.firewall = Some(Firewall {
        flavour: "linux".into(),
        zones: BTreeMap::from([zone("wan", "eth0"), zone("dmz", "eth1")]),
        masquerade: Vec::new(),
        dhcp: BTreeMap::new(),
        rules: vec![forward("wan", "dmz", tcp(8080), &[("10.0.0.2", 80)])],
    });
    let mut web = guest("web", &[("eth0", "dmz", "10.0.0.2/24")]);
    web.serve = vec![tcp(80)];
    let mut lab = topology(vec![guest("out", &[("eth0", "wan", "192.0.2.2/24")]), fw, web]);
    let ends = Fixed::default()
        .with(guest_end("out"), &[("wan", "192.0.2.2")])
        .with(guest_end("fw"), &[("wan", "192.0.2.1"), ("dmz", "10.0.0.1")])
        .with(guest_end("web"), &[("dmz", "10.0.0.2")]);
    bench.serve("web", "lab/web", &[tcp(80)]);
    lab.expect = vec![expect(guest_end("out"), guest_end("fw"), tcp(8080), Reachable)];
    bench.nft("fw", &netloom::firewall::compile(&lab, &lab.guests["fw"]).unwrap().ruleset);
    let measured = measure(&lab, &ends);
    assert_eq!(measured.len(), 1);
    assert_eq!(measured[0].detail, "answered by lab/web", "{measured:#?}");
    assert_eq!(measured[0].address, Some("192.0.2.1".parse().unwrap()), "the shared network's");
    // With the forward taken away the very same expectation is blocked, and web is the proof.
    bench.in_host("fw", "nft delete chain inet netloom destination_nat");
    lab.expect[0].verdict = Blocked;
    let measured = measure(&lab, &ends);
    assert_eq!(measured[0].verdict, Verdict::Blocked, "{measured:#?}");
    assert_eq!(measured[0].control.as_deref(), Some("web itself answers tcp/80 at 10.0.0.2"));
}

#[test]
fn guests_are_probed_through_a_shell_with_the_same_verdicts() {
    let bench = Bench::new();
    let mut ends = pair(&bench);
    ends.through_shell = true;
    bench.serve("web", "lab/web", &[tcp(80), udp(53)]);
    all_are(&measure(&two(to_web(Reachable)), &ends), Verdict::Reachable, "answered");
    bench.nft("web", DROP);
    all_are(&measure(&two(to_web(Blocked)), &ends), Verdict::Blocked, "timed out");
    bench.in_host("pc", "ip addr flush dev eth0 scope global");
    let measured = measure(&two(to_web(Blocked)), &ends);
    assert!(measured.iter().all(|one| one.verdict == Verdict::Inconclusive), "{measured:#?}");
}

#[test]
fn a_guest_with_busybox_alone_can_be_probed_from() {
    let bench = Bench::new();
    let mut ends = pair(&bench);
    bench.sh("mkdir /run/bin; busybox --install -s /run/bin");
    // A ping that is not busybox's would be found here if it were needed; UDP needs what busybox has not.
    (ends.through_shell, ends.path) = (true, Some("/run/bin".into()));
    let patient = Options { patience: Duration::from_secs(2), ..Options::default() };
    bench.serve("web", "lab/web", &[tcp(80), udp(53)]);
    for one in measure_with(&two(to_web(Reachable)), &ends, &patient) {
        if one.service == udp(53) {
            assert_eq!(one.verdict, Verdict::Inconclusive, "{one:#?}");
            assert!(one.detail.contains("the guest has no bash, socat"), "{one:#?}");
        } else {
            assert_eq!(one.verdict, Verdict::Reachable, "{one:#?}");
            assert!(one.service == ICMP || one.detail == "answered by lab/web", "{one:#?}");
        }
    }
    bench.nft("web", DROP);
    for one in measure(&two(to_web(Blocked)), &ends).iter().filter(|one| one.service != udp(53)) {
        assert_eq!(one.verdict, Verdict::Blocked, "{one:#?}");
        assert_eq!(one.detail, "timed out");
    }
    bench.in_host("web", "nft delete table inet t");
    let closed = two(vec![expect(guest_end("pc"), guest_end("web"), tcp(81), Blocked)]);
    for one in measure(&closed, &ends) {
        assert_eq!(one.verdict, Verdict::Inconclusive, "{one:#?}");
        assert!(one.detail.starts_with("refused"), "{one:#?}");
    }
}

#[test]
fn the_servers_answer_comes_from_the_address_that_was_asked() {
    let bench = Bench::new();
    let ends = pair(&bench);
    bench.in_host("web", "ip addr add 192.0.2.7/32 dev lo; ip addr add 2001:db8::7/128 dev lo");
    bench.in_host("pc", "ip route add 192.0.2.7 via 10.0.0.2; ip -6 route add 2001:db8::7 via fd00::2");
    bench.serve("web", "lab/web", &[udp(53)]);
    drop(ends);
    bench.udp("pc", "192.0.2.7", 53, "lab/web udp/53");
    bench.udp("pc", "2001:db8::7", 53, "lab/web udp/53");
}

#[test]
fn slow_clients_do_not_stop_the_server() {
    let bench = Bench::new();
    let _ends = pair(&bench);
    bench.serve("web", "lab/web", &[tcp(80)]);
    let idle = netns::within(&Place::Netns("pc".into()), || {
        let connect = |_| std::net::TcpStream::connect("10.0.0.2:80").unwrap();
        (0..300).map(connect).collect::<Vec<_>>() // more than are answered at a time
    })
    .unwrap();
    bench.tcp("pc", "10.0.0.2", 80, "lab/web tcp/80");
    drop(idle);
}
