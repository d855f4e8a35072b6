//! Namespaces that play the host itself, with things on it that are not netloom's: a user's bridge, an uplink with
//! addresses and default routes, rulesets like those of a container engine, a namespace, a running process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};

use crate::rig::{Ended, Rig, eventually};

/// Runs until it is killed; everything in it then goes.
const FOREIGN: &str = r#"
    mount -t tmpfs -o mode=755 tmpfs /run
    ip link set lo up
    ip netns add isp
    ip link add up0 type veth peer name isp0 netns isp
    ip -n isp address add 192.0.2.1/24 dev isp0
    ip -n isp address add 2001:db8:1::1/64 dev isp0 nodad
    ip -n isp link set isp0 up
    ip address add 192.0.2.10/24 dev up0
    ip address add 2001:db8:1::10/64 dev up0 nodad
    ip link set up0 up
    ip route add default via 192.0.2.1 metric 100
    ip route add 203.0.113.0/24 via 192.0.2.1
    ip -6 route add default via 2001:db8:1::1
    ip link add br-user type bridge
    ip link set br-user alias "somebody's bridge"
    ip address add 172.20.0.1/16 dev br-user
    ip link set br-user up
    ip link add user0 type veth peer name user1
    ip link set user0 master br-user up
    ip link set user1 up
    nft -f - <<'RULES'
        table ip nat {
            chain DOCKER { counter return; }
            chain POSTROUTING {
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr 172.20.0.0/16 oifname != "br-user" masquerade
            }
        }
        table ip filter {
            chain DOCKER-USER { counter return; }
            chain FORWARD { type filter hook forward priority filter; policy accept; jump DOCKER-USER; }
        }
RULES
    # IPv6 takes a second or two until it trusts its own addresses
    settled() { [ "$(ip -6 -o address show scope link -tentative | wc -l)" = 4 ] && [ -z "$(ip -6 address show tentative)" ]; }
    until settled && [ -z "$(ip -n isp -6 address show tentative)" ]; do sleep 0.1; done
    echo ready
    # process 1 takes in the orphans, as an init does: libvirt waits until a QEMU is really gone
    sleep 100000 & wait
"#;

/// What the host holds, as text; counters, timers and life times aside. One jq reads it all, for this is looked at often.
const LOOK: &str = r#"
    documents() {
        echo '"links"'; ip -d -j link
        echo '"addresses"'; ip -j address
        for family in -4 -6; do
            echo "\"routes $family\""; ip -j $family route show table all
            echo "\"rules $family\""; ip -j $family rule
        done
        echo '"vlans"'; bridge -j vlan
        echo '"rulesets"'; nft -j list ruleset
        echo '"isp"'; ip -n isp -j address
    }
    documents | jq -S 'walk(if type == "object" then with_entries(select(.key | endswith("_timer") or
        endswith("_life_time") or IN("packets", "bytes", "expires") | not)) else . end)'
    echo settings; grep -rH . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf 2>/dev/null |
        grep -v stable_secret | sort
    echo run; find /run | sort
    echo mounts; awk '$5 ~ "^/run|netloom" { print $5 }' /proc/self/mountinfo | sort
"#;

/// Its `Rig` runs everything inside.
pub(crate) struct PlayedHost {
    rig: Rig,
    first: Child,
    pid: String,
}

impl PlayedHost {
    pub(crate) fn new() -> Self {
        let mut first = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-ec",
                FOREIGN,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // it complains of its own signal mask when it ends
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = child_of(first.id());
        let rig = Rig::new().through(&["nsenter", "--net", "--mount", "--pid", "-t", &pid]);
        let host = Self { rig, first, pid };
        assert_eq!(line, "ready\n", "the played host is not built");
        host
    }

    /// Its first process.
    #[allow(dead_code)] // for the reliability tests
    pub(crate) fn pid(&self) -> &str {
        &self.pid
    }

    /// The same host, netloom called by an ordinary user.
    pub(crate) fn ordinary(&self) -> Rig {
        Rig::ordinary().through(&["nsenter", "--net", "--mount", "--pid", "-t", &self.pid])
    }

    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        let ended = Ended::from(self.rig.other(&["sh", "-ec", script]).output().unwrap());
        assert_eq!(ended.code, 0, "{script}: {ended:?}");
        ended.stdout
    }

    pub(crate) fn look(&self) -> String {
        self.shell(LOOK)
    }

    /// Waits until IPv6 trusts all addresses of the host, and for a while for those of its provider, of which some may be on
    /// links without a carrier.
    pub(crate) fn settle(&self) {
        self.shell(
            "until [ -z \"$(ip -6 address show tentative)\" ]; do sleep 0.1; done
            for _ in $(seq 50); do
                [ -n \"$(ip -n isp -6 address show tentative)\" ] || break
                sleep 0.1
            done",
        );
    }

    /// Fails with the lines that differ.
    #[track_caller]
    pub(crate) fn assert_same(&self, before: &str, when: &str) {
        // IPv6 takes a moment to drop what belonged to links that are gone.
        let last = std::cell::RefCell::new(String::new());
        let look = || {
            last.replace(self.look());
            (*last.borrow() == before).then_some(())
        };
        eventually(when, look, || difference(before, &last.borrow()));
    }

    /// `up` on the host, with namespace guests.
    pub(crate) fn up(&self, file: &str) -> Ended {
        self.rig.run(&["up", "--json", "--guests", "namespace", file])
    }
}

impl Deref for PlayedHost {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl Drop for PlayedHost {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-9", &self.pid]).status();
        let _ = self.first.wait();
    }
}

fn child_of(parent: u32) -> String {
    let mine = |pid: &String| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{parent}"))
    };
    fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(mine)
        .expect("unshare has a child")
}

/// Lines of one text that the other does not have, or not as often, or not there.
pub(crate) fn difference(before: &str, after: &str) -> Vec<String> {
    let count = |text: &str, line: &str| text.lines().filter(|other| *other == line).count();
    let more = |a: &str, b: &str, sign: char| -> Vec<String> {
        let lines = a.lines().filter(|line| count(a, line) > count(b, line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    let mut all = more(before, after, '-');
    all.extend(more(after, before, '+'));
    if all.is_empty() {
        let first = before.lines().zip(after.lines()).enumerate().find(|(_, (a, b))| a != b);
        all.extend(first.map(|(line, pair)| format!("line {line} is another: {pair:?}")));
    }
    all
}
