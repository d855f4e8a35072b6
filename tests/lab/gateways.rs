//! What gateways promise beyond reachability: who answers a forwarded port, whose names resolve.

use serde_json::Value;

use crate::host::PlayedHost;
use crate::rig::{Rig, eventually};

/// Asks a TCP service from the played host's LAN and returns what it says.
fn ask(host: &PlayedHost, address: &str, port: u16) -> String {
    host.shell(&format!("ip netns exec isp busybox nc -w 3 {address} {port} </dev/null || true"))
}

fn address(rig: &Rig, guest: &str) -> String {
    let seen: Value = serde_json::from_str(&rig.sh(guest, "ip -j -4 address show dev eth0")).unwrap();
    seen[0]["addr_info"][0]["local"].as_str().unwrap().to_owned()
}

#[test]
fn a_forward_that_comes_later_leads_to_the_lease_there_is() {
    let host = PlayedHost::new();
    let text = "
lab: later
networks:
  lan: { mode: nat, subnet: 10.76.0.0/24 }
guests:
  a: { nics: [{ network: lan }], serve: [tcp/80] }
  b: { nics: [{ network: lan }], serve: [tcp/80] }
";
    host.up(&host.file("later.yaml", text)).said(0, &[]);
    let before = [address(&host, "later/a"), address(&host, "later/b")];
    assert_eq!(ask(&host, "192.0.2.10", 8080), "");
    let forwards = "subnet: 10.76.0.0/24, forward: [{ service: tcp/8080, to: \"b:80\" }, { service: tcp/8081, to: \"a:80\" }]";
    host.up(&host.file("later.yaml", &text.replace("subnet: 10.76.0.0/24", forwards))).said(0, &[]);
    assert!(ask(&host, "192.0.2.10", 8080).contains("later/b"));
    assert!(ask(&host, "192.0.2.10", 8081).contains("later/a"));
    assert_eq!([address(&host, "later/a"), address(&host, "later/b")], before);
    host.ok(&["down", "later"]);
    host.assert_gone();
}

