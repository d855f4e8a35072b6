//! Kernel settings below `/proc/sys/net`. Those of the host are put back when the last lab that needed them goes;
//! the record lives in `/run`, which a reboot clears together with the settings.

mod forwarding;
mod tree;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::host::{files, labdir, netns, run};
use crate::resource::{Place, Sysctls};

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Values before the first lab changed them, by path.
    original: BTreeMap<String, String>,
    /// Labs that need them changed, with what each set.
    labs: BTreeMap<String, BTreeMap<String, String>>,
}

fn file(path: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(path)
}

/// Reads the values that a set of settings names.
///
/// # Errors
/// When the place cannot be entered.
pub fn observe(wanted: &Sysctls) -> Result<BTreeMap<String, String>> {
    netns::within(&wanted.place, || read(wanted))
}

/// The same, of the network namespace that the calling thread is in.
#[must_use]
pub fn read(wanted: &Sysctls) -> BTreeMap<String, String> {
    let mut asker = forwarding::Asker::default();
    let mut value = |path: &String| match now(path, &mut asker) {
        Err(_) if path.starts_with("ipv6/") => Some("0".to_owned()), // a kernel without IPv6
        read => read.ok(),
    };
    wanted.values.keys().filter_map(|path| Some((path.clone(), value(path)?))).collect()
}

/// A setting as it is in the network namespace of the calling thread.
fn now(path: &str, asker: &mut forwarding::Asker) -> std::io::Result<String> {
    match forwarding::family(path).and_then(|family| asker.of(family)) {
        Some(told) => Ok(told.to_string()),
        None => tree::read(path),
    }
}

/// Says what links are born with that are made there next, which the kernel asks when it makes them: whether they listen to
/// router advertisements, and no waiting until an IPv6 address was looked for elsewhere. That is no state of the lab, which
/// shows in the links: whoever makes a link in a namespace of netloom's says it before.
///
/// # Errors
/// When the place cannot be entered or a setting cannot be written.
pub(crate) fn before_birth(place: &Place, advertised: bool) -> Result<()> {
    let values = [
        // 2: a forwarding guest listens to router advertisements, too.
        ("ipv6/conf/default/accept_ra", if advertised { "2" } else { "0" }),
        // The file's addresses are checked for duplicates; a second of waiting for each proves nothing more.
        ("ipv6/conf/default/accept_dad", "0"),
    ];
    write(place, values.map(|(path, value)| (path.to_owned(), value.to_owned())).into())
}

/// Sets them. On the host the old values are recorded first, and what the lab set before and wants no longer is put back,
/// unless another one wants it.
///
/// # Errors
/// When a setting cannot be written.
pub fn set(lab: &str, wanted: &Sysctls) -> Result<()> {
    if wanted.place != Place::Host {
        return write(&wanted.place, wanted.values.clone());
    }
    let mut values = wanted.values.clone();
    let _alone = run::hold(FlockArg::LockExclusive)?;
    let mut record = read_record();
    if values.contains_key(FORWARDING_6) {
        // A forwarding host ignores router advertisements where accept_ra is 1 (ip-sysctl): keep them.
        // Whichever lab did so first, all of them need it; and what could not be put back is still to be kept.
        let done = record.original.iter().filter(|(path, old)| is_own_doing(path) && *old == "1");
        values.extend(done.map(|(path, _)| (path.clone(), "2".to_owned())));
        values.extend(links_that_listen_to_advertisements());
    }
    let side_effects = values.keys().flat_map(|path| also_changed_by(path));
    let paths: BTreeSet<String> = values.keys().cloned().chain(side_effects).collect();
    for path in paths {
        if let Entry::Vacant(vacant) = record.original.entry(path) {
            let old = fs::read_to_string(file(vacant.key()))
                .context(|| format!("cannot read sysctl net/{}", vacant.key()))?;
            vacant.insert(old.trim().to_owned());
        }
    }
    record.labs.insert(lab.to_owned(), values.clone());
    write_record(&record)?;
    write(&wanted.place, values)?;
    put_back_what_nobody_needs(record)
}

/// Writes what differs.
fn write(place: &Place, values: BTreeMap<String, String>) -> Result<()> {
    netns::within(place, move || {
        let mut asker = forwarding::Asker::default();
        // Forwarding last: a host that begins to forward forgets the routes that routers advertised, but for links that listen
        // to them all the same (`rt6_purge_dflt_routers`).
        let (last, first): (Vec<_>, Vec<_>) = values.iter().partition(|(path, _)| is_forwarding(path));
        for (path, value) in first.into_iter().chain(last) {
            // Writing takes the kernel's one lock for all links of all namespaces, even where nothing changes.
            let now = now(path, &mut asker);
            let absent = now.is_err() && path.starts_with("ipv6/") && value == "0"; // a kernel without IPv6
            if absent || now.is_ok_and(|now| now == *value) {
                continue;
            }
            tree::write(path, value).context(|| format!("cannot set sysctl net/{path} to {value}"))?;
        }
        Ok(())
    })?
}

