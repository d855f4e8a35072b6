//! What is inside a sandbox.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::rig::{Rig, eventually, namespace, namespaces, text};

pub(crate) type Case = (&'static str, fn());

pub(crate) const ALL: &[Case] = &[
    ("the_world_is_there_and_answers", the_world_is_there_and_answers),
    ("an_ordinary_user_has_the_same_world", an_ordinary_user_has_the_same_world),
    ("the_host_does_not_show_inside", the_host_does_not_show_inside),
    ("vlans_of_the_lan_are_kept_apart", vlans_of_the_lan_are_kept_apart),
    ("bridged_guests_get_leases_and_prefixes", bridged_guests_get_leases_and_prefixes),
    ("the_router_learns_and_forgets_routes", the_router_learns_and_forgets_routes),
    ("an_uplink_gets_back_what_it_handed_over", an_uplink_gets_back_what_it_handed_over),
    ("commands_run_inside_as_if_outside", commands_run_inside_as_if_outside),
    ("signals_reach_the_command_inside", signals_reach_the_command_inside),
    ("a_state_directory_in_run_stays_in_reach", a_state_directory_in_run_stays_in_reach),
];

fn addresses(json: &serde_json::Value, link: &str) -> Vec<String> {
    let links = json.as_array().unwrap();
    let link = links.iter().find(|l| l["ifname"] == link).unwrap_or_else(|| panic!("no {link} in {json}"));
    link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["scope"] == "global")
        .map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]))
        .collect()
}

fn check_world(rig: &Rig, lab: &str) {
    let seen = rig.json(lab, &["ip", "-j", "addr"]);
    assert_eq!(addresses(&seen, "eth0"), ["192.0.2.10/24", "2001:db8:1::10/64"]);
    assert_eq!(seen.as_array().unwrap().len(), 2, "only lo and eth0: {seen}");
    for target in
        ["192.0.2.1", "192.0.2.20", "198.51.100.10", "2001:db8:1::1", "2001:db8:1::20", "2001:db8:2::10"]
    {
        rig.run(lab, &["ping", "-n", "-c1", "-W2", target]);
    }
    let answer =
        |address: &str| rig.run(lab, &["bash", "-c", &format!("exec 3<>/dev/tcp/{address}/80; cat <&3")]);
    assert!(answer("192.0.2.20").starts_with("lan"));
    assert!(answer("2001:db8:2::10").starts_with("outside"));
}

