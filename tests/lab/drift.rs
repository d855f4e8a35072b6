//! Somebody changes by hand what netloom made: `status` and `plan` name it, `up` mends it.

use std::collections::BTreeMap;

use netloom::resource::names;

use crate::rig::{Ended, Rig, changes, eventually};

const LAB: &str = "
lab: drifting
networks:
  lan: { mode: nat, subnet: 10.73.0.0/24 }
  side: { mode: internal }
guests:
  a:
    nics: [{ network: lan }, { network: side, address: 10.73.1.1/24 }]
    serve: [tcp/80]
  b:
    nics: [{ network: side, address: 10.73.1.2/24, gateway: 10.73.1.1 }]
";

struct Drift {
    rig: Rig,
    file: String,
}

impl Drift {
    fn new() -> Self {
        let rig = Rig::new();
        let file = rig.file("lab.yaml", LAB);
        rig.up(&file);
        Self { rig, file }
    }

    /// Does it, sees it in `plan` and `status`, mends it, and sees it no more.
    #[track_caller]
    fn mended(&self, place: &str, script: &str, wanted: &[(&str, &str)]) {
        self.rig.sh(&format!("drifting/{place}"), script);
        let plan = eventually("the drift is seen", || self.plan(wanted), || self.rig.plan(&self.file));
        for (change, reason) in wanted {
            assert!(plan[*change].contains(reason), "{change}: `{reason}` is missing in `{}`", plan[*change]);
        }
        let status = self.rig.json(&["status", "--json", "drifting"]);
        let named: Vec<String> = plan.keys().cloned().collect();
        assert_eq!(changes(&status["drift"]), named);
        assert_eq!(self.rig.up(&self.file), named);
        self.rig.ok(&["plan", "--check", "drifting"]);
        let status = self.rig.json(&["status", "--json", "drifting"]);
        assert_eq!(status["drift"].as_array().unwrap().len(), 0, "{status}");
        // All of it works again.
        self.rig.sh("drifting/host", "ping -c 1 -w 3 $(ip netns exec netloom.drifting.a ip -j -4 address show dev eth0 | jq -r '.[0].addr_info[0].local')");
        self.rig.sh("drifting/b", "ping -c 1 -w 3 10.73.1.1");
    }

    fn plan(&self, wanted: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
        let plan = self.rig.plan(&self.file);
        let all = wanted.iter().all(|(change, _)| plan.contains_key(*change));
        (all && plan.len() == wanted.len()).then_some(plan)
    }

    fn down(self) {
        self.rig.ok(&["down", "drifting"]);
        self.rig.assert_gone();
    }
}

#[test]
fn links_and_addresses() {
    let drift = Drift::new();
    let lan = names::link("drifting", "bridge", "lan");
    let near = names::link("drifting", "veth", "b/eth0");
    drift.mended(
        "host",
        &format!("ip link del {near}"),
        &[("create veth b/eth0", "does not exist"), ("create routes b", "does not exist")],
    );
    drift.mended(
        "host",
        &format!("ip address add 10.99.99.1/24 dev {lan}"),
        &[("update bridge lan", "address 10.99.99.1/24 is extra")],
    );
    drift.mended(
        "host",
        &format!("ip address del 10.73.0.1/24 dev {lan}"),
        &[("update bridge lan", "address 10.73.0.1/24 is missing")],
    );
    drift.mended("host", &format!("ip link set {near} nomaster"), &[("update veth b/eth0", "bridge none →")]);
    drift.mended("host", &format!("ip link set {lan} down"), &[("update bridge lan", "is down")]);
    drift.mended("b", "ip link set eth0 mtu 1400", &[("update veth b/eth0", "MTU 1400 → 1500")]);
    drift.mended(
        "b",
        "ip link set eth0 address 02:00:00:00:00:99",
        &[("update veth b/eth0", "MAC 02:00:00:00:00:99")],
    );
    drift.mended("b", "ip route del default", &[("create routes b", "does not exist")]);
    drift.down();
}

#[test]
fn rules_and_settings() {
    let drift = Drift::new();
    drift.mended("host", "nft flush ruleset", &[("create ruleset host", "does not exist")]);
    let table = names::table("drifting");
    drift.mended(
        "host",
        &format!("nft add chain inet {table} mine; nft add rule inet {table} mine drop"),
        &[("update ruleset host", "was changed by somebody else")],
    );
    drift.mended("host", "sysctl -qw net.ipv4.ip_forward=0", &[("update sysctls host", "0 → 1")]);
    drift.down();
}

