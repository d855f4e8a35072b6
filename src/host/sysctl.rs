//! Kernel settings below `/proc/sys/net`. Those of the host are put back when the last lab that needed them goes;
//! the record lives in `/run`, which a reboot clears together with the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::host::{labdir, netns};
use crate::resource::{Place, Sysctls};

/// Labs' shared directory below `/run`.
pub const RUN: &str = "/run/netloom";

#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// Values before the first lab changed them, by path.
    original: BTreeMap<String, String>,
    /// Labs that need them changed.
    labs: BTreeSet<String>,
}

fn file(path: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(path)
}

/// Reads the values that a set of settings names.
///
/// # Errors
/// When the place cannot be entered.
pub fn observe(wanted: &Sysctls) -> Result<BTreeMap<String, String>> {
    let paths: Vec<String> = wanted.values.keys().cloned().collect();
    netns::within(&wanted.place, move || {
        paths
            .into_iter()
            .filter_map(|path| {
                let value = fs::read_to_string(file(&path)).ok()?;
                Some((path, value.trim().to_owned()))
            })
            .collect()
    })
}

/// Sets them. On the host the old values are recorded first.
///
/// # Errors
/// When a setting cannot be written.
pub fn set(lab: &str, wanted: &Sysctls) -> Result<()> {
    let mut values = wanted.values.clone();
    if wanted.place == Place::Host {
        if values.contains_key("ipv6/conf/all/forwarding") {
            // A forwarding host ignores router advertisements where accept_ra is 1 (ip-sysctl): keep them.
            values.extend(links_that_listen_to_advertisements());
        }
        let mut record = read_record();
        for path in values.keys() {
            if !record.original.contains_key(path) {
                let old =
                    fs::read_to_string(file(path)).context(|| format!("cannot read sysctl net/{path}"))?;
                record.original.insert(path.clone(), old.trim().to_owned());
            }
        }
        record.labs.insert(lab.to_owned());
        write_record(&record)?;
    }
    netns::within(&wanted.place, move || {
        // Forwarding last: it resets other settings.
        for (path, value) in &values {
            fs::write(file(path), value).context(|| format!("cannot set sysctl net/{path} to {value}"))?;
        }
        Ok(())
    })?
}

/// Labs that are recorded to need changed settings on the host.
#[must_use]
pub fn holders() -> BTreeSet<String> {
    read_record().labs
}

/// Says that `lab` needs nothing any more; the last one puts the old values back.
///
/// # Errors
/// When a setting cannot be written.
pub fn release(lab: &str) -> Result<()> {
    let mut record = read_record();
    if !record.labs.remove(lab) {
        return Ok(());
    }
    if !record.labs.is_empty() {
        return write_record(&record);
    }
    for (path, value) in &record.original {
        if file(path).exists() {
            fs::write(file(path), value).context(|| format!("cannot put sysctl net/{path} back"))?;
        }
    }
    let _ = fs::remove_file(record_path());
    let _ = fs::remove_dir(RUN);
    Ok(())
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
    Path::new(RUN).join("sysctls.json")
}

fn read_record() -> Record {
    fs::read_to_string(record_path())
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn write_record(record: &Record) -> Result<()> {
    let text = serde_json::to_string(record).context(|| "cannot note sysctls".into())?;
    labdir::write(&record_path(), &text)
}
