//! Kernel features, each really tried in a network namespace that vanishes with the process that tries.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use nix::sched::CloneFlags;
use rtnetlink::packet_route::link::{BridgeVlanInfoFlags, MacVtapMode};
use rtnetlink::{Handle, LinkBridge, LinkBridgeVlan, LinkMacVtap, LinkVeth, LinkVlan};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Mend};
use super::host::Host;
use crate::host::links::free_index;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tried = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            Ok(try_links(&handle).await)
        })
    });
    match tried {
        Ok(trials) => trials,
        Err(error) => vec![Trial::new("bridge", Err(format!("cannot open a netlink socket: {error}")))],
    }
}

async fn try_links(handle: &Handle) -> Vec<Trial> {
    let mut trials = Vec::new();
    let plain = handle.link().add(LinkBridge::new("plain").build()).execute().await;
    trials.push(Trial::new("bridge", plain.map_err(reason)));
    let veth = handle.link().add(LinkVeth::new("here", "there").build()).execute().await;
    trials.push(Trial::new("veth", veth.map_err(reason)));
    trials.push(Trial::new("vlan-filtering", filtering(handle).await));
    let vlan = match index(handle, "here").await {
        Ok(base) => {
            handle.link().add(LinkVlan::new("tagged", base, 7).build()).execute().await.map_err(reason)
        }
        Err(error) => Err(error),
    };
    trials.push(Trial::new("vlan", vlan));
    let macvtap = match index(handle, "here").await {
        Ok(base) => {
            // With an index, and so the name of a device, that no lab and no other namespace has.
            let message = LinkMacVtap::new("direct", base, MacVtapMode::Bridge).index(free_index());
            handle.link().add(message.build()).execute().await.map_err(reason)
        }
        Err(error) => Err(error),
    };
    trials.push(Trial::new("macvtap", macvtap));
    trials
}

/// Kernels without the feature take the attribute without a word, so a VID is put on the bridge as well.
async fn filtering(handle: &Handle) -> Result<(), String> {
    let bridge = LinkBridge::new("filtering").vlan_filtering(true).vlan_default_pvid(0);
    handle.link().add(bridge.build()).execute().await.map_err(reason)?;
    let index = index(handle, "filtering").await?;
    let vid = LinkBridgeVlan::new(index).bridge_self().vlan(7, BridgeVlanInfoFlags::empty());
    handle.link().set(vid.build()).execute().await.map_err(reason)
}

async fn index(handle: &Handle, name: &str) -> Result<u32, String> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(Some(link)) => Ok(link.header.index),
        Ok(None) => Err(format!("link `{name}` is not there")),
        Err(e) => Err(reason(e)),
    }
}

fn reason(error: rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            format!("the kernel refused: {}", message.to_io())
        }
        other => other.to_string(),
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
