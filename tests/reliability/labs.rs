//! Three labs that between them hold something of every kind that a kernel without VLANs can, each with another file
//! that adds, changes and removes; what shows that they work; and a look at a host that holds one.

use crate::host::PlayedHost;
use crate::rig::eventually;

/// A lab with two files.
pub(crate) struct Case {
    pub(crate) lab: &'static str,
    old: &'static str,
    new: &'static str,
    /// Shell scripts on the host that succeed while the lab of the old file works.
    works: &'static [&'static str],
}

/// Two networks with a gateway, one without, a routed one; a guest that is the firewall; services.
const EVERY: Case = Case {
    lab: "every",
    old: "
lab: every
networks:
  lan: { mode: nat, subnet: [10.70.0.0/24, 'fd00:70::/64'] }
  side: { mode: internal }
  desk: { mode: host-only, subnet: 10.70.2.0/24 }
  servers: { mode: routed, subnet: 10.70.3.0/24 }
guests:
  fw:
    nics:
      - { network: lan, address: 10.70.0.2/24 }
      - { network: side, address: 10.70.1.1/24 }
    firewall:
      zones: { lan: lan, side: side }
      masquerade: [lan]
      dhcp: { side: 10.70.1.100-10.70.1.150 }
      rules: [{ from: side, to: lan }]
  pc:
    nics: [{ network: side }, { network: desk, address: 10.70.2.5/24 }]
    serve: [tcp/80]
  web:
    nics: [{ network: servers, address: 10.70.3.10/24 }]
    serve: [tcp/80]
",
    new: "
lab: every
networks:
  lan: { mode: nat, subnet: 10.70.0.0/24 }
  side: { mode: internal, mtu: 1400 }
  servers: { mode: routed, subnet: 10.70.4.0/24 }
  extra: { mode: nat, subnet: 10.70.5.0/24 }
guests:
  fw:
    nics:
      - { network: lan, address: 10.70.0.3/24 }
      - { network: side, address: 10.70.1.1/24 }
    firewall:
      zones: { lan: lan, side: side }
      dhcp: { side: 10.70.1.100-10.70.1.150 }
  pc:
    nics: [{ network: side }]
    serve: [tcp/81]
  web:
    nics: [{ network: servers, address: 10.70.4.10/24 }]
    serve: [tcp/80]
  more:
    nics: [{ network: extra, address: 10.70.5.5/24 }]
    serve: [tcp/80]
",
    works: &[
        "busybox nc -w 2 10.70.3.10 80 </dev/null | grep -q every/web",
        "busybox nc -w 2 10.70.2.5 80 </dev/null | grep -q every/pc",
        "ip netns exec netloom.every.fw ping -c 1 -w 1 10.70.0.1",
        "ip netns exec netloom.every.pc ping -c 1 -w 1 10.70.0.1",
    ],
};

/// A router in a namespace of its own, macvlans, a NAT engine for each guest, ports kept apart, forwarded ports.
const ENGINES: Case = Case {
    lab: "engines",
    old: "
lab: engines
networks:
  tenant:
    mode: openstack/self-service
    subnet: 10.30.0.0/24
    uplink: up0
    external: { address: 192.0.2.60/24, gateway: 192.0.2.1 }
    forward: [{ service: tcp/80, to: web }]
  flat: { mode: incus/macvlan, uplink: up0 }
  alone: { mode: user }
  apart: { mode: nat, subnet: 10.31.0.0/24 }
guests:
  web: { nics: [{ network: tenant, address: 10.30.0.10/24 }], serve: [tcp/80] }
  box: { nics: [{ network: flat, address: 192.0.2.61/24, gateway: 192.0.2.1 }], serve: [tcp/80] }
  one: { nics: [{ network: alone }], serve: [tcp/80], forward: [{ service: tcp/8080, port: 80 }] }
  left: { nics: [{ network: apart, address: 10.31.0.10/24, pvlan: isolated }], serve: [tcp/80] }
  right: { nics: [{ network: apart, address: 10.31.0.11/24, pvlan: blue }] }
",
    new: "
lab: engines
networks:
  tenant:
    mode: openstack/self-service
    subnet: 10.30.0.0/24
    uplink: up0
    external: { address: 192.0.2.62/24, gateway: 192.0.2.1 }
    forward: [{ service: tcp/8080, to: 'web:80' }]
  alone: { mode: user }
  apart: { mode: nat, subnet: 10.31.0.0/24 }
guests:
  web: { nics: [{ network: tenant, address: 10.30.0.10/24 }], serve: [tcp/80] }
  one: { nics: [{ network: alone }], serve: [tcp/80], forward: [{ service: tcp/8081, port: 80 }] }
  two: { nics: [{ network: alone }] }
  left: { nics: [{ network: apart, address: 10.31.0.10/24, pvlan: blue }], serve: [tcp/80] }
  right: { nics: [{ network: tenant, address: 10.30.0.11/24 }] }
",
    works: &[
        "ip netns exec isp busybox nc -w 2 192.0.2.60 80 </dev/null | grep -q engines/web",
        "ip netns exec isp busybox nc -w 2 192.0.2.61 80 </dev/null | grep -q engines/box",
        "ip netns exec isp busybox nc -w 2 192.0.2.10 8080 </dev/null | grep -q engines/one",
        "busybox nc -w 2 10.31.0.10 80 </dev/null | grep -q engines/left",
        "! ip netns exec netloom.engines.right ping -c 1 -w 1 10.31.0.10",
    ],
};