/// The kernel counts changes of a namespace's tables: where the count is that of the last listing, none is listed.
#[test]
fn rules_are_listed_only_after_a_change() {
    let drift = Drift::new();
    let calls = drift.rig.work.join("calls");
    let listings = || {
        let traced = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", calls.to_str().unwrap()];
        let plan = [env!("CARGO_BIN_EXE_netloom"), "plan", "--check", "drifting"];
        let ended: Ended = drift.rig.other(&[&traced[..], &plan].concat()).output().unwrap().into();
        assert_eq!(ended.code, 0, "{ended:?}");
        std::fs::read_to_string(&calls).unwrap().lines().filter(|call| call.contains("/nft\"")).count()
    };
    let nothing: [String; 0] = [];
    assert_eq!(drift.rig.up(&drift.file), nothing);
    assert_eq!(listings(), 0);
    let table = names::table("drifting");
    let undone = format!("nft add chain inet {table} mine; nft delete chain inet {table} mine");
    for change in ["nft add table inet somebody", &undone] {
        drift.rig.sh("drifting/host", change);
        // Whoever only looks leaves it at that; `up` notes that it is still what it was.
        assert_ne!(listings(), 0);
        assert_ne!(listings(), 0);
        assert_eq!(drift.rig.up(&drift.file), nothing);
        assert_eq!(listings(), 0);
    }
    drift.down();
}

#[test]
fn processes() {
    let drift = Drift::new();
    let kill = |what: &str| {
        format!(
            "for process in /proc/[0-9]*; do if tr '\\0' '\\n' <$process/environ 2>/dev/null | grep -q '^NETLOOM_MARK=.*{what}' && \
                tr '\\0' ' ' <$process/cmdline | grep -q MATCH; then kill -9 ${{process#/proc/}}; fi; done"
        )
    };
    // A killed service comes back by itself, its supervisor sees to that.
    let serving = || drift.rig.sh("drifting/a", "ss -Hltnp | grep -o 'pid=[0-9]*' || true");
    let before = serving();
    assert!(before.starts_with("pid="), "{before}");
    drift.rig.sh("drifting/host", &kill("service:a/serve").replace("MATCH", "__serve"));
    eventually(
        "the service is back",
        || (serving().starts_with("pid=") && serving() != before).then_some(()),
        serving,
    );
    drift.rig.ok(&["plan", "--check", "drifting"]);
    // A killed supervisor leaves a service alone, which is drift; and both killed is a service that is not there.
    drift.mended(
        "host",
        &kill("service:a/serve").replace("MATCH", "__supervise"),
        &[("replace service a/serve", "is not supervised")],
    );
    drift.mended(
        "host",
        &kill("service:lan+network/dnsmasq").replace("MATCH", "."),
        &[("create service lan+network/dnsmasq", "does not exist")],
    );
    drift.down();
}

/// A DHCP client that was made anew asks for a lease again; until it has one, the guest is not ready, though the address
/// that its predecessor was given is still there.
#[test]
fn a_lease_of_before_is_none() {
    let drift = Drift::new();
    let processes = |service: &str| {
        format!(
            "for process in /proc/[0-9]*; do if tr '\\0' '\\n' <$process/environ 2>/dev/null | grep -q '^NETLOOM_MARK=.*service:{service} '; \
                then kill -SIGNAL ${{process#/proc/}}; fi; done"
        )
    };
    drift.rig.sh("drifting/host", &processes("lan+network/dnsmasq").replace("SIGNAL", "STOP"));
    drift.rig.sh("drifting/host", &processes("a/dhcp-eth0").replace("SIGNAL", "KILL"));
    let gone = || drift.rig.plan(&drift.file).contains_key("create service a/dhcp-eth0").then_some(());
    eventually("the client is gone", gone, || drift.rig.plan(&drift.file));
    let ended =
        drift.rig.run(&["up", "--keep", "--sandbox", "--guests", "namespace", "--timeout", "3", &drift.file]);
    ended.said(4, &["guest `a` did not become ready: no DHCP lease on lan"]);
    drift.rig.sh("drifting/host", &processes("lan+network/dnsmasq").replace("SIGNAL", "CONT"));
    drift.rig.up(&drift.file);
    drift.rig.sh("drifting/a", "ip route get 10.99.0.1");
    drift.down();
}

#[test]
fn a_namespace() {
    let drift = Drift::new();
    let script = "ip netns del netloom.drifting.b";
    let file = &drift.file;
    drift.rig.sh("drifting/host", script);
    let seen = || drift.rig.plan(file).contains_key("create namespace b").then_some(());
    eventually("its absence is seen", seen, || drift.rig.plan(file));
    drift.rig.up(file);
    drift.rig.ok(&["plan", "--check", "drifting"]);
    drift.rig.sh("drifting/b", "ping -c 1 -w 3 10.73.1.1");
    drift.down();
}