#[test]
fn where_nothing_leaves_forwarded_ports_are_answered() {
    for mode in ["nat", "virtualbox/nat-network"] {
        let host = PlayedHost::new();
        let text = format!(
            "
lab: inward
networks:
  lan: {{ mode: {mode}, subnet: [10.77.0.0/24, \"fd00:77::/64\"], egress: none, forward: [{{ service: tcp/8080, to: \"a:80\" }}] }}
guests:
  a: {{ nics: [{{ network: lan }}], serve: [tcp/80] }}
"
        );
        host.up(&host.file("inward.yaml", &text)).said(0, &[]);
        assert!(ask(&host, "192.0.2.10", 8080).contains("inward/a"), "{mode}");
        eventually(
            "answers leave by IPv6, too",
            || ask(&host, "2001:db8:1::10", 8080).contains("inward/a").then_some(()),
            || host.sh("inward/a", "ip -6 address; ip -6 route"),
        );
        // Where a guest would be heard if what it begins left: the host is.
        host.shell(
            "ip netns exec isp busybox nc -ll -p 7 -e echo hello >/dev/null 2>&1 & echo $! >/run/listener",
        );
        eventually(
            "the LAN answers the host",
            || host.shell("busybox nc -w 3 192.0.2.1 7 </dev/null || true").contains("hello").then_some(()),
            || mode,
        );
        let out = host.run(&["exec", "inward/a", "--", "busybox", "nc", "-w", "2", "192.0.2.1", "7"]);
        assert!(out.code != 0 && !out.stdout.contains("hello"), "{mode}: {out:?}");
        host.shell("kill $(cat /run/listener)");
        host.ok(&["down", "inward"]);
        host.assert_gone();
    }
}

/// The host's resolver is a stub on its loopback, and what it asks itself is on the LAN.
#[test]
fn guests_behind_an_engine_ask_past_the_hosts_stub() {
    let host = PlayedHost::new();
    host.shell(
        "mkdir -p /run/systemd/resolve
         echo nameserver 192.0.2.1 >/run/systemd/resolve/resolv.conf
         echo nameserver 127.0.0.53 >/run/stub.conf
         mount --bind /run/stub.conf /etc/resolv.conf
         ip netns exec isp dnsmasq --no-resolv --no-hosts --pid-file=/run/far.pid --user= --group= --address=/far.example/203.0.113.9",
    );
    let text = "
lab: names
networks:
  lan: { mode: virtualbox/nat }
guests:
  a: { nics: [{ network: lan }], serve: [tcp/80] }
";
    host.up(&host.file("names.yaml", text)).said(0, &[]);
    let said = host.sh("names/a", "busybox nslookup far.example 10.0.2.3 2>&1 || true");
    assert!(said.contains("203.0.113.9"), "{said}");
    host.shell("kill $(cat /run/far.pid)");
    host.ok(&["down", "names"]);
    host.assert_gone();
}

#[test]
fn a_forwarded_dns_port_leaves_the_networks_own_server_alone() {
    let host = PlayedHost::new();
    let text = "
lab: fifty
networks:
  lan: { mode: nat, subnet: 10.78.0.0/24, forward: [{ service: udp/53, to: a }, { service: tcp/50-60, to: a }] }
  only: { mode: host-only, subnet: 10.79.0.0/24 }
guests:
  a: { nics: [{ network: lan, address: 10.78.0.10/24 }], serve: [udp/53, tcp/53] }
  b: { nics: [{ network: lan }], serve: [tcp/80] }
  c: { nics: [{ network: only }], serve: [tcp/80] }
";
    host.up(&host.file("fifty.yaml", text)).said(0, &[]);
    assert!(ask(&host, "192.0.2.10", 53).contains("fifty/a"));
    for (guest, server, name, wanted) in
        [("b", "10.78.0.1", "a", "10.78.0.10"), ("c", "10.79.0.1", "host", "10.79.0.1")]
    {
        let said = host
            .sh(&format!("fifty/{guest}"), &format!("busybox nslookup {name}.fifty {server} 2>&1 || true"));
        assert!(said.lines().any(|line| line.starts_with("Address") && line.contains(wanted)), "{said}");
    }
    host.ok(&["down", "fifty"]);
    host.assert_gone();
}

#[test]
fn a_floating_address_is_the_routers() {
    let host = PlayedHost::new();
    let text = "
lab: float
networks:
  lan:
    mode: openstack/self-service
    subnet: 10.80.0.0/24
    uplink: up0
    external: { address: 192.0.2.50/24, gateway: 192.0.2.1 }
    forward: [{ service: tcp/80, to: a, address: 192.0.2.40 }]
guests:
  a: { nics: [{ network: lan }], serve: [tcp/80] }
";
    let before = host.look();
    let taken = host.file("float.yaml", &text.replace("192.0.2.50/24", "192.0.2.10/24"));
    host.up(&taken).said(3, &["the host has 192.0.2.10/24 on `up0` already", "Hint: choose an address"]);
    host.assert_same(&before, "nothing was built");
    host.up(&host.file("float.yaml", text)).said(0, &[]);
    assert!(ask(&host, "192.0.2.40", 80).contains("float/a"));
    assert_eq!(ask(&host, "192.0.2.50", 80), "");
    // What guests send leaves with the router's own address.
    let seen = host.shell(
        "ip netns exec isp timeout 20 tcpdump -c 1 -nni isp0 icmp and dst 192.0.2.1 2>/dev/null >/run/seen & sleep 1
         ip netns exec netloom.float.a ping -c 2 -W 2 192.0.2.1 >/dev/null; wait; cat /run/seen",
    );
    assert!(seen.contains("192.0.2.50 > 192.0.2.1"), "{seen}");
    host.ok(&["down", "float"]);
    host.assert_gone();
}