fn the_world_is_there_and_answers() {
    let rig = Rig::new("world");
    let info = rig.create("one");
    check_world(&rig, "one");
    let (net, mnt) = (namespace(info.pid, "net"), namespace(info.pid, "mnt"));
    assert!(namespaces("net").contains(&net) && namespaces("mnt").contains(&mnt));
    rig.stop("one");
    assert_eq!(rig.left(), Vec::<String>::new());
    assert!(!namespaces("net").contains(&net) && !namespaces("mnt").contains(&mnt));
    let refused = rig.inside("one", &["true"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
}

fn an_ordinary_user_has_the_same_world() {
    let rig = Rig::unprivileged("user");
    let info = rig.create("one");
    check_world(&rig, "one");
    // Root inside, the user outside; files made inside are the user's.
    assert_eq!(rig.run("one", &["id", "-u"]).trim(), "0");
    let file = rig.state.join("made-inside");
    rig.run("one", &["touch", file.to_str().unwrap()]);
    let owner = fs::metadata(&file).unwrap().uid();
    assert_eq!(owner, fs::metadata(format!("/proc/{}", info.pid)).unwrap().uid());
    assert_eq!(owner, fs::metadata(&rig.state).unwrap().uid());
    rig.stop("one");
    assert_eq!(rig.left(), Vec::<String>::new());
}

/// A station in a VLAN of the LAN meets those there and the outside, not the host nor the untagged LAN. A kernel without
/// VLANs has the untagged LAN alone.
fn vlans_of_the_lan_are_kept_apart() {
    let rig = Rig::new("vlans");
    rig.create("one");
    let made =
        rig.inside("one", &["ip", "link", "add", "link", "eth0", "name", "in10", "type", "vlan", "id", "10"]);
    if !made.status.success() {
        let links = rig.run("one", &["ip", "-n", "lan", "-br", "link"]);
        assert_eq!(links.lines().count(), 2, "{links}");
        return;
    }
    let script = "
        ip link add link eth0 name outer type vlan proto 802.1ad id 100; ip link set outer up
        ip link add link outer name in100 type vlan id 10
        station() {
            ip netns add $1; ip link set $1 netns $1; ip -n $1 link set lo up; ip -n $1 link set $1 up
            ip -n $1 addr add $2/25 dev $1; ip -n $1 route add default via $3
        }
        station in10 203.0.113.30 203.0.113.1
        station in100 203.0.113.150 203.0.113.129";
    rig.run("one", &["sh", "-ec", script]);
    let ping = |from: &str, to: &str| {
        let command = ["ip", "netns", "exec", from, "ping", "-n", "-c1", "-W1", to];
        rig.inside("one", &command).status.success()
    };
    for (station, own, lan, other) in [
        ("in10", "203.0.113.30", "203.0.113.20", "203.0.113.148"),
        ("in100", "203.0.113.150", "203.0.113.148", "203.0.113.20"),
    ] {
        assert!(ping(station, lan) && ping(station, "198.51.100.10"), "{station}");
        assert!(ping("lan", own) && ping("outside", own), "{station}");
        for elsewhere in ["192.0.2.10", "192.0.2.20", other] {
            assert!(!ping(station, elsewhere), "{station} {elsewhere}");
        }
        assert!(!rig.inside("one", &["ping", "-n", "-c1", "-W1", own]).status.success(), "{station}");
    }
}

fn the_host_does_not_show_inside() {
    let rig = Rig::new("hidden");
    rig.create("one");
    let list = |directory: &str| -> Vec<String> {
        rig.run("one", &["ls", directory]).lines().map(str::to_owned).collect()
    };
    assert_eq!(list("/sys/class/net"), ["eth0", "lo"]);
    assert_eq!(list("/run/netns"), ["lan", "outside", "router"]);
    for socket in ["/run/dbus", "/run/libvirt", "/run/systemd/private"] {
        assert!(!list("/run").contains(&socket.trim_start_matches("/run/").to_owned()), "{socket}");
    }
    // Its own process 1, and no process of the host.
    let processes = rig.run("one", &["ps", "-eo", "pid,args"]);
    assert!(
        processes.lines().any(|line| line.trim_start().starts_with("1 ") && line.contains("__sandbox-init"))
    );
    assert!(!processes.contains("cargo"), "{processes}");
    // The root directory is the host's, so that the same programs and files are there.
    let root = rig.run("one", &["stat", "-c", "%d:%i", "/usr/bin"]);
    let here = fs::metadata("/usr/bin").unwrap();
    assert_eq!(root.trim(), format!("{}:{}", here.dev(), here.ino()));
}

/// A guest's link on the LAN, as a network in mode `bridged` makes one.
pub(crate) fn plug_guest_into_lan(rig: &Rig, lab: &str) {
    let script = "set -e
        ip netns add guest
        ip -n guest link add eth0 type veth peer name to-guest netns router
        ip -n router link set to-guest master lan0 up
        ip -n guest link set lo up
        ip -n guest link set eth0 up";
    rig.run(lab, &["sh", "-c", script]);
}

fn bridged_guests_get_leases_and_prefixes() {
    let rig = Rig::unprivileged("bridged");
    rig.create("one");
    plug_guest_into_lan(&rig, "one");
    // What udhcpc says is the oracle here: it only prints, for `true` configures nothing.
    let client = [
        "ip",
        "netns",
        "exec",
        "guest",
        "busybox",
        "udhcpc",
        "-f",
        "-q",
        "-n",
        "-i",
        "eth0",
        "-s",
        "/bin/true",
    ];
    let said = rig.inside("one", &client);
    let said = text(&said);
    assert!(said.contains("lease of 192.0.2.1") && said.contains("obtained from 192.0.2.1"), "{said}");
    eventually("an address from the advertised prefix", || {
        let seen = rig.json("one", &["ip", "-n", "guest", "-j", "-6", "addr", "show", "eth0"]);
        addresses(&seen, "eth0").iter().any(|a| a.starts_with("2001:db8:1:0:"))
    });
    let routes = rig.run("one", &["ip", "-n", "guest", "-6", "route", "show", "default"]);
    assert!(routes.contains("proto ra"), "{routes}");
}

fn the_router_learns_and_forgets_routes() {
    let rig = Rig::new("routes");
    rig.create("one");
    // A routed network behind the host.
    let script = "set -e
        ip netns add guest
        ip link add br0 type veth peer name eth0 netns guest
        ip addr add 10.5.0.1/24 dev br0; ip -6 addr add fd05::1/64 dev br0 nodad; ip link set br0 up
        ip -n guest addr add 10.5.0.2/24 dev eth0; ip -n guest -6 addr add fd05::2/64 dev eth0 nodad
        ip -n guest link set eth0 up
        ip -n guest route add default via 10.5.0.1; ip -n guest -6 route add default via fd05::1
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
    rig.run("one", &["sh", "-c", script]);
    let ping = |from: &str, to: &str| {
        let command = ["ip", "netns", "exec", from, "ping", "-n", "-c1", "-W1", to];
        rig.inside("one", &command).status.success()
    };
    let program = std::env::current_exe().unwrap();
    let routes = |verb: &str| {
        let program = program.to_str().unwrap();
        rig.run("one", &[program, "__routes", verb, "10.5.0.1/24", "fd05::/64"]);
    };
    assert!(!ping("outside", "10.5.0.2"));
    routes("add");
    routes("add");
    for target in ["10.5.0.2", "fd05::2"] {
        assert!(ping("outside", target) && ping("lan", target), "{target}");
    }
    routes("remove");
    routes("remove");
    assert!(!ping("outside", "10.5.0.2"));
    let left = rig.run("one", &["sh", "-c", "ip -n router route; ip -n router -6 route"]);
    assert!(!left.contains("10.5.0") && !left.contains("fd05"), "{left}");
}

fn an_uplink_gets_back_what_it_handed_over() {
    let rig = Rig::new("uplink");
    rig.create("one");
    let program = rig.program();
    let uplink = |verb: &str| rig.run("one", &[program.to_str().unwrap(), "__uplink", verb, "eth0", "br0"]);
    // `ip` is the judge; the bridge's own routes aside.
    let look = || {
        let script = "ip -d addr show eth0; ip route; ip -6 route | grep -v '^fe80.*br0'";
        rig.run("one", &["sh", "-c", script])
    };
    let before = look();
    rig.run("one", &["ip", "link", "add", "br0", "up", "address", "52:54:00:1:2:3", "type", "bridge"]);
    uplink("join");
    let seen = rig.json("one", &["ip", "-j", "addr"]);
    assert_eq!(addresses(&seen, "eth0"), Vec::<String>::new());
    rig.run("one", &["ping", "-n", "-c1", "-W2", "198.51.100.10"]);
    rig.run("one", &["ping", "-n", "-c1", "-W2", "2001:db8:2::10"]);
    eventually("the bridge has made an address from the advertised prefix", || {
        addresses(&rig.json("one", &["ip", "-j", "addr"]), "br0").len() == 3
    });
    // Without carrier and with an advertised default route beside the static one.
    uplink("leave");
    rig.run("one", &["ip", "link", "del", "br0"]);
    assert_eq!(look(), before);
    rig.run("one", &["ping", "-n", "-c1", "-W2", "2001:db8:2::10"]);
}

fn commands_run_inside_as_if_outside() {
    let rig = Rig::new("verbatim");
    rig.create("one");
    assert_eq!(rig.inside("one", &["sh", "-c", "exit 7"]).status.code(), Some(7));
    let odd = "a b\"c'$d";
    assert_eq!(rig.run("one", &["printf", "%s", odd]), odd);
    let output = rig.command(&["__enter", "one", "pwd"]).current_dir(&rig.state).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), rig.state.to_str().unwrap());
    // A directory that is hidden inside still serves relative paths.
    if nix::unistd::geteuid().is_root() {
        let hidden = std::path::PathBuf::from(format!("/run/netloom-test-{}", std::process::id()));
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("file"), "here").unwrap();
        let output = rig.command(&["__enter", "one", "cat", "file"]).current_dir(&hidden).output().unwrap();
        fs::remove_dir_all(&hidden).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "here", "{}", text(&output));
    }
    let environment = rig.run("one", &["env"]);
    assert!(environment.contains("NETLOOM_INSIDE=1\n"));
    // Orphans inside are reaped at once by process 1, whatever the one outside does.
    rig.run("one", &["sh", "-c", "(sleep 0.05 &)"]);
    eventually("the orphan is reaped", || !rig.run("one", &["ps", "-eo", "args"]).contains("sleep 0.05"));
    eventually("no zombie is left", || {
        !rig.run("one", &["ps", "-eo", "stat,args"]).lines().any(|line| line.starts_with('Z'))
    });
}

