//! Reading the kernel's neighbour table, judged by `ip neigh`, in network namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use netloom::host::links::{Links, Neighbour};
use netloom::resource::Place;
use netloom::topology::Mac;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

const FAR: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip` says of an address: its state and its MAC address.
fn oracle(address: &str) -> Option<(String, Option<String>)> {
    let table: Value = serde_json::from_str(&sh("ip -j neigh show dev near")).unwrap();
    let entry = table.as_array().unwrap().iter().find(|entry| entry["dst"] == address)?.clone();
    let mac = entry["lladdr"].as_str().map(ToOwned::to_owned);
    Some((entry["state"][0].as_str().unwrap().to_owned(), mac))
}

/// A veth pair `near` and `far`, the far end in a namespace of its own (a process's that sleeps) with addresses.
struct Pair {
    far: std::process::Child,
}

impl Pair {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let far = Command::new("unshare").args(["-n", "sleep", "60"]).spawn().unwrap();
        let pair = Self { far };
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let began = Instant::now();
        while std::fs::read_link(format!("/proc/{}/ns/net", pair.far.id())).unwrap() == own {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        sh(&format!(
            "ip link add near type veth peer name far address {FAR} netns {}
             ip address add 10.0.0.1/24 dev near
             ip address add fd00::1/64 dev near nodad
             ip link set near up",
            pair.far.id()
        ));
        pair.inside(
            "ip address add 10.0.0.2/24 dev far; ip address add fd00::2/64 dev far nodad; ip link set far up",
        );
        // An IPv6 link-local address that is still tentative asks nobody.
        let began = Instant::now();
        while sh("ip -6 address show dev near scope link -tentative").is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(20));
        }
        pair
    }

    fn inside(&self, script: &str) -> String {
        sh(&format!("nsenter -t {} -n sh -ec '{script}'", self.far.id()))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.far.kill();
        let _ = self.far.wait();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Looks until an address is known, for at most as long.
async fn known(links: &Links, address: &str, limit: Duration) -> Option<Neighbour> {
    let began = Instant::now();
    loop {
        let found = links.neighbours(&Place::Host).await.unwrap();
        let found = found.into_iter().find(|neighbour| neighbour.address == ip(address));
        if found.is_some() || began.elapsed() > limit {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_answers_is_known_by_mac_and_who_does_not_is_not() {
    let pair = Pair::new();
    let links = Links::new("lab");
    let near = links.observe(&Place::Host).await.unwrap().link("near").unwrap().index;
    assert_eq!(links.neighbours(&Place::Host).await.unwrap(), []);
    // What a packet's way would forbid does not matter.
    let table = "table inet t { chain c { type filter hook output priority 0; policy drop; ct state new drop; meta l4proto icmpv6 accept; }; }";
    sh(&format!("echo '{table}' | nft -f -"));
    for address in ["10.0.0.2", "fd00::2"] {
        links.solicit(&Place::Host, near, ip(address)).await.unwrap();
        let found = known(&links, address, Duration::from_secs(5)).await;
        assert_eq!(found, Some(Neighbour { link: near, address: ip(address), mac: FAR }));
        let (state, mac) = oracle(address).unwrap();
        assert_eq!((state.as_str(), mac), ("REACHABLE", Some(FAR.to_string())), "{address}");
    }
    // Nobody there: asked, given up, never known.
    links.solicit(&Place::Host, near, ip("10.0.0.3")).await.unwrap();
    assert_eq!(oracle("10.0.0.3").unwrap().0, "INCOMPLETE");
    assert_eq!(known(&links, "10.0.0.3", Duration::from_secs(5)).await, None);
    let left = oracle("10.0.0.3"); // the kernel may have cleared it away
    assert!(left.as_ref().is_none_or(|(state, _)| state == "FAILED"), "{left:?}");
    drop(pair);
}

#[tokio::test]
async fn an_entry_from_before_is_forgotten_and_only_an_answer_brings_it_back() {
    let pair = Pair::new();
    let links = Links::new("lab");
    let near = links.observe(&Place::Host).await.unwrap().link("near").unwrap().index;
    let forget = async |address| links.forget_neighbour(&Place::Host, near, ip(address)).await.unwrap();
    forget("10.0.0.2").await; // fine when there is none
    for address in ["10.0.0.2", "fd00::2"] {
        links.solicit(&Place::Host, near, ip(address)).await.unwrap();
        assert!(known(&links, address, Duration::from_secs(5)).await.is_some(), "{address}");
    }
    // Its owner is gone: the old entry stands, and would prove what is no longer true.
    pair.inside("ip address flush dev far scope global");
    assert!(known(&links, "10.0.0.2", Duration::ZERO).await.is_some());
    for address in ["10.0.0.2", "fd00::2"] {
        forget(address).await;
        assert!(oracle(address).is_none_or(|(state, _)| state == "FAILED"), "{:?}", oracle(address));
        links.solicit(&Place::Host, near, ip(address)).await.unwrap();
        assert_eq!(known(&links, address, Duration::from_secs(1)).await, None, "{address}");
    }
    // The kernel gives up after three seconds, and may by now have asked for the last time.
    pair.inside("ip address add 10.0.0.2/24 dev far");
    forget("10.0.0.2").await;
    links.solicit(&Place::Host, near, ip("10.0.0.2")).await.unwrap();
    assert!(known(&links, "10.0.0.2", Duration::from_secs(5)).await.is_some());
    // What somebody entered by hand is no answer.
    sh("ip neigh replace 10.0.0.9 lladdr 52:54:00:00:00:02 nud permanent dev near");
    assert_eq!(known(&links, "10.0.0.9", Duration::ZERO).await, None);
}

/// What nobody answered is asked for anew at once; what somebody did stays.
#[tokio::test]
async fn what_nobody_answered_is_forgotten() {
    let _pair = Pair::new();
    let links = Links::new("lab");
    let near = links.observe(&Place::Host).await.unwrap().link("near").unwrap().index;
    for address in ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"] {
        links.solicit(&Place::Host, near, ip(address)).await.unwrap();
    }
    for address in ["10.0.0.2", "fd00::2"] {
        assert!(known(&links, address, Duration::from_secs(5)).await.is_some(), "{address}");
    }
    assert!(oracle("10.0.0.3").is_some() && oracle("fd00::3").is_some());
    links.forget_unanswered(&Place::Host).await.unwrap();
    for address in ["10.0.0.3", "fd00::3"] {
        let left = oracle(address);
        assert!(left.is_none(), "{left:?}");
    }
    assert!(oracle("10.0.0.2").is_some() && oracle("fd00::2").is_some());
}

#[tokio::test]
async fn a_default_route_is_found_where_there_is_one() {
    let _pair = Pair::new();
    let links = Links::new("lab");
    for (v4, family, via) in [(true, "-4", "10.0.0.2"), (false, "-6", "fd00::2")] {
        assert!(!links.has_default_route(&Place::Host, v4).await.unwrap());
        links.add_default_route(&Place::Host, "near", v4, Some(ip(via))).await.unwrap();
        assert!(links.has_default_route(&Place::Host, v4).await.unwrap());
        let table: Value = serde_json::from_str(&sh(&format!("ip -j {family} route show default"))).unwrap();
        assert_eq!((&table[0]["gateway"], &table[0]["dev"]), (&via.into(), &"near".into()), "{table}");
        sh(&format!("ip {family} route del default; ip {family} route add unreachable default"));
        assert!(!links.has_default_route(&Place::Host, v4).await.unwrap());
    }
    links.add_default_route(&Place::Host, "nowhere", true, None).await.unwrap_err();
}
