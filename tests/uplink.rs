//! A link of the host that becomes a port and stops being one: the host's addresses and routes go along and come back
//! as they were. Judged by what `ip` shows. Needs root; each test has a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;
use std::time::{Duration, Instant};

use netloom::host::links::Links;
use netloom::resource::Uplink;
use netloom::topology::Attach;
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a thread in a new network namespace.
fn alone(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A host with an uplink `up0` that has a bit of everything, and a bridge.
fn host() {
    for command in [
        "link set lo up",
        "link add up0 type veth peer far0",
        "link add br0 type bridge",
        "link set br0 up",
        "link set far0 up",
    ] {
        ip(command);
    }
    for setting in ["all/accept_dad", "up0/accept_dad", "up0/accept_ra"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{setting}"), "0").unwrap();
    }
    for command in [
        "link set up0 up",
        "address add 10.5.0.2/24 broadcast + dev up0",
        "address add 10.5.0.3/24 label up0:1 dev up0",
        "address add 10.6.0.2/16 noprefixroute valid_lft 3600 preferred_lft 1800 dev up0",
        "address add fd05::2/64 dev up0",
        "address add fd06::2/64 noprefixroute dev up0",
        "route add 10.6.0.0/16 dev up0 proto static src 10.6.0.2 metric 100",
        "route add 172.30.0.0/16 dev up0",
        "route add default via 10.5.0.1 dev up0 proto dhcp src 10.5.0.2 metric 100 mtu 1400",
        "route add 198.18.0.0/16 via 10.5.0.1 table 77",
        "route add 9.9.9.0/24 via 10.99.0.1 dev up0 onlink",
        "-6 route add default via fe80::1 dev up0 proto ra metric 1024 expires 900",
        "-6 route add fd99::/64 via fd05::1 dev up0",
        "-6 route add fd98::/64 dev up0 metric 50",
    ] {
        ip(command);
    }
    let patience = Instant::now() + Duration::from_secs(20);
    let local = |ip: &str| ip.matches("local fd0").count() == 2;
    while ip("address show dev up0").contains("tentative") || !local(&ip("-6 route show table local")) {
        assert!(Instant::now() < patience, "{}", ip("address show dev up0"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn uplink(bridge: &str) -> Uplink {
    Uplink { link: "up0".into(), bridge: bridge.into(), attach: Attach::Plain }
}

/// What a link has, as text without the clocks that run.
fn state(link: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for text in [
        ip(&format!("-o address show dev {link} scope global")),
        ip("route show table all"),
        ip("-6 route show table all"),
    ] {
        for line in text.lines().filter(|line| line.contains(link)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let runs = |i: usize| i > 0 && matches!(words[i - 1], "valid_lft" | "preferred_lft" | "expires");
            let steady =
                (0..words.len()).map(|i| if runs(i) && words[i] != "forever" { "N" } else { words[i] });
            lines.push(steady.collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    lines
}

#[test]
fn an_uplink_gets_back_what_it_gave() {
    alone(async || {
        host();
        let before = state("up0");
        assert!(before.len() > 15, "{before:#?}");
        let links = Links::new("uplinks");
        links.join_uplink("lan", &uplink("br0")).await.unwrap();
        assert!(ip("link show up0").contains("master br0"));
        assert!(!ip("address show dev up0").contains("10.5.0.2"));
        for part in ["10.5.0.2/24 brd", "10.5.0.3/24", "10.6.0.2/16", "fd05::2/64", "fd06::2/64"] {
            assert!(ip("address show dev br0").contains(part), "{part} is not on the bridge");
        }
        assert!(ip("route show default").contains("via 10.5.0.1 dev br0 proto dhcp src 10.5.0.2"));
        assert!(ip("-6 route show default").contains("via fe80::1 dev br0"));
        links.leave_uplink("lan", "up0", "br0").await.unwrap();
        // The kernel sets an IPv6 address's own route a little after the address.
        let patience = Instant::now() + Duration::from_secs(20);
        while state("up0") != before && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(state("up0"), before);
        assert!(!ip("link show up0").contains("netloom"), "the mark stayed");
        assert!(!ip("address show dev br0").contains("10.5.0.2"));
    });
}

/// The rollback of a refused join must not take the link off the bridge of somebody else.
#[test]
fn a_foreign_port_is_left_alone() {
    alone(async || {
        host();
        ip("link set up0 master br0");
        ip("link add mine type bridge");
        let links = Links::new("uplinks");
        let error = links.join_uplink("lan", &uplink("mine")).await.unwrap_err();
        assert_eq!(error.kind.exit_code(), 3);
        assert!(error.message().contains("br0"), "{error}");
        let before = state("up0");
        links.leave_uplink("lan", "up0", "mine").await.unwrap();
        assert!(ip("link show up0").contains("master br0"));
        assert_eq!(state("up0"), before);
    });
}

/// The kernel lists one thing at a time for a socket. With many links a list takes several answers, and another one is
/// asked for meanwhile.
#[test]
fn several_may_look_at_once() {
    alone(async || {
        for number in 0..150 {
            ip(&format!("link add many{number} type veth peer name more{number}"));
        }
        let links = Links::new("uplink");
        let look =
            || async { links.observe(&netloom::resource::Place::Host).await.map(|state| state.links.len()) };
        let seen = futures_util::future::join_all((0..16).map(|_| look())).await;
        for count in seen {
            assert_eq!(count.unwrap(), 301);
        }
    });
}
