//! What most verbs begin with: which lab, where its directory is, and into its sandbox if it has one.

use std::path::{Path, PathBuf};

use super::list;
use crate::error::{Context as _, Error, Result};
use crate::host::files;
use crate::host::labdir::{LabDir, LabInfo, state_directory};
use crate::host::links::Ahead;
use crate::resource::names;
use crate::sandbox;
use crate::topology::{self, GuestKind, LoadOptions, Topology};

/// What a verb's `LAB` or `FILE` argument means.
#[derive(Debug)]
pub(super) enum Target {
    /// A file, loaded.
    File {
        /// Its path.
        path: PathBuf,
        /// The lab in it.
        topology: Box<Topology>,
    },
    /// A lab's name.
    Lab(String),
}

/// A lab's place on this host.
#[derive(Debug)]
pub(super) struct Lab {
    /// Where all labs live.
    pub(super) state: PathBuf,
    /// Its directory.
    pub(super) dir: LabDir,
    /// What is recorded of it.
    pub(super) info: LabInfo,
}

/// Whether an argument is meant as a file: it ends like one, holds a slash, or a file of that name exists.
fn is_file(argument: &str) -> bool {
    let yaml = Path::new(argument)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml"));
    yaml || argument.contains('/') || (Path::new(argument).is_file() && !is_known_lab(argument))
}

/// A lab that is there has its name for itself: a file of that name, without an ending, is most likely something else.
fn is_known_lab(name: &str) -> bool {
    names::is_lab(name) && state_directory().is_ok_and(|state| LabDir::new(&state, name).exists())
}

/// Reads the argument; without one it is `netloom.yaml` in the working directory.
pub(super) fn target(argument: Option<&str>, guests: Option<GuestKind>) -> Result<Target> {
    let argument = argument.unwrap_or("netloom.yaml");
    if is_file(argument) {
        let path = PathBuf::from(argument);
        let topology = Box::new(load(&path, guests)?);
        return Ok(Target::File { path, topology });
    }
    check_name(argument)?;
    Ok(Target::Lab(argument.to_owned()))
}

/// Loads a file; its diagnostics become the error's text.
pub(super) fn load(path: &Path, guests: Option<GuestKind>) -> Result<Topology> {
    Ok(topology::load_file(path, &LoadOptions { guests })?)
}

/// Begins to look at the host while the lab's file is read, for a verb that will look at it: see [`Lab::go_on`].
pub(super) fn look_ahead() -> Option<Ahead> {
    // An ordinary user has labs in sandboxes only.
    (sandbox::inside() || nix::unistd::geteuid().is_root()).then(Ahead::begin).flatten()
}

fn check_name(name: &str) -> Result<()> {
    if names::is_lab(name) {
        return Ok(());
    }
    Err(Error::input(format!("`{name}` is neither a file nor a lab's name"))
        .hint("a file ends in .yaml; a lab's name is 1 to 32 of a-z, 0-9 and `-`"))
}

/// `LAB/GUEST` of `exec` and `console`.
pub(super) fn lab_and_guest(argument: &str) -> Result<(String, String)> {
    match argument.split_once('/') {
        Some((lab, guest)) if !guest.is_empty() => {
            check_name(lab)?;
            check_name(guest)?;
            Ok((lab.to_owned(), guest.to_owned()))
        }
        _ => Err(Error::input(format!("`{argument}` does not name a guest"))
            .hint("write LAB/GUEST, such as hci-firewall/fw")),
    }
}

impl Lab {
    /// Looks a lab up; it need not exist.
    pub(super) fn find(name: &str) -> Result<Self> {
        let (lab, damage) = Self::look_up(name)?;
        match damage {
            None => Ok(lab),
            Some(damage) => Err(damage),
        }
    }

    /// As [`Lab::find`], also where the record is damaged: what was lost with it is taken for not given.
    pub(super) fn find_anyway(name: &str) -> Result<Self> {
        Ok(Self::look_up(name)?.0)
    }

