//! An Incus daemon of the sandbox's own, and its managed bridge. Its files are in the sandbox's `/run`; process 1 of the
//! sandbox is its parent. All of it goes with the sandbox.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::system::{self, System, is_installed};
use crate::error::{Context, Error, Result};
use crate::sandbox::{self, search_path, world};
use crate::topology::{Forward, Network, Protocol};

/// What would be in `/var/lib/incus`.
pub const DIRECTORY: &str = "/run/incus";
/// The client's own configuration.
pub const CLIENT_DIRECTORY: &str = "/run/incus-client";
/// What the daemon says.
const LOG: &str = "/run/incusd.log";
/// Where distributions keep the daemon, when it is not among the programs: Debian and Fedora, the Incus project's packages.
const PLACES: [&str; 2] = ["/usr/libexec/incus/incusd", "/opt/incus/bin/incusd"];
/// Seconds that it may take to answer.
const PATIENCE: &str = "60";

/// Where the daemon's program is.
pub(super) fn daemon() -> Option<PathBuf> {
    let elsewhere = || PLACES.into_iter().map(PathBuf::from).find(|path| path.is_file());
    system::find("incusd").or_else(elsewhere)
}

/// Refuses a host on which it could not run.
///
/// # Errors
/// Exit 3 naming what is missing.
pub(super) fn is_possible() -> Result<()> {
    let missing = |what, packages| Err(System::Incus.missing(what, packages));
    if daemon().is_none() {
        return missing("incusd (the daemon)", ["incus-base", "incus"]);
    }
    if !is_installed("incus") {
        return missing("incus (its client)", ["incus-client", "incus-client"]);
    }
    if !is_installed("dnsmasq") {
        return missing("dnsmasq (DHCP of networks)", ["dnsmasq-base", "dnsmasq"]);
    }
    if !is_installed("setpriv") {
        return missing("setpriv", ["util-linux", "util-linux"]);
    }
    Ok(())
}

/// Starts it and waits until it answers. To be called inside the sandbox.
///
/// # Errors
/// When it does not start.
pub(super) fn start() -> Result<()> {
    if !sandbox::inside() {
        return Err(Error::failed("an Incus daemon of one's own is for sandboxes only"));
    }
    let daemon = daemon().ok_or_else(|| System::Incus.missing("incusd", ["incus-base", "incus"]))?;
    for directory in [DIRECTORY, CLIENT_DIRECTORY] {
        fs::create_dir_all(directory).context(|| format!("cannot create {directory}"))?;
    }
    let log =
        || File::options().create(true).append(true).open(LOG).context(|| format!("cannot write {LOG}"));
    // It loads modules for VMs as it starts, and those would outlive the sandbox.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_module", "--inh-caps=-sys_module", "--"]).arg(daemon);
    let started = surround(&mut command).stdin(Stdio::null()).stdout(log()?).stderr(log()?).spawn();
    started.context(|| "cannot start incusd".to_owned())?;
    let waited = incus(&["admin", "waitready", "--timeout", PATIENCE]);
    waited.map(drop).map_err(|silence| silence.hint(last_words()))
}

/// What the daemon said last.
fn last_words() -> String {
    let said = fs::read_to_string(LOG).unwrap_or_default();
    said.lines()
        .last()
        .map_or_else(|| "incusd said nothing".to_owned(), |line| format!("incusd said: {line}"))
}

/// Its directories and the programs that it calls. No `HOME`: it is nobody's.
fn surround(command: &mut Command) -> &mut Command {
    command
        .env("INCUS_DIR", DIRECTORY)
        .env("INCUS_CONF", CLIENT_DIRECTORY)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .env_remove("HOME")
        .current_dir("/")
}

/// Has the client ask the daemon.
fn incus(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("incus");
    surround(&mut command).args(arguments);
    let shown: Vec<&str> = std::iter::once("incus").chain(arguments.iter().copied()).collect();
    system::run(command, &shown)
}

/// Has Incus make the network: a managed bridge with the addresses and the leases of netloom's own, and a network forward for
/// each address of the host.
///
/// # Errors
/// With what Incus says.
pub(super) fn make(network: &Network, bridge: &str) -> Result<()> {
    let words = settings(network);
    let mut create = vec!["network", "create", bridge];
    create.extend(words.iter().map(String::as_str));
    incus(&create)?;
    for listen in world::HOST_ADDRESSES {
        let mine: Vec<&Forward> =
            network.forwards.iter().filter(|forward| forward.target.is_ipv4() == listen.is_ipv4()).collect();
        if mine.is_empty() {
            continue;
        }
        let listen = listen.to_string();
        incus(&["network", "forward", "create", bridge, &listen])?;
        for forward in mine {
            let protocol = if forward.protocol == Protocol::Udp { "udp" } else { "tcp" };
            let (outer, target) = (forward.ports.0.to_string(), forward.target.to_string());
            let inner = forward.port.to_string();
            incus(&[
                "network", "forward", "port", "add", bridge, &listen, protocol, &outer, &target, &inner,
            ])?;
        }
    }
    Ok(())
}

/// The network's configuration, as `KEY=VALUE`. The keys are those of
/// <https://linuxcontainers.org/incus/docs/main/reference/network_bridge/>.
fn settings(network: &Network) -> Vec<String> {
    let mut out = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let is_ours = |ip: IpAddr| ip.is_ipv4() == (family == "ipv4");
        match network.host.iter().find(|host| is_ours(host.ip())) {
            Some(host) => out.extend([format!("{family}.address={host}"), format!("{family}.nat=true")]),
            None => out.push(format!("{family}.address=none")),
        }
    }
    if let Some(range) = network.dhcp {
        out.push(format!("ipv4.dhcp.ranges={}-{}", range.first, range.last));
    }
    // The lease that a forward leads to. Incus writes it for a container of its own from `ipv4.address` of its NIC.
    let promised: Vec<String> =
        network.reserved.iter().map(|(mac, ip)| format!("dhcp-host={mac},{ip}")).collect();
    if !promised.is_empty() {
        out.push(format!("raw.dnsmasq={}", promised.join("\n")));
    }
    out
}
