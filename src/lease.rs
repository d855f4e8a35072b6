//! The DHCP client's hook. busybox' udhcpc asks for the lease and leaves the rest to a program; this is that program,
//! for guests that are network namespaces.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::host::links::Links;
use crate::host::{files, labdir};
use crate::resource::Place;

/// Hidden verb: `netloom __lease EVENT`.
pub const VERB: &str = "__lease";
/// Name of the environment variable with the path of the file that records the lease.
pub const RECORD: &str = "NETLOOM_LEASE";
/// Name of that file in the service's directory. It is empty while the client has no lease: see [`awaited`].
pub const RECORD_FILE: &str = "lease.json";
/// Name of the hook in the service's directory.
pub const HOOK_FILE: &str = "hook";

/// A lease as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The interface that has it.
    pub interface: String,
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// Routers, preferred ones first.
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// The server that gave it.
    pub server: Option<IpAddr>,
    /// How long it is good for from `obtained` on, in seconds.
    pub lease_seconds: u32,
    /// When it was obtained or renewed, in seconds since 1970 (UTC).
    pub obtained: u64,
}

/// The hook's text, to be written as [`HOOK_FILE`] into the directory of the service that runs [`udhcpc_argv`].
#[must_use]
pub fn hook_script(program: &Path) -> String {
    let program = program.to_string_lossy().replace('\'', r"'\''");
    format!(
        "#!/bin/sh\n# udhcpc runs this for each change of the lease; $1 says which.\n\
         {RECORD}=\"${{0%/*}}/{RECORD_FILE}\" exec '{program}' {VERB} \"$1\"\n"
    )
}

/// The client's command line for a service: stays in the foreground, asks once a second until it has a lease, and
/// gives the lease back when it ends.
#[must_use]
pub fn udhcpc_argv(link: &str, hostname: &str) -> Vec<String> {
    let fixed = ["-f", "-R", "-t", "5", "-T", "1", "-A", "1", "-O", "staticroutes"];
    let mut argv: Vec<String> = ["busybox", "udhcpc", "-i", link].map(str::to_owned).into();
    argv.extend(fixed.map(str::to_owned));
    argv.extend(["-x".into(), format!("hostname:{hostname}")]);
    argv.extend(["-s".into(), format!("{{dir}}/{HOOK_FILE}")]);
    argv
}

/// Reads a recorded lease; `None` when there is none.
#[must_use]
pub fn read(record: &Path) -> Option<Lease> {
    serde_json::from_str(&files::read(record).ok()?).ok()
}

/// Whether the client that writes this record has yet to get a lease and put all of it in place, where these are the
/// interface's addresses. Until then an address is one that a client before it left, or one whose routes are still to come. A
/// record that somebody removed says nothing, so then the addresses are all there is to judge by.
#[must_use]
pub fn awaited(record: &Path, addresses: &[IpNetwork]) -> bool {
    let Ok(text) = files::read(record) else { return false };
    text.is_empty()
        || serde_json::from_str::<Lease>(&text).is_ok_and(|lease| !addresses.contains(&lease.address))
}

/// Empties a record: a new client asks, or an old one lost its lease.
///
/// # Errors
/// When it cannot be written.
pub fn forget(record: &Path) -> Result<()> {
    labdir::write(record, "")
}

