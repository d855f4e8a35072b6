//! A lab of many guests: they are built and looked at by several threads at once, and there are more pairs of them than the
//! kernel has room for in its table of neighbours.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::rig::{Rig, changes};

const GUESTS: usize = 70;
/// Of these, each asks each: 1560 pairs need 3120 entries, and the kernel keeps 1024 (`gc_thresh3`) for all namespaces.
const TALK: usize = 40;

fn lab() -> String {
    let mut text = "lab: many\nnetworks:\n  lan: { mode: host-only, subnet: 10.74.0.0/24, dhcp: false, dns: false }\nguests:\n".to_owned();
    for guest in 0..GUESTS {
        let nic = format!("{{ network: lan, address: 10.74.0.{}/24 }}", guest + 10);
        writeln!(text, "  g{guest}: {{ kind: namespace, nics: [{nic}] }}").unwrap();
    }
    text.push_str("expect:\n");
    for from in 0..TALK {
        for to in (0..TALK).filter(|to| *to != from) {
            writeln!(text, "  - {{ from: g{from}, to: g{to}, service: icmp, verdict: reachable }}").unwrap();
        }
    }
    text
}

#[test]
fn many_guests_are_built_looked_at_and_asked() {
    let rig = Rig::new();
    let file = rig.file("lab.yaml", &lab());
    rig.up(&file);
    rig.sh(
        "many/host",
        &format!(
            "for guest in $(seq 0 {}); do
                 ip -n netloom.many.g$guest -j address show dev eth0 |
                     jq -e --arg ip 10.74.0.$((guest + 10)) '.[0].operstate == \"UP\" and any(.[0].addr_info[]; .local == $ip)'
             done",
            GUESTS - 1
        ),
    );

    let ended = rig.run(&["test", "--json", "many"]);
    let document = ended.json();
    let results = document["measurements"].as_array().unwrap();
    let odd: Vec<_> = results.iter().filter(|one| one["verdict"] != "reachable").take(5).collect();
    assert!(odd.is_empty() && ended.code == 0, "{odd:?}");
    assert_eq!(results.len(), TALK * (TALK - 1));

    rig.sh("many/g13", "echo 1 >/proc/sys/net/ipv4/ip_forward");
    rig.sh("many/g69", "ip link set eth0 mtu 1400; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    let wanted = ["update sysctls g13", "update sysctls g69", "update veth g69/eth0"];
    let plan = rig.plan(&file);
    assert_eq!(plan.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(wanted), "{plan:?}");
    assert!(plan[wanted[0]].contains("net/ipv4/ip_forward"), "{plan:?}");
    assert_eq!(rig.up(&file).len(), 3);
    assert_eq!(rig.sh("many/g13", "cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    assert_eq!(rig.sh("many/g69", "cat /proc/sys/net/ipv6/conf/all/forwarding").trim(), "0");
    let status = rig.json(&["status", "--json", "many"]);
    assert_eq!(changes(&status["drift"]), Vec::<String>::new());
    rig.ok(&["down", "many"]);
    rig.assert_gone();
}
