//! Kernel features, each really tried in a network namespace that vanishes with the process that tries.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use netlink_packet_route::link::{BridgeVlanInfoFlags, LinkMessage, MacVtapMode};
use nix::sched::CloneFlags;
use rtnetlink::{LinkBridge, LinkBridgeVlan, LinkMacVtap, LinkVeth, LinkVlan};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Mend};
use super::host::Host;
use crate::host::links::free_index;
use crate::host::links::wire::{Refusal, Wire};

/// One feature tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// One of the names in `FEATURES`.
    pub feature: String,
    /// Why it failed; `None` when it worked.
    pub error: Option<String>,
}

impl Trial {
    fn new(feature: &str, result: Result<(), String>) -> Self {
        Self { feature: feature.to_owned(), error: result.err() }
    }
}

/// What is tried: the feature, what needs it, what mends it.
const FEATURES: [(&str, &str, &str); 9] = [
    ("network-namespace", "sandboxes and namespace guests", "run netloom as root"),
    ("bridge", "every network", "sudo modprobe bridge"),
    ("veth", "namespace guests and sandboxes", "sudo modprobe veth"),
    ("vlan-filtering", "networks with VLANs", NO_CONFIG),
    ("vlan", "tagged legs of the host, of firewalls and of trunk ports", "sudo modprobe 8021q"),
    ("macvtap", "VMs on networks without a bridge (`macvtap` and its like)", "sudo modprobe macvtap"),
    ("nftables-nat", "networks with NAT, firewalls, port forwards", "sudo modprobe nft_masq"),
    ("nftables-conntrack", "filtering between networks", "sudo modprobe nft_ct"),
    ("nftables-fib", "protection against forged addresses", "sudo modprobe nft_fib_inet"),
];

const NO_CONFIG: &str =
    "boot a kernel with CONFIG_BRIDGE_VLAN_FILTERING (every distribution's own kernel has it)";

const NAT: &str = "add table inet probe
add chain inet probe after { type nat hook postrouting priority 100; }
add rule inet probe after ip saddr 192.0.2.0/24 masquerade
add chain inet probe before { type nat hook prerouting priority -100; }
add rule inet probe before ip protocol tcp dnat ip to 192.0.2.1
";
const CONNTRACK: &str = "add table inet probe
add chain inet probe forward { type filter hook forward priority 0; policy drop; }
add rule inet probe forward ct state established,related accept
";
const FIB: &str = "add table inet probe
add chain inet probe raw { type filter hook prerouting priority -300; }
add rule inet probe raw fib saddr . iif oif missing drop
";

/// Starts this program again to try the features, and reads what it found.
pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let trials = host
        .program
        .as_ref()
        .and_then(|program| host.output(program, &[super::PROBE_VERB]))
        .and_then(|text| serde_json::from_str::<Vec<Trial>>(&text).ok());
    findings(trials.as_deref())
}

pub(super) fn findings(trials: Option<&[Trial]>) -> Vec<Finding> {
    let Some(trials) = trials else {
        let detail = "could not be tried: this program could not be started again in a namespace of its own";
        return vec![Finding::missing("kernel", "everything", detail, Mend::default())];
    };
    FEATURES.iter().map(|(feature, need, mend)| finding(trials, feature, need, mend)).collect()
}

fn finding(trials: &[Trial], feature: &str, need: &str, mend: &str) -> Finding {
    let name = format!("kernel: {feature}");
    match trials.iter().find(|trial| trial.feature == feature).map(|trial| trial.error.as_deref()) {
        Some(None) => Finding::ok(&name, need, "works"),
        // one cause, named once: `nft` itself, or the namespace, is a finding of its own
        Some(Some(error)) if error == NO_NFT => Finding::warning(&name, need, error, Mend::default()),
        None => Finding::warning(
            &name,
            need,
            "not tried, since no network namespace could be made",
            Mend::default(),
        ),
        Some(Some(error)) => Finding::missing(&name, need, error, Mend::everywhere(mend)),
    }
}

