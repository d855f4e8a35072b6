//! What holds for any two topologies A and B: A and then B comes to the same as B alone; nothing is to be changed after
//! that; `down` leaves nothing. On a host in memory, many times, and on the real one.

use std::path::Path;

use netloom::apply::Run;
use netloom::host::actuator::{Actuator, Memory};
use netloom::plan;
use netloom::resource::{Id, Node, Resource, desired};
use netloom::topology::{self, GuestKind, LoadOptions};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::extent;
use crate::host::PlayedHost;

/// Modes that need neither VLANs nor an uplink.
const MODES: [&str; 5] = ["nat", "routed", "host-only", "internal", "user"];

#[derive(Debug, Clone)]
struct Network {
    mode: &'static str,
    second_family: bool,
    mtu: Option<u16>,
    /// Whether it has another subnet than the network of that name usually has.
    moved: bool,
}

#[derive(Debug, Clone)]
struct Guest {
    /// On which networks, by number; more than there are count round.
    networks: Vec<usize>,
    by_dhcp: bool,
    serves: Option<u16>,
    forwarded: bool,
    isolated: bool,
}

#[derive(Debug, Clone)]
struct Lab {
    networks: Vec<Network>,
    guests: Vec<Guest>,
    firewall: bool,
}

prop_compose! {
    fn network()(mode in prop::sample::select(&MODES[..]), second_family: bool,
        mtu in prop::option::weighted(0.2, 1300..1500u16), moved in prop::bool::weighted(0.2)) -> Network {
        Network { mode, second_family, mtu, moved }
    }
}

prop_compose! {
    fn guest()(networks in prop::collection::vec(0..4usize, 1..=3), by_dhcp in prop::bool::weighted(0.2),
        serves in prop::option::of(80..83u16), forwarded: bool, isolated in prop::bool::weighted(0.2)) -> Guest {
        Guest { networks, by_dhcp, serves, forwarded, isolated }
    }
}

prop_compose! {
    fn lab()(networks in prop::collection::vec(network(), 1..=4), guests in prop::collection::vec(guest(), 0..=5),
        firewall in prop::bool::weighted(0.3)) -> Lab {
        Lab { networks, guests, firewall }
    }
}

impl Lab {
    fn prefix(&self, network: usize) -> String {
        format!("{}.0", 140 + network + if self.networks[network].moved { 10 } else { 0 })
    }

    /// Its networks, each once, and no two that would both be the way to everywhere.
    fn nics(&self, guest: &Guest) -> Vec<usize> {
        let mut out: Vec<usize> = Vec::new();
        for network in guest.networks.iter().map(|n| n % self.networks.len()) {
            let leads_out = |n: &usize| self.networks[*n].mode != "internal";
            let second_way_out = leads_out(&network) && out.iter().any(leads_out);
            if !out.contains(&network) && !second_way_out {
                out.push(network);
            }
        }
        out
    }

    fn network(&self, number: usize) -> String {
        let Network { mode, second_family, mtu, .. } = &self.networks[number];
        let mut out = format!("  n{number}: {{ mode: {mode}");
        if *mode != "internal" {
            let four = format!("10.{}.0/24", self.prefix(number));
            // An engine of its own has IPv4 in this model.
            match *second_family && *mode != "user" {
                true => out.push_str(&format!(", subnet: [{four}, 'fd00:{number}::/64']")),
                false => out.push_str(&format!(", subnet: {four}")),
            }
        }
        if let Some(mtu) = mtu {
            out.push_str(&format!(", mtu: {mtu}"));
        }
        let forwards: Vec<String> = (self.guests.iter().enumerate())
            .filter(|(_, guest)| guest.forwarded && !guest.by_dhcp && matches!(*mode, "nat" | "user"))
            .filter(|(_, guest)| self.nics(guest).contains(&number))
            .filter_map(|(index, guest)| Some((index, guest.serves?)))
            .map(|(index, port)| format!("{{ service: tcp/{}, to: 'g{index}:{port}' }}", 8400 + index))
            .collect();
        if !forwards.is_empty() {
            out.push_str(&format!(", forward: [{}]", forwards.join(", ")));
        }
        out + " }\n"
    }

    fn guest(&self, index: usize, guest: &Guest) -> String {
        let nic = |network: &usize| {
            let leased = guest.by_dhcp && !matches!(self.networks[*network].mode, "internal");
            let address = format!(", address: 10.{}.{}/24", self.prefix(*network), 10 + index);
            let isolated = if guest.isolated { ", pvlan: isolated" } else { "" };
            format!("{{ network: n{network}{}{isolated} }}", if leased { "" } else { &address })
        };
        let nics: Vec<String> = self.nics(guest).iter().map(nic).collect();
        let serves = guest.serves.map(|port| format!(", serve: [tcp/{port}]")).unwrap_or_default();
        format!("  g{index}: {{ nics: [{}]{serves} }}\n", nics.join(", "))
    }