fn signals_reach_the_command_inside() {
    let rig = Rig::unprivileged("signals");
    rig.create("one");
    let script = "trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child =
        rig.command(&["__enter", "one", "bash", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    // `__enter` inside runs bash as a child of its own that SIGTERM ends, as a verb would end what it started.
    let inside = rig.run("one", &["pgrep", "-f", "echo ready"]);
    assert!(!inside.trim().is_empty());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(128 + 15), "ended by the signal that was passed on");
    // Killed outright, the one outside takes the one inside along.
    let mut child = rig.command(&["__enter", "one", "sleep", "77"]).spawn().unwrap();
    let count = || rig.run("one", &["ps", "-eo", "args"]).matches("__enter one sleep 77").count();
    eventually("the second command runs", || count() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the second command is gone", || count() == 0);
}

fn a_state_directory_in_run_stays_in_reach() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root may write there
    }
    let rig = Rig::at(format!("/run/netloom-test-state-{}", std::process::id()).into(), None);
    rig.create("one");
    fs::write(rig.state.join("seed"), "x").unwrap();
    assert_eq!(rig.run("one", &["cat", rig.state.join("seed").to_str().unwrap()]), "x");
    rig.run("one", &["touch", rig.state.join("answer").to_str().unwrap()]);
    assert!(rig.state.join("answer").exists());
    rig.stop("one");
}