/// Labs that are recorded to have set something on the host.
#[must_use]
pub fn holders() -> Vec<String> {
    read_record().labs.into_keys().collect()
}

/// What a lab is recorded to have asked for on the host; `None` when it asked for nothing.
#[must_use]
pub fn held(lab: &str) -> Option<BTreeMap<String, String>> {
    let mut values = read_record().labs.remove(lab)?;
    values.retain(|path, _| !is_own_doing(path));
    Some(values)
}

/// Says that `lab` needs nothing any more: what no other lab needs is put back.
///
/// # Errors
/// When a setting cannot be written.
pub fn release(lab: &str) -> Result<()> {
    if held(lab).is_none() {
        return Ok(());
    }
    let _alone = run::hold(FlockArg::LockExclusive)?;
    let mut record = read_record();
    record.labs.remove(lab);
    // First the settings, then the record: whoever is cut off in between does it again.
    put_back_what_nobody_needs(record)
}

/// All of it that can be. The values of before stay recorded until they are back.
fn put_back_what_nobody_needs(mut record: Record) -> Result<()> {
    let set = || record.labs.values().flat_map(BTreeMap::keys);
    let needed: BTreeSet<String> =
        set().cloned().chain(set().flat_map(|path| also_changed_by(path))).collect();
    let (kept, old): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut record.original).into_iter().partition(|(path, _)| needed.contains(path));
    // Forwarding first: it resets others, which are put back after it, and stay what they are where it does.
    let (first, rest): (Vec<_>, Vec<_>) = old.iter().partition(|(path, _)| is_forwarding(path));
    let mut bound = BTreeSet::new();
    let mut done = Ok(());
    for (path, value) in first.into_iter().chain(rest) {
        if bound.contains(path) || is_own_doing(path) && bound.contains(FORWARDING_6) {
            continue;
        }
        let now = fs::read_to_string(file(path)); // fails where the link it is about is gone
        if now.is_ok_and(|now| now.trim() != value) {
            let written = fs::write(file(path), value);
            if written.is_err() && is_forwarding(path) {
                bound.extend(also_changed_by(path).into_iter().chain([path.clone()]));
            }
            done = done.and(written.context(|| format!("cannot put sysctl net/{path} back")));
        }
    }
    done?;
    record.original = kept;
    if record.labs.is_empty() {
        return fs::remove_file(record_path()).context(|| "cannot remove the record of sysctls".into());
    }
    write_record(&record)
}

/// Forwarding of IPv6, which decides about router advertisements.
const FORWARDING_6: &str = "ipv6/conf/all/forwarding";

/// Whether packets are passed on at all.
fn is_forwarding(path: &str) -> bool {
    matches!(path, "ipv4/ip_forward" | FORWARDING_6)
}

/// What is set besides what was asked for.
fn is_own_doing(path: &str) -> bool {
    path.ends_with("/accept_ra")
}

/// Settings that the kernel changes of its own when this one is (`inet_forward_change`, `addrconf_fixup_forwarding`):
/// the same of every link and, for IPv4, whether redirects are accepted.
fn also_changed_by(path: &str) -> Vec<String> {
    let family = match path {
        "ipv4/ip_forward" => "ipv4",
        FORWARDING_6 => "ipv6",
        _ => return Vec::new(),
    };
    let links = fs::read_dir(file(&format!("{family}/conf"))).into_iter().flatten().flatten();
    let names = links.filter_map(|entry| entry.file_name().into_string().ok());
    let mut paths: Vec<String> = names
        .filter(|name| name != "all" && !name.starts_with("nl"))
        .map(|name| format!("{family}/conf/{name}/forwarding"))
        .collect();
    if family == "ipv4" {
        paths.push("ipv4/conf/all/accept_redirects".to_owned());
    }
    paths
}

fn links_that_listen_to_advertisements() -> Vec<(String, String)> {
    fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !matches!(name.as_str(), "all" | "default" | "lo") && !name.starts_with("nl"))
        .map(|name| format!("ipv6/conf/{name}/accept_ra"))
        .filter(|path| fs::read_to_string(file(path)).is_ok_and(|value| value.trim() == "1"))
        .map(|path| (path, "2".to_owned()))
        .collect()
}

fn record_path() -> PathBuf {
    Path::new(run::DIRECTORY).join("sysctls.json")
}

fn read_record() -> Record {
    files::read(&record_path()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn write_record(record: &Record) -> Result<()> {
    let text = serde_json::to_string(record).context(|| "cannot note sysctls".into())?;
    labdir::write(&record_path(), &text)
}
