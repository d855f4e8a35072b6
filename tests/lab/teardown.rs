//! `down` on the host itself: everything is as before, byte for byte, whatever else is there and however `up` ended.

use netloom::resource::names;

use crate::host::PlayedHost;
use crate::rig::{Rig, signal, topology};

/// Something of every kind that a kernel without VLANs can hold.
const LAB: &str = "
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
    nics: [{ network: side }, { network: desk }]
    serve: [tcp/80]
  web:
    nics: [{ network: servers, address: 10.70.3.10/24 }]
    serve: [tcp/80]
";

#[test]
fn the_host_is_as_before() {
    let host = PlayedHost::new();
    let file = host.file("every.yaml", LAB);
    let before = host.look();
    for round in 1..=2 {
        host.up(&file).said(0, &[]);
        assert_ne!(host.look(), before);
        host.shell("ip netns exec isp ping -c 1 -w 3 192.0.2.10"); // and the host's own traffic flows meanwhile
        host.ok(&["down", "every"]);
        host.assert_same(&before, &format!("the host is as before after round {round}"));
        host.assert_gone();
    }
}

#[test]
fn an_uplink_gets_everything_back() {
    let host = PlayedHost::new();
    let text = "
lab: outdoors
networks: { office: { mode: bridged, uplink: up0 } }
guests:
  desk: { nics: [{ network: office, address: 192.0.2.20/24 }] }
";
    let file = host.file("outdoors.yaml", text);
    let before = host.look();
    host.up(&file).said(0, &[]);
    let bridge = names::link("outdoors", "bridge", "office");
    let seen = host.shell("ip route show default; ip -6 route show default; ip -br address show dev up0");
    assert!(seen.contains(&format!("dev {bridge}")) && !seen.contains("192.0.2.10"), "{seen}");
    host.shell("ping -c 1 -w 3 192.0.2.1 && ping -c 1 -w 3 2001:db8:1::1");
    host.shell("ip netns exec isp ping -c 1 -w 3 192.0.2.20");
    // The second `up` changes nothing, though the uplink has no addresses any more.
    assert_eq!(host.up(&file).json()["changes"].as_array().unwrap().len(), 0);
    host.ok(&["down", "outdoors"]);
    host.assert_same(&before, "the uplink is as before");
    host.shell("ping -c 1 -w 3 192.0.2.1 && ping -c 1 -w 3 2001:db8:1::1");
    host.assert_gone();
}

/// Whoever may change links may give one an alias that is no text: it cannot be read, and is no reason to wait for ever.
#[test]
fn an_alias_that_is_no_text() {
    let host = PlayedHost::new();
    let text = "
lab: odd
networks:
  hall: { mode: macvtap, uplink: up0 }
  desk: { mode: host-only, subnet: 10.71.0.0/24 }
guests:
  pc: { nics: [{ network: hall, address: 192.0.2.21/24 }, { network: desk, address: 10.71.0.2/24 }] }
";
    let file = host.file("odd.yaml", text);
    let before = host.look();
    let odd = |link: &str| host.shell(&format!("ip link set {link} alias \"$(printf 'caf\\351')\""));
    odd("up0");
    let refused = host.up(&file);
    assert!([3, 4].contains(&refused.code) && refused.stderr.contains("up0"), "{refused:?}");
    host.shell("ip link set up0 alias ''");
    host.assert_same(&before, "nothing is half done");
    host.up(&file).said(0, &[]);
    // One of the lab's own goes by its group.
    odd(&names::link("odd", "bridge", "desk"));
    host.ok(&["down", "odd"]);
    host.assert_same(&before, "the bridge went, too");
    host.assert_gone();
}

/// The marks alone are enough.
#[test]
fn down_needs_no_file_and_no_record() {
    let host = PlayedHost::new();
    let file = host.file("every.yaml", LAB);
    let before = host.look();
    host.up(&file).said(0, &[]);
    std::fs::remove_dir_all(host.state.join("labs")).unwrap();
    let listed = host.json(&["list", "--json"]);
    assert_eq!(listed[0]["lab"], "every", "{listed}");
    host.ok(&["down", "every"]);
    host.assert_same(&before, "the host is as before");
    host.assert_gone();
    // And once more, with nothing there, is no mistake.
    host.run(&["down", "every"]).said(0, &["nothing to remove"]);
}

#[test]
fn two_labs_share_a_host() {
    let host = PlayedHost::new();
    let before = host.look();
    let first = host.file("every.yaml", LAB);
    host.up(&first).said(0, &[]);
    host.settle();
    let one = host.look();
    host.up(&topology("two-guests-nat.yaml")).said(0, &[]);
    host.sh("two-guests-nat/bob", "ping -c 1 -w 3 10.77.0.1");
    host.sh("every/web", "ping -c 1 -w 3 10.70.3.1");
    host.ok(&["down", "two-guests-nat"]);
    // The settings that both need stay while one is left.
    host.assert_same(&one, "the first lab is as it was");
    host.ok(&["down", "--all"]);
    host.assert_same(&before, "the host is as before");
    host.assert_gone();
}

/// Kills `up` once it has said `lines` lines: all of it, or only the process that was called. Tells whether it was still
/// at work.
fn kill_after(rig: &Rig, args: &[&str], lines: usize, everything: bool) -> bool {
    let mut up = rig.start(args);
    if !up.lines(lines) {
        up.end().said(0, &[]);
        return false;
    }
    // Once it has said something it runs, or has just ended well.
    let mut pids = if lines == 0 { rig.running("up") } else { rig.pids_of("up") };
    if pids.is_empty() {
        up.end().said(0, &[]);
        return false;
    }
    pids.truncate(if everything { pids.len() } else { 1 });
    signal("KILL", &pids);
    up.end();
    true
}

#[test]
fn down_clears_what_a_killed_up_left() {
    let host = PlayedHost::new();
    let file = host.file("every.yaml", LAB);
    let before = host.look();
    let mut killed = 0;
    while kill_after(&host, &["up", "--guests", "namespace", &file], killed, true) {
        host.ok(&["down", "every"]);
        host.assert_same(&before, &format!("the host is as before after a kill at line {killed}"));
        host.assert_gone();
        killed += 1;
    }
    assert!(killed > 20, "{killed} moments of death");
    host.ok(&["down", "every"]);
}

/// A killed `up` is also no hindrance for the next one.
#[test]
fn up_goes_on_where_a_killed_one_stopped() {
    let host = PlayedHost::new();
    let file = host.file("every.yaml", LAB);
    let before = host.look();
    for lines in [3, 7, 11, 15, 19] {
        assert!(kill_after(&host, &["up", "--guests", "namespace", &file], lines, true));
        host.up(&file).said(0, &[]);
        host.ok(&["plan", "--check", "every"]);
        host.ok(&["down", "every"]);
        host.assert_same(&before, &format!("the host is as before after a kill at line {lines}"));
    }
    host.assert_gone();
}

#[test]
fn a_sandbox_ends_after_a_killed_up() {
    let rig = Rig::new();
    let file = rig.file("every.yaml", LAB);
    for lines in (0..24).step_by(3) {
        for everything in [false, true] {
            kill_after(&rig, &["up", "--sandbox", "--guests", "namespace", &file], lines, everything);
            rig.ok(&["down", "every"]);
            rig.assert_gone();
        }
    }
}
