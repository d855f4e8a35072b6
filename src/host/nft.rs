//! nftables through the `nft` program, a script at a time on its standard input: one transaction each.

pub mod forwards;
mod generation;
pub(crate) mod notes;
pub(crate) mod tables;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::host::labdir::{self, LabDir};
use crate::host::{files, netns, sys};
use crate::resource::{Place, Ruleset, RulesetFamily, names};

pub use tables::tables;

use generation::Generation;

/// What was loaded and what the kernel then listed: a later listing that differs was changed by somebody else.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    script: String,
    listing: String,
    /// The state of all tables in which it was listed so.
    #[serde(default)]
    generation: Option<Generation>,
}

/// Loads a script that belongs to no lab, in one transaction.
///
/// # Errors
/// Exit 3 when `nft` is missing, exit 4 when the kernel refuses the script.
pub(crate) fn feed(place: &Place, script: &str) -> Result<()> {
    run(place, &["-f", "-"], Some(script)).map(|_| ())
}

/// How a table was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// The script it was made from, as far as known.
    pub script: Option<String>,
    /// Whether it still lists as it did when it was loaded.
    pub intact: bool,
}

/// Loads a ruleset in one transaction. How the kernel lists it is still to be noted: see [`note`].
///
/// # Errors
/// Exit 3 when `nft` is missing, exit 4 when the kernel refuses the script.
fn load(ruleset: &Ruleset) -> Result<()> {
    run(&ruleset.place, &["-f", "-"], Some(&ruleset.script)).map(|_| ())
}

/// Notes how the kernel lists a ruleset that was just loaded; false where the table is gone again.
///
/// # Errors
/// Exit 3 when `nft` is missing, and when the record cannot be written.
fn note(dir: &LabDir, ruleset: &Ruleset) -> Result<bool> {
    let Ruleset { place, family, table, script, .. } = ruleset;
    let Some((listing, generation)) = list(place, *family, table)? else { return Ok(false) };
    write(dir, place, *family, table, &Record { script: script.clone(), listing, generation })?;
    Ok(true)
}

fn write(dir: &LabDir, place: &Place, family: RulesetFamily, table: &str, record: &Record) -> Result<()> {
    let text = serde_json::to_string(record).context(|| "cannot note a ruleset".into())?;
    labdir::write(&record_path(dir, place, family, table), &text)
}

/// Looks at a table that is there; `None` when it is gone. With `renews` what is found to be as it was loaded is noted to be so
/// today: only whoever may change the lab meanwhile.
///
/// # Errors
/// Exit 3 when `nft` is missing.
pub(crate) fn observe(
    dir: &LabDir,
    place: &Place,
    family: RulesetFamily,
    table: &str,
    renews: bool,
) -> Result<Option<TableState>> {
    let record: Option<Record> = files::read(&record_path(dir, place, family, table))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    if let Some(Record { script, generation: Some(then), .. }) = &record
        && netns::within(place, Generation::here)?.as_ref() == Some(then)
    {
        return Ok(Some(TableState { script: Some(script.clone()), intact: true }));
    }
    let Some((listing, generation)) = list(place, family, table)? else { return Ok(None) };
    let intact = record.as_ref().is_some_and(|record| record.listing == listing);
    if let Some(record) = record.as_ref().filter(|_| renews && intact && generation.is_some()) {
        let renewed = Record { script: record.script.clone(), listing, generation };
        // Where it cannot be, it is listed once more.
        let _ = write(dir, place, family, table, &renewed);
    }
    Ok(Some(TableState { script: record.map(|record| record.script), intact }))
}

/// Removes a table. Fine when it is gone.
///
/// # Errors
/// When the kernel refuses.
pub fn delete(dir: &LabDir, ruleset: &Ruleset) -> Result<()> {
    let Ruleset { place, family, table, .. } = ruleset;
    let word = family.word();
    // `add` first makes `delete` succeed whether or not the table exists (`destroy` needs a newer nft).
    let script = format!("add table {word} {table}\ndelete table {word} {table}\n");
    match run(place, &["-f", "-"], Some(&script)) {
        // Without the program nothing was loaded by us, unless it is written down.
        Err(e) if e.kind == Kind::Host && !was_loaded(dir, place, *family, table) => return Ok(()),
        other => other?,
    };
    forget(dir, ruleset);
    Ok(())
}

/// Drops what was noted of a table that is gone.
pub fn forget(dir: &LabDir, ruleset: &Ruleset) {
    let _ = fs::remove_file(record_path(dir, &ruleset.place, ruleset.family, &ruleset.table));
}

