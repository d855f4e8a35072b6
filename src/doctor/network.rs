//! What else on this host decides about a lab's traffic: other firewalls, and settings of the kernel.

use serde_json::Value;

use super::finding::{Finding, Mend};
use super::host::Host;

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let rulesets = host
        .find("nft")
        .filter(|_| host.is_root)
        .and_then(|nft| host.output(&nft, &["-j", "list", "chains"]))
        .and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let mut findings =
        vec![bridged_frames(host), forwarding(host), docker(host, rulesets.as_ref()), firewalld(host)];
    findings.extend(other_drops(rulesets.as_ref()));
    findings.push(ping(host));
    findings
}

const ROUTED: &str = "traffic of `nat` and `routed` networks on this host (sandboxes are not concerned)";

/// With br_netfilter, frames that only cross a bridge pass this host's IP rules and may be dropped there.
fn bridged_frames(host: &Host) -> Finding {
    let (name, need) = ("br_netfilter", "traffic inside a network, guest to guest, on this host");
    let closed: Vec<&str> = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
        .into_iter()
        .filter(|key| host.read(&format!("/proc/sys/net/bridge/{key}")).as_deref() == Some("1"))
        .collect();
    if closed.is_empty() {
        return Finding::ok(name, need, "bridged frames do not pass this host's IP rules");
    }
    let settings: Vec<String> = closed.iter().map(|key| format!("net.bridge.{key}=0")).collect();
    let detail = format!("frames that only cross a bridge pass this host's IP rules ({})", closed.join(", "));
    let mend = format!("sudo sysctl -w {}    (Docker and Kubernetes switch it on)", settings.join(" "));
    Finding::warning(name, need, detail, Mend::everywhere(&mend))
}

fn forwarding(host: &Host) -> Finding {
    let name = "ip_forward";
    let off: Vec<&str> = [("IPv4", "ipv4/ip_forward"), ("IPv6", "ipv6/conf/all/forwarding")]
        .into_iter()
        .filter(|(_, key)| host.read(&format!("/proc/sys/net/{key}")).as_deref() == Some("0"))
        .map(|(family, _)| family)
        .collect();
    let detail = match off.as_slice() {
        [] => "on".to_owned(),
        off => format!("{} off; `up` switches it on where a network needs it", off.join(" and ")),
    };
    Finding::ok(name, ROUTED, detail)
}

/// Docker sets the policy of iptables' FORWARD chain to drop, which an accept in another table cannot undo.
fn docker(host: &Host, chains: Option<&Value>) -> Finding {
    let name = "docker";
    if !host.at("/sys/class/net/docker0").exists() && !host.runs("dockerd") {
        return Finding::ok(name, ROUTED, "does not run here");
    }
    let dropping: Vec<String> = chains.map(drop_chains).unwrap_or_default();
    if chains.is_some() && !dropping.iter().any(|chain| chain == "ip filter FORWARD") {
        return Finding::ok(name, ROUTED, "runs, and its FORWARD chain lets others pass");
    }
    let detail = match chains {
        Some(_) => "its FORWARD chain drops what is not Docker's own",
        None => {
            "runs; its FORWARD chain, which only root can look at, usually drops what is not Docker's own"
        }
    };
    let mend =
        "sudo iptables -I DOCKER-USER -i nl+ -j ACCEPT && sudo iptables -I DOCKER-USER -o nl+ -j ACCEPT";
    Finding::warning(name, ROUTED, detail, Mend::everywhere(mend))
}

fn firewalld(host: &Host) -> Finding {
    let name = "firewalld";
    if !host.runs("firewalld") {
        return Finding::ok(name, ROUTED, "does not run here");
    }
    let detail =
        "runs, and rejects what comes from a bridge that is in no zone, DHCP requests of guests among it";
    let mend = "for each bridge of the lab (`netloom status LAB` names them): \
                sudo firewall-cmd --zone=trusted --add-interface=BRIDGE";
    Finding::warning(name, ROUTED, detail, Mend::everywhere(mend))
}

/// Anybody else's chain that drops forwarded traffic by policy.
fn other_drops(chains: Option<&Value>) -> Option<Finding> {
    let others: Vec<String> =
        drop_chains(chains?).into_iter().filter(|chain| chain != "ip filter FORWARD").collect();
    if others.is_empty() {
        return None;
    }
    let detail = format!("drop forwarded traffic by policy: {}", others.join("; "));
    let mend = "accept traffic from and to links whose names begin with `nl` in these chains";
    Some(Finding::warning("forward-chains", ROUTED, detail, Mend::everywhere(mend)))
}

/// `FAMILY TABLE CHAIN` of every base chain at the forward hook with policy drop, but for netloom's own tables.
pub(super) fn drop_chains(chains: &Value) -> Vec<String> {
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    chains["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["chain"])
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| !text(chain, "table").starts_with("netloom_"))
        .map(|chain| format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name")))
        .collect()
}

/// Ordinary users may send echo requests when their group is in this range; netloom's probes use such sockets.
fn ping(host: &Host) -> Finding {
    let (name, need) = ("ping_group_range", "ICMP probes from this host by an ordinary user");
    let range = host.read("/proc/sys/net/ipv4/ping_group_range").unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse::<u32>().ok());
    let group = nix::unistd::getegid().as_raw();
    match (ends.next(), ends.next()) {
        (Some(low), Some(high)) if host.is_root || (low..=high).contains(&group) => {
            Finding::ok(name, need, "allowed")
        }
        _ if host.is_root => Finding::ok(name, need, "root needs no permission"),
        _ => Finding::warning(
            name,
            need,
            format!("closed to group {group} (range `{range}`)"),
            Mend::everywhere("sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\""),
        ),
    }
}