/// The host's uplink is a port, and its addresses are on the bridge.
const OUTDOORS: Case = Case {
    lab: "outdoors",
    old: "
lab: outdoors
networks:
  office: { mode: bridged, uplink: up0 }
  lan: { mode: nat, subnet: 10.40.0.0/24 }
guests:
  desk: { nics: [{ network: office, address: 192.0.2.20/24 }], serve: [tcp/80] }
  pc: { nics: [{ network: lan, address: 10.40.0.5/24 }] }
",
    new: "
lab: outdoors
networks:
  office: { mode: nat, subnet: 10.41.0.0/24 }
  lan: { mode: bridged, uplink: up0 }
guests:
  desk: { nics: [{ network: office, address: 10.41.0.5/24 }] }
  other: { nics: [{ network: lan, address: 192.0.2.21/24 }], serve: [tcp/80] }
",
    works: &[
        "ip netns exec isp busybox nc -w 2 192.0.2.20 80 </dev/null | grep -q outdoors/desk",
        "ping -c 1 -w 1 192.0.2.1",
        "ping -c 1 -w 1 2001:db8:1::1",
        "ip netns exec isp ping -c 1 -w 1 192.0.2.10",
        "ip netns exec netloom.outdoors.pc ping -c 1 -w 1 192.0.2.1",
    ],
};

pub(crate) const CASES: [&Case; 3] = [&EVERY, &ENGINES, &OUTDOORS];

/// What a lab made anew shares with the one before: numbers of links, of rules, of ports and of processes may be others.
/// One jq reads it all, for this is looked at often.
const ALIKE: &str = r#"
    documents() {
        ip -d -j link
        ip -j address
        for family in -4 -6; do ip -j $family route show table all; done
        nft -j list ruleset
    }
    everywhere() {
        documents
        for place in $(ls /run/netns); do
            echo "\"namespace $place\""
            nsenter --net=/run/netns/$place bash -c "$(declare -f documents); documents"
        done
    }
    everywhere | jq -S 'if type == "string" then . else
        [if type == "object" then .nftables[] | select(has("metainfo") | not) else .[] end]
        | walk(if type == "object" then with_entries(select(.key | endswith("_timer") or endswith("_life_time") or
            IN("packets", "bytes", "expires", "ifindex", "link_index", "link_netnsid", "handle", "index", "no", "id", "link",
            "root_port", "designated_port", "iif", "qdisc", "operstate", "flags", "dadfailed", "tentative", "broadcast") | not)) else . end)
        # A leased route has the number of its link in its metric.
        | map(if (.metric // 0) > 1000 and .metric < 1024 then .metric = "of a lease" else . end)
        | map(if has("addr_info") then .addr_info |= sort_by(tostring) else . end) | sort_by(tostring) end'
    settings() {
        for family in -4 -6; do ip $family rule; done
        grep -rH . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf 2>/dev/null |
            grep -v stable_secret | sort
    }
    settings
    for place in $(ls /run/netns); do
        echo "namespace $place"
        nsenter --net=/run/netns/$place bash -c "$(declare -f settings); settings"
    done
    for process in /proc/[0-9]*; do
        mark=$(tr '\0' '\n' <"$process/environ" 2>/dev/null | sed -n 's/^NETLOOM_MARK=//p')
        [ -z "$mark" ] || echo "process $mark $(tr '\0' ' ' <"$process/cmdline")"
    done | sort
    echo run; find /run ! -name '*.pid' | sort
    echo mounts; awk '$5 ~ "^/run|netloom" { print $5 }' /proc/self/mountinfo | sort
    cd "$NETLOOM_STATE_DIR" && find . -type f ! -name 'leases*' | sort
    find . ! -name lease.json ! -path '*/rulesets/*' \( -name '*.json' -o -name '*.yaml' -o -name '*.conf' \) -exec cksum {} + | sort
    # A record of rules also says how many changes of any there had been.
    find . -path '*/rulesets/*' -exec jq -c '[input_filename, .script, .listing]' {} + | sort
"#;

impl Case {
    /// Puts its two files on a host.
    pub(crate) fn files(&self, host: &PlayedHost) -> (String, String) {
        (host.file("old.yaml", self.old), host.file("new.yaml", self.new))
    }

    /// Waits until the lab of the old file works, to the eyes of `nc` and `ping`.
    #[track_caller]
    pub(crate) fn assert_works(&self, host: &PlayedHost, when: &str) {
        for script in self.works {
            let run = || host.other(&["bash", "-c", script]).output().unwrap();
            eventually(&format!("{when}: {script}"), || run().status.success().then_some(()), run);
        }
    }
}

/// What a host and the lab on it hold, as text.
pub(crate) fn look_alike(host: &PlayedHost) -> String {
    String::from_utf8(host.other(&["bash", "-c", ALIKE]).output().unwrap().stdout).unwrap()
}

/// Fails with the lines that differ, unless the host comes to look as `before`.
#[track_caller]
pub(crate) fn assert_alike(host: &PlayedHost, before: &str, when: &str) {
    let last = std::cell::RefCell::new(String::new());
    let look = || {
        last.replace(look_alike(host));
        (*last.borrow() == before).then_some(())
    };
    eventually(when, look, || crate::host::difference(before, &last.borrow()));
}