    /// As a file, its parts in their order or turned round.
    fn text(&self, reversed: bool) -> String {
        let mut networks: Vec<String> = (0..self.networks.len()).map(|n| self.network(n)).collect();
        let mut guests: Vec<String> =
            self.guests.iter().enumerate().map(|(index, guest)| self.guest(index, guest)).collect();
        if self.firewall && self.networks.len() > 1 {
            guests.push(format!(
                "  fw:\n    nics: [{{ network: n0, address: 10.{}.5/24 }}, {{ network: n1, address: 10.{}.5/24 }}]\n    firewall: {{ zones: {{ one: n0, other: n1 }}, rules: [{{ from: other, to: one }}] }}\n",
                self.prefix(0),
                self.prefix(1)
            ));
        }
        if reversed {
            networks.reverse();
            guests.reverse();
        }
        let guests = if guests.is_empty() { String::new() } else { format!("guests:\n{}", guests.concat()) };
        format!("lab: model\nnetworks:\n{}{guests}", networks.concat())
    }
}

fn nodes(text: &str) -> Vec<Node> {
    let options = LoadOptions { guests: Some(GuestKind::Namespace) };
    let topology = topology::load("model", text, &options).unwrap_or_else(|e| panic!("{e}\n{text}"));
    desired::nodes(&topology, Path::new("/usr/bin/netloom")).unwrap()
}

/// What is there; no routes are no resource.
fn observed(host: &Memory) -> Vec<(Id, Resource)> {
    let nothing = |resource: &Resource| matches!(resource, Resource::Routes(r) if r.routes.is_empty());
    host.resources().into_iter().filter(|(_, resource)| !nothing(resource)).collect()
}

async fn in_memory(a: &str, b: &str) {
    let (_sender, interrupt) = tokio::sync::watch::channel(false);
    let (both, alone) = (Memory::default(), Memory::default());
    let on = |actuator| Run { actuator, progress: &|_| {}, interrupt: interrupt.clone() };
    let (first, wanted) = (nodes(a), nodes(b));
    on(&both).converge(&first).await.unwrap();
    on(&both).converge(&wanted).await.unwrap();
    let made = on(&alone).converge(&wanted).await.unwrap();
    assert_eq!(observed(&both), observed(&alone), "after\n{a}\nand then\n{b}");
    for host in [&both, &alone] {
        let found = host.observe(&wanted).await.unwrap();
        assert_eq!(plan::compare(&wanted, &found).unwrap().summary(), [], "after\n{a}\nand then\n{b}");
        on(host).tear_down(&plan::removal(&found)).await.unwrap();
        assert!(host.resources().is_empty(), "after\n{a}\nand then\n{b}");
    }
    // The same file, the same plan.
    let again = Memory::default();
    let found = again.observe(&wanted).await.unwrap();
    assert_eq!(plan::compare(&nodes(b), &found).unwrap().summary(), made.plan.summary());
}

/// How often a failure is tried to be made smaller.
fn runner(cases: u32, max_shrink_iters: u32) -> TestRunner {
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters, ..ProptestConfig::default() };
    TestRunner::new(config)
}

#[test]
fn in_memory_b_after_a_is_b() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = extent::of(250, 20_000);
    let ran = runner(cases, 2000).run(&(lab(), lab()), |(a, b)| {
        runtime.block_on(in_memory(&a.text(false), &b.text(false)));
        Ok(())
    });
    ran.unwrap();
    eprintln!("model: {cases} pairs of topologies in memory");
}

/// In which order a file names things does not matter.
#[test]
fn order_means_nothing() {
    let sorted = |text: &str| {
        let mut nodes = nodes(text);
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes.iter_mut().for_each(|node| node.needs.sort());
        nodes
    };
    let ran = runner(extent::of(100, 5_000), 2000).run(&lab(), |lab| {
        prop_assert_eq!(sorted(&lab.text(false)), sorted(&lab.text(true)));
        Ok(())
    });
    ran.unwrap();
}