/// What udhcpc passes: its own environment, and the lease's options.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Acts on an event of the client (`bound`, `renew`, `deconfig`; others change nothing) in the current network
/// namespace: puts the leased address, good as long as the lease, and the routes on the interface, or takes them off.
///
/// # Errors
/// When the environment is not that of a hook or the kernel refuses.
pub fn run(event: &str, env: &BTreeMap<String, String>) -> Result<()> {
    let interface = env.get("interface").ok_or_else(|| {
        Error::input("there is no interface to configure").hint("this is a hook for udhcpc, not for people")
    })?;
    let record = env.get(RECORD).map(PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the runtime".into())?;
    match event {
        "bound" | "renew" => {
            let lease = parse(interface, env)?;
            runtime.block_on(put_on(&lease))?;
            // A router that the kernel takes none for spoils no lease.
            let routed = runtime.block_on(route(&lease, &routes(env, &lease)));
            // Recorded last: whoever waits for the file finds the address usable.
            if let Some(path) = record {
                let text = serde_json::to_string(&lease).context(|| "cannot describe the lease".into())?;
                // Where there is no space for it, at least nobody shall wait for it.
                labdir::write(&path, &text).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
            }
            routed
        }
        "deconfig" => {
            if let Some(path) = record {
                let _ = forget(&path);
            }
            runtime.block_on(take_off(interface))
        }
        _ => Ok(()),
    }
}

async fn put_on(lease: &Lease) -> Result<()> {
    let links = Links::new("");
    // The old address goes first: one of the same subnet would be the primary one, and take the new one along.
    links.drop_leases(&Place::Host, &lease.interface, Some(lease.address)).await?;
    links.lease_address(&Place::Host, &lease.interface, lease.address, lease.lease_seconds).await
}

async fn route(lease: &Lease, routes: &[(Ipv4Network, Ipv4Addr)]) -> Result<()> {
    Links::new("").lease_routes(&Place::Host, &lease.interface, routes).await
}

async fn take_off(interface: &str) -> Result<()> {
    let links = Links::new("");
    let state = links.observe(&Place::Host).await?;
    let Some(link) = state.link(interface) else { return Ok(()) };
    if !link.up {
        links.set_up(&Place::Host, link.index, true).await?;
    }
    links.lease_routes(&Place::Host, interface, &[]).await?;
    links.drop_leases(&Place::Host, interface, None).await
}

pub(crate) fn parse(interface: &str, env: &BTreeMap<String, String>) -> Result<Lease> {
    let get = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let wrong = |name: &str| Error::failed(format!("the lease for `{interface}` has no usable `{name}`"));
    let ip: Ipv4Addr = get("ip").and_then(|ip| ip.parse().ok()).ok_or_else(|| wrong("ip"))?;
    let by_length = get("mask").and_then(|mask| mask.parse::<u8>().ok());
    let by_mask = || ipnetwork::ipv4_mask_to_prefix(get("subnet")?.parse().ok()?).ok();
    // A server that sends no mask means the whole internet is behind its routers.
    let length = by_length.or_else(by_mask).unwrap_or(32);
    let address = Ipv4Network::new(ip, length).map_err(|_| wrong("mask"))?;
    let lease: u32 = get("lease").and_then(|seconds| seconds.parse().ok()).unwrap_or(u32::MAX);
    Ok(Lease {
        interface: interface.to_owned(),
        address: IpNetwork::V4(address),
        routers: list(env, "router"),
        dns: list(env, "dns"),
        server: get("serverid").and_then(|ip| ip.parse().ok()),
        // All ones is "for ever" to DHCP and to the kernel, which would then call the address permanent: not leased.
        lease_seconds: lease.clamp(1, u32::MAX - 1),
        obtained: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    })
}

/// The values of an option with several.
fn list<T: std::str::FromStr>(env: &BTreeMap<String, String>, name: &str) -> Vec<T> {
    let text = env.get(name).map_or("", String::as_str);
    text.split_ascii_whitespace().filter_map(|item| item.parse().ok()).collect()
}

/// Routes of the lease: the classless static routes where there are any, which replace the router option (RFC 3442).
pub(crate) fn routes(env: &BTreeMap<String, String>, lease: &Lease) -> Vec<(Ipv4Network, Ipv4Addr)> {
    let words: Vec<&str> =
        env.get("staticroutes").map_or("", String::as_str).split_ascii_whitespace().collect();
    let given: Vec<_> = words
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].parse().ok()?)))
        .collect();
    if !given.is_empty() {
        return given;
    }
    let Some(router) = lease.routers.first() else { return Vec::new() };
    let mut routes = Vec::new();
    if !lease.address.contains(IpAddr::V4(*router)) {
        // Outside of the subnet, the router itself is on the link.
        routes.extend(Ipv4Network::new(*router, 32).map(|to| (to, Ipv4Addr::UNSPECIFIED)));
    }
    routes.extend(Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).map(|to| (to, *router)));
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|item| item.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn a_lease_is_read_from_the_environment() {
        let lease = parse(
            "eth0",
            &env("ip=10.0.0.7,subnet=255.255.255.0,router=10.0.0.1 10.0.0.2,dns=10.0.0.1,lease=120"),
        )
        .unwrap();
        assert_eq!(lease.address.to_string(), "10.0.0.7/24");
        assert_eq!(lease.routers.len(), 2);
        assert_eq!(lease.lease_seconds, 120);
        assert_eq!(
            parse("eth0", &env("ip=10.0.0.7,mask=16,lease=4294967295")).unwrap().lease_seconds,
            u32::MAX - 1
        );
        assert!(parse("eth0", &env("mask=16")).is_err());
        assert!(parse("eth0", &env("ip=10.0.0.7,mask=33")).is_err());
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let all =
            env("ip=10.0.0.7,mask=24,router=10.0.0.1,staticroutes=10.9.0.0/16 10.0.0.2 0.0.0.0/0 10.0.0.3");
        let shown = |env: &BTreeMap<String, String>| -> Vec<String> {
            let lease = parse("eth0", env).unwrap();
            routes(env, &lease).iter().map(|(to, via)| format!("{to} {via}")).collect()
        };
        assert_eq!(shown(&all), ["10.9.0.0/16 10.0.0.2", "0.0.0.0/0 10.0.0.3"]);
        assert_eq!(shown(&env("ip=10.0.0.7,mask=24,router=10.0.0.1")), ["0.0.0.0/0 10.0.0.1"]);
        assert_eq!(
            shown(&env("ip=10.0.0.7,mask=32,router=10.0.0.1")),
            ["10.0.0.1/32 0.0.0.0", "0.0.0.0/0 10.0.0.1"]
        );
        assert!(shown(&env("ip=10.0.0.7,mask=24")).is_empty());
    }

    #[test]
    fn the_hook_survives_odd_paths() {
        let script = hook_script(Path::new("/opt/it's here/netloom"));
        assert!(script.contains(r"exec '/opt/it'\''s here/netloom' __lease"), "{script}");
    }
}