    fn look_up(name: &str) -> Result<(Self, Option<Error>)> {
        let state = state_directory()?;
        let dir = LabDir::new(&state, name);
        let (mut info, damage) = match dir.info() {
            Ok(info) => (info, None),
            Err(e) => (LabInfo::default(), Some(e)),
        };
        // The record is a short cut, and may be wrong: a sandbox is found without it, too.
        if !sandbox::inside() && !info.sandbox.as_ref().is_some_and(|named| sandbox::keeps(named, dir.path()))
        {
            let ended = info.sandbox.take().filter(|named| !sandbox::alive(named));
            info.sandbox = sandbox::find(dir.path()).or(ended);
        }
        Ok((Self { state, dir, info }, damage))
    }

    /// Whether its sandbox runs, as seen from outside of it.
    pub(super) fn sandbox_lives(&self) -> bool {
        self.info.sandbox.as_ref().is_some_and(sandbox::alive)
    }

    /// A look that was begun goes on for a lab of this host, and ends here for one that is in a sandbox: before
    /// [`Lab::enter`] there may be no other thread.
    pub(super) fn go_on(&self, begun: Option<Ahead>) -> Option<Ahead> {
        if sandbox::inside() || self.info.sandbox.is_none() {
            return begun;
        }
        if let Some(begun) = begun {
            begun.end();
        }
        None
    }

    /// Runs this very command inside the lab's sandbox and returns its exit code; `None` where there is nothing to
    /// enter. Must be called while the process has one thread.
    pub(super) fn enter(&self) -> Result<Option<u8>> {
        if sandbox::inside() {
            return Ok(None);
        }
        match &self.info.sandbox {
            Some(sandbox) if sandbox::alive(sandbox) => sandbox::enter(sandbox).map(Some),
            Some(_) => Err(Error::failed(format!("the sandbox of lab `{}` is gone", self.dir.lab()))
                .hint(format!("`netloom down {}` clears what is left of it", self.dir.lab()))),
            None => {
                if !nix::unistd::geteuid().is_root() && self.dir.exists() {
                    return Err(needs_root());
                }
                Ok(None)
            }
        }
    }

    /// The lab as it was brought up, by its own copy of its file.
    pub(super) fn topology(&self) -> Result<Topology> {
        self.read(&self.text()?)
    }

    /// The lab in the text of its own copy of its file.
    pub(super) fn read(&self, text: &str) -> Result<Topology> {
        let options = LoadOptions { guests: self.info.guests };
        Ok(topology::load(&self.dir.file().display().to_string(), text, &options)?)
    }

    /// The lab's own copy of its file.
    pub(super) fn text(&self) -> Result<String> {
        let begun = || self.info.sandbox.is_some() || self.dir.exists() || self.has_objects();
        if !self.dir.file().is_file() && begun() {
            // Nothing tells these from one another.
            return Err(Error::failed(format!(
                "lab `{}` is not complete: the run that built it was cut off, is still at work, or its directory was lost",
                self.dir.lab()
            ))
            .hint(format!("`netloom up FILE` completes it; `netloom down {}` removes it", self.dir.lab())));
        }
        if !self.dir.file().is_file() {
            return Err(Error::input(format!("there is no lab `{}` on this host", self.dir.lab()))
                .hint("`netloom list` shows the labs; `netloom up FILE` builds one"));
        }
        let file = self.dir.file();
        files::read(&file).context(|| format!("cannot read {}", file.display()))
    }

    /// Whether anything on the host carries the lab's mark.
    fn has_objects(&self) -> bool {
        list::marked().is_ok_and(|labs| labs.iter().any(|lab| lab == self.dir.lab()))
    }

    /// Where relative paths in the file start: where the file was.
    pub(super) fn file_directory(&self) -> PathBuf {
        self.info.file_directory.clone().unwrap_or_else(|| PathBuf::from("/"))
    }
}

/// The absolute directory of a file.
pub(super) fn directory_of(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).context(|| format!("cannot find {}", path.display()))?;
    Ok(path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf))
}

/// The error for a verb that changes the host without the privilege.
pub(super) fn needs_root() -> Error {
    Error::host("building links, namespaces and rulesets on this host needs root")
        .hint("run it with sudo, or use `netloom up --sandbox`, which needs no privilege")
}