const NO_NFT: &str = "not tried, since `nft` is missing";

/// Tries every feature in a network namespace made for it (inside a user namespace for an ordinary user). Call it early,
/// in a process with one thread: the kernel gives a user namespace only to such a process, and this one's network is
/// another afterwards.
#[must_use]
pub fn probe_kernel() -> Vec<Trial> {
    let entered = enter_namespace();
    let possible = entered.is_ok();
    let mut trials = vec![Trial::new("network-namespace", entered)];
    if possible {
        trials.extend(links());
        let scripts = [("nftables-nat", NAT), ("nftables-conntrack", CONNTRACK), ("nftables-fib", FIB)];
        trials.extend(scripts.map(|(feature, script)| Trial::new(feature, load(script))));
    }
    trials
}

fn enter_namespace() -> Result<(), String> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut flags = CloneFlags::CLONE_NEWNET;
    if !user.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    nix::sched::unshare(flags).map_err(|e| format!("cannot be made: {e}"))?;
    if !user.is_root() {
        // `nft` keeps its rights only as this namespace's root; groups may be mapped once setgroups is given up
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {user} 1")),
            ("gid_map", format!("0 {group} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), text)
                .map_err(|e| format!("cannot map this user: {e}"))?;
        }
    }
    Ok(())
}

fn links() -> Vec<Trial> {
    match Wire::open() {
        Ok(wire) => try_links(&wire),
        Err(error) => vec![Trial::new("bridge", Err(format!("cannot open a netlink socket: {error}")))],
    }
}

fn try_links(wire: &Wire) -> Vec<Trial> {
    let made = |message| wire.add_link(message).map_err(reason);
    let above =
        |message: &dyn Fn(u32) -> LinkMessage| index(wire, "here").and_then(|base| made(message(base)));
    vec![
        Trial::new("bridge", made(LinkBridge::new("plain").build())),
        Trial::new("veth", made(LinkVeth::new("here", "there").build())),
        Trial::new("vlan-filtering", filtering(wire)),
        Trial::new("vlan", above(&|base| LinkVlan::new("tagged", base, 7).build())),
        // With an index, and so the name of a device, that no lab and no other namespace has.
        Trial::new(
            "macvtap",
            above(&|base| LinkMacVtap::new("direct", base, MacVtapMode::Bridge).index(free_index()).build()),
        ),
    ]
}

/// Kernels without the feature take the attribute without a word, so a VID is put on the bridge as well.
fn filtering(wire: &Wire) -> Result<(), String> {
    let bridge = LinkBridge::new("filtering").vlan_filtering(true).vlan_default_pvid(0);
    wire.add_link(bridge.build()).map_err(reason)?;
    let vid = LinkBridgeVlan::new(index(wire, "filtering")?).bridge_self();
    wire.set_link(vid.vlan(7, BridgeVlanInfoFlags::empty()).build()).map_err(reason)
}

fn index(wire: &Wire, name: &str) -> Result<u32, String> {
    match wire.link(name) {
        Ok(Some(link)) => Ok(link.header.index),
        Ok(None) => Err(format!("link `{name}` is not there")),
        Err(e) => Err(reason(e)),
    }
}

fn reason(refusal: Refusal) -> String {
    match refusal {
        Refusal::Kernel(number) => {
            format!("the kernel refused: {}", std::io::Error::from_raw_os_error(number))
        }
        socket => socket.to_string(),
    }
}

/// Loads a script into this namespace and removes it again.
fn load(script: &str) -> Result<(), String> {
    let child = Command::new("nft")
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .env("PATH", crate::sandbox::search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(NO_NFT.to_owned()),
        Err(e) => return Err(format!("cannot run nft: {e}")),
    };
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(format!("{script}delete table inet probe\n").as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| format!("cannot run nft: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("the kernel refused: {}", message.lines().next().unwrap_or("no message")))
}
