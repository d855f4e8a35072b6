//! Systems whose own networks can be made here, and what is common to running their programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use super::{daemon, incus};
use crate::error::{Context, Error, Result};
use crate::sandbox::search_path;

/// A system whose own networks can be set beside netloom's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// libvirt's network driver, and what it plugs domains into.
    Libvirt,
    /// Incus's managed bridge.
    Incus,
}

impl System {
    /// As it is written in `--against`, in constructs and in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Libvirt => "libvirt",
            Self::Incus => "incus",
        }
    }

    /// Refuses a host on which it could not run. To be asked outside the sandbox.
    ///
    /// # Errors
    /// Exit 3 naming what is missing.
    pub fn is_possible(self) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            let what =
                format!("{}'s own networks are made by its system daemon, which needs root", self.name());
            return Err(Error::host(what).hint("run it with sudo; all of it stays in sandboxes"));
        }
        match self {
            Self::Libvirt => daemon::is_possible(),
            Self::Incus => incus::is_possible(),
        }
    }

    /// Its version, as it says it: `11.3.0`.
    #[must_use]
    pub fn version(self) -> String {
        let program = match self {
            Self::Libvirt => Path::new("libvirtd").to_owned(),
            Self::Incus => incus::daemon().unwrap_or_default(),
        };
        let said = Command::new(program).arg("--version").env("PATH", search_path()).output();
        let text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        text.split_whitespace().last().unwrap_or("of an unknown version").to_owned()
    }

    /// That something is not installed, with the packages of Debian and of Fedora that have it.
    pub(super) fn missing(self, what: &str, [debian, fedora]: [&str; 2]) -> Error {
        let name = self.name();
        Error::host(format!("comparing with {name}'s own networks needs {what}, which is not installed"))
            .hint(format!("Debian, Ubuntu: sudo apt install {debian}; Fedora: sudo dnf install {fedora}"))
    }
}

/// Where a program is among those that can be called by name.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let paths = search_path();
    std::env::split_paths(&paths).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Whether a program is there.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

/// Runs a program to its end. `shown` of its words are named when it fails.
///
/// # Errors
/// With what it says.
pub(super) fn run(mut command: Command, shown: &[&str]) -> Result<String> {
    let what = shown.join(" ");
    let said = command
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .context(|| format!("cannot run {}", shown.first().unwrap_or(&"")))?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&said.stderr);
    let bare = |line: &str| -> String {
        let line = line.trim();
        let start = ["error: ", "Error: "].into_iter().find_map(|word| line.strip_prefix(word));
        start.unwrap_or(line).to_owned()
    };
    let lines: Vec<String> = why.lines().map(bare).filter(|line| !line.is_empty()).collect();
    Err(Error::failed(format!("`{what}` failed")).caused_by(lines.join(": ")))
}