/// Whether a table was loaded there and not deleted since, as far as the lab's directory knows.
#[must_use]
pub fn was_loaded(dir: &LabDir, place: &Place, family: RulesetFamily, table: &str) -> bool {
    record_path(dir, place, family, table).exists()
}

fn record_path(dir: &LabDir, place: &Place, family: RulesetFamily, table: &str) -> PathBuf {
    let place = match place {
        Place::Host => "host",
        Place::Netns(name) => name,
    };
    let family = match family {
        RulesetFamily::Inet => "",
        RulesetFamily::Bridge => "bridge.",
    };
    dir.path().join("rulesets").join(format!("{place}.{family}{table}.json"))
}

/// Digest of the table as text, without counters and without what its rules put into sets, and the state of all tables in which
/// it is so, where that is known; `None` when there is no such table.
fn list(place: &Place, family: RulesetFamily, table: &str) -> Result<Option<(String, Option<Generation>)>> {
    let generation = || netns::within(place, Generation::here);
    let before = generation()?;
    match run(place, &["-s", "-t", "list", "table", family.word(), table], None) {
        Ok(text) => {
            let same = before.filter(|before| generation().is_ok_and(|after| after.as_ref() == Some(before)));
            Ok(Some((names::sha256(text.as_bytes()), same)))
        }
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether `nft` says that there is no such table.
fn is_absent(error: &Error) -> bool {
    error.causes().iter().any(|cause| cause.contains("No such file or directory"))
}

/// What it says is kept in memory: it writes each word by itself, and through a pipe the two of us would take turns, thousands of
/// times for a large table. Where that cannot be had, or a security module keeps it from writing there, a pipe has to do.
fn run(place: &Place, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let memory = memfd_create(c"nft", MFdFlags::MFD_CLOEXEC).ok().map(fs::File::from);
    run_by(memory, place, arguments, input)
}

fn run_by(
    memory: Option<fs::File>,
    place: &Place,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String> {
    let in_memory = memory.is_some();
    let said = run_into(place, arguments, input, memory)?;
    // What is asked for is never nothing.
    if in_memory && said.is_empty() && input.is_none() {
        return run_into(place, arguments, input, None);
    }
    Ok(said)
}

fn run_into(
    place: &Place,
    arguments: &[&str],
    input: Option<&str>,
    memory: Option<fs::File>,
) -> Result<String> {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let input = input.map(str::to_owned);
    let output = netns::within(place, move || -> std::io::Result<std::process::Output> {
        let out = memory.as_ref().map(fs::File::try_clone).transpose()?;
        let mut command = Command::new("nft");
        command
            .args(&arguments)
            .process_group(0) // a Ctrl-C is for netloom, which lets a transaction finish and rolls back
            .env("LC_ALL", "C")
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(out.map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped());
        // A netloom that is killed takes it along: a table that came up only after the next `down` would stay.
        let mut child = sys::ends_with_this_thread(&mut command).spawn()?;
        if let (Some(text), Some(mut pipe)) = (input, child.stdin.take())
            && let Err(e) = pipe.write_all(text.as_bytes())
        {
            // Half a script is not to be carried out.
            let _ = child.kill();
            let _ = child.wait();
            return Err(e);
        }
        let mut output = child.wait_with_output()?;
        if let Some(mut said) = memory {
            said.rewind()?;
            said.read_to_end(&mut output.stdout)?;
        }
        Ok(output)
    })?
    .map_err(|e| {
        Error::host("cannot run `nft`")
            .caused_by(e)
            .hint("install nftables: `sudo apt-get install nftables`, `sudo dnf install nftables` or `sudo pacman -S nftables`")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::failed("nftables refused a request").caused_by(String::from_utf8_lossy(&output.stderr).trim()))
}

/// Labs that have a table on the host.
///
/// # Errors
/// When the caller may not look.
pub fn labs() -> Result<BTreeSet<String>> {
    Ok(tables(&Place::Host)?.iter().filter_map(|(_, table)| names::read_table(table)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_says_arrives_also_where_it_may_not_write_into_memory() {
        let asked = |memory| run_by(memory, &Place::Host, &["--version"], None).unwrap();
        let memory = || memfd_create(c"nft", MFdFlags::MFD_CLOEXEC).map(fs::File::from).unwrap();
        // A security module puts /dev/null in the place of what a program may not write to.
        let nowhere = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let said = asked(Some(memory()));
        assert!(said.starts_with("nftables v"), "{said}");
        assert_eq!([asked(Some(nowhere)), asked(None)], [said.as_str(); 2]);
    }
}