/// All of a lab by tools that know nothing of netloom, without what depends on when it was made: numbers of links and
/// processes, leases, states of timers.
const LOOK: &str = r#"
    look() {
        ip -d -j link | jq -S '[.[] | {ifname, address, mtu, master, operstate, flags: (.flags | sort), ifalias, group, altnames,
            inet6_addr_gen_mode, kind: .linkinfo.info_kind, data: (.linkinfo.info_data // {} | {stp_state, vlan_filtering,
            ageing_time, group_fwd_mask, forward_delay, mode}), port: (.linkinfo.info_slave_data // {} | {state, hairpin,
            guard, learning, flood, isolated})}] | sort_by(.ifname)'
        # A bridge that has lost its last port keeps the link-local address that one without any never gets.
        ip -j address | jq -S '[.[] | .operstate as $state | {ifname, addresses: ([.addr_info[] |
            select(.dynamic != true and (.scope != "link" or $state == "UP")) | {local, prefixlen, scope}] | sort)}] | sort_by(.ifname)'
        for family in -4 -6; do ip -j $family route show proto 110 | jq -S 'map(del(.flags, .pref)) | sort'; done
        nft -s -t list ruleset
        grep -rH . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/arp_ignore /proc/sys/net/ipv4/conf/*/route_localnet \
            /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv6/conf/*/disable_ipv6 /proc/sys/net/ipv6/conf/*/forwarding |
            grep -v default/accept_ra | sort # which is said before each link is made
    }
    echo host; look
    for place in /run/netns/netloom.*; do
        [ -e "$place" ] || continue
        echo "$place"
        nsenter --net="$place" sh -c "$(declare -f look); look"
    done
    for process in /proc/[0-9]*; do
        tr '\0' '\n' <$process/environ 2>/dev/null | grep '^NETLOOM_MARK=' | sed "s|\$| $(tr '\0' ' ' <$process/cmdline)|" || :
    done | sort
    cd "$NETLOOM_STATE_DIR/labs/model"
    find . -type f | grep -v '/leases$\|/log$\|/holder$' | sort | while read -r file; do
        grep -q '"obtained":' "$file" && continue
        echo "$file"
        # A record of rules also says how many changes of any there had been.
        case $file in */rulesets/*) jq -S 'del(.generation)' "$file" ;; *) cat "$file"; echo ;; esac
    done
    ls /run/netns /run/netloom
"#;

struct Real {
    host: PlayedHost,
    before: String,
}

impl Real {
    /// What is there once nothing settles any more.
    fn look(&self) -> String {
        // The kernel takes up to a second to see that a new pair of links works, and only then gives it its own address.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        self.host.settle();
        let look = || self.host.other(&["bash", "-ec", LOOK]).output().unwrap();
        let mut last = String::new();
        for _ in 0..100 {
            let output = look();
            assert!(output.status.success(), "{output:?}");
            let now = String::from_utf8(output.stdout).unwrap();
            if now == last {
                return now;
            }
            last = now;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("it does not settle: {last}");
    }

    fn check(&self, a: &str, b: &str) -> Result<(), TestCaseError> {
        let host = &self.host;
        let up = |text: &str| {
            // One and the same path, for the lab remembers where its file was.
            let ended = host.up(&host.file("lab.yaml", text));
            prop_assert_eq!(ended.code, 0, "{:?}\n{}", ended, text);
            Ok(())
        };
        up(a)?;
        up(b)?;
        let (after, planned) = (self.look(), host.run(&["plan", "--check", "model"]));
        prop_assert_eq!(planned.code, 0, "{:?}", planned);
        host.ok(&["down", "model"]);
        host.assert_same(&self.before, "`down` after two of them leaves nothing");
        up(b)?;
        let alone = self.look();
        let lines = |a: &str, b: &str| -> Vec<String> {
            a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(str::to_owned).collect()
        };
        let (over, short) = (lines(&after, &alone), lines(&alone, &after));
        prop_assert!(
            over.is_empty() && short.is_empty(),
            "after\n{}\nand then\n{}\n- {}\n+ {}",
            a,
            b,
            short.join("\n- "),
            over.join("\n+ ")
        );
        prop_assert_eq!(after.lines().count(), alone.lines().count(), "after\n{}\nand then\n{}", a, b);
        host.ok(&["down", "model"]);
        host.assert_same(&self.before, "`down` leaves nothing");
        Ok(())
    }
}

#[test]
#[ignore = "slow"]
fn on_a_host_b_after_a_is_b() {
    let host = PlayedHost::new();
    let before = host.look();
    let real = Real { host, before };
    let cases = extent::of(2, 40);
    runner(cases, extent::of(0, 20))
        .run(&(lab(), lab()), |(a, b)| real.check(&a.text(false), &b.text(false)))
        .unwrap_or_else(|e| panic!("{e}"));
    eprintln!("model: {cases} pairs of topologies on a host");
    real.host.assert_gone();
}
