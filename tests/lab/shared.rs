//! What labs and networks of one host share: its ports, and a provider's VLAN of an uplink.

use crate::host::PlayedHost;
use crate::rig::{Ended, changes};

fn lab(name: &str, subnet: u8, forward: &str) -> String {
    format!(
        "lab: {name}\nnetworks:\n  n: {{ mode: nat, subnet: 10.{subnet}.0.0/24, forward: [{{ {forward} }}] }}\n\
         guests:\n  a: {{ nics: [{{ network: n }}], serve: [tcp/80] }}\n"
    )
}

/// The first one's guest stays whom the port leads to; the second lab is refused before anything is made.
#[test]
fn a_port_is_forwarded_by_one_lab() {
    let host = PlayedHost::new();
    let first = host.file("first.yaml", &lab("first-lab", 71, "service: tcp/8080, to: 'a:80'"));
    host.up(&first).said(0, &[]);
    // The directory says nothing: what is in force counts.
    host.shell("rm -r \"$NETLOOM_STATE_DIR\"/labs/first-lab/rulesets");
    host.settle();
    let before = host.look();
    let asks = |host: &PlayedHost| {
        host.shell("ip netns exec isp bash -c 'exec 3<>/dev/tcp/192.0.2.10/8080 && head -n1 <&3'")
    };
    assert_eq!(asks(&host), "first-lab/a tcp/80\n");
    let second = host.file("second.yaml", &lab("second", 72, "service: tcp/8000-8080, to: a"));
    let refused = |ended: Ended| {
        ended.said(3, &["lab `first-lab` forwards tcp/8080", "tcp/8000-8080 on every IPv4", "Hint:"]);
    };
    refused(host.up(&second));
    refused(host.run(&["plan", "--guests", "namespace", &second]));
    host.assert_same(&before, "nothing was touched");
    let second = host.file("second.yaml", &lab("second", 72, "service: tcp/8081, to: 'a:80'"));
    host.up(&second).said(0, &[]);
    assert_eq!(asks(&host), "first-lab/a tcp/80\n");
    // A lab that runs is changed into the way of the other.
    let second = host.file("second.yaml", &lab("second", 72, "service: tcp/8080, to: 'a:80'"));
    host.up(&second).said(3, &["lab `first-lab` forwards tcp/8080"]);
    host.ok(&["down", "first-lab"]);
    host.up(&second).said(0, &[]);
    assert_eq!(asks(&host), "second/a tcp/80\n");
    host.ok(&["down", "second"]);
    host.assert_gone();
}

/// A program of the host's that nobody would reach any more is asked to be moved first, by an error.
#[test]
fn a_port_that_a_program_listens_on_is_not_taken() {
    let host = PlayedHost::new();
    let pid = host.shell(
        "busybox httpd -f -p 127.0.0.1:8080 -h / >/dev/null 2>&1 & echo $!
         until ss -Hltn | grep -q :8080; do sleep 0.1; done",
    );
    let file = host.file("lab.yaml", &lab("polite", 73, "service: tcp/8080, to: 'a:80'"));
    let before = host.look();
    host.up(&file).said(3, &["listens on tcp/8080 on 127.0.0.1", "forward tcp/8080", "Hint:"]);
    host.assert_same(&before, "nothing was touched");
    host.shell(&format!("kill {pid}"));
    host.assert_gone();
    host.up(&file).said(0, &[]);
    // Who comes later changes nothing about what runs.
    let pid = host.shell("busybox httpd -f -p 8080 -h / >/dev/null 2>&1 & echo $!; until ss -Hltn | grep -q :8080; do sleep 0.1; done");
    host.up(&file).said(0, &[]);
    host.shell(&format!("kill {pid}"));
    host.ok(&["down", "polite"]);
    host.assert_gone();
}

const CUSTOMERS: &str = "
lab: customers
networks:
  red: { mode: proxmox/sdn-qinq, uplink: up0, tag: [100, 10] }
  blue: { mode: proxmox/sdn-qinq, uplink: up0, tag: [100, 20] }
guests:
  a: { nics: [{ network: red, address: 10.8.0.2/24 }] }
  b: { nics: [{ network: blue, address: 10.9.0.2/24 }] }
";

#[test]
#[ignore = "full-kernel"]
fn customers_share_a_providers_vlan() {
    let host = PlayedHost::new();
    host.shell(
        "ip -n isp link add link isp0 name s100 type vlan proto 802.1ad id 100
        ip -n isp link set s100 up
        for customer in 10:10.8.0.1/24 20:10.9.0.1/24; do
            ip -n isp link add link s100 name c${customer%%:*} type vlan id ${customer%%:*}
            ip -n isp address add ${customer#*:} dev c${customer%%:*}
            ip -n isp link set c${customer%%:*} up
        done",
    );
    host.settle();
    let before = host.look();
    host.up(&host.file("customers.yaml", CUSTOMERS)).said(0, &[]);
    let outer = || {
        host.shell("ip -d -j link show type vlan | jq -c '[.[] | select(.linkinfo.info_data.protocol == \"802.1ad\") | [.link, .ifindex]]'")
    };
    let one = outer();
    assert!(one.starts_with("[[\"up0\",") && one.matches("up0").count() == 1, "{one}");
    let ping =
        |guest: &str, to: &str| host.sh(&format!("customers/{guest}"), &format!("ping -c 1 -w 5 {to}"));
    ping("a", "10.8.0.1");
    ping("b", "10.9.0.1");
    // The first one goes; the provider's VLAN, which the other one needs, stays what it is.
    let left: String =
        CUSTOMERS.lines().filter(|line| !line.contains("red")).map(|line| format!("{line}\n")).collect();
    let file = host.file("customers.yaml", &left);
    let ended = host.run(&["up", "--json", "--guests", "namespace", &file]);
    let changed = changes(&ended.json()["changes"]);
    assert!(changed.contains(&"delete vlan red/tag".to_owned()), "{changed:?}");
    assert!(
        !changed.iter().any(|change| change.contains("up0+100") || change.contains("blue")),
        "{changed:?}"
    );
    assert_eq!(outer(), one);
    ping("b", "10.9.0.1");
    host.ok(&["down", "customers"]);
    host.assert_same(&before, "`down` removes all of it");
    host.assert_gone();
}
