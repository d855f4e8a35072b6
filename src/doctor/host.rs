//! The host as the checks see it: a file tree, a search path, a user. Tests put another one in its place.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::finding::Family;

/// Where the checks look.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// The root of the file tree.
    pub(super) root: PathBuf,
    /// Directories with programs, as in `PATH`.
    pub(super) path: OsString,
    /// Whether the checks run as root.
    pub(super) is_root: bool,
    /// This program, which tries kernel features as a process of its own.
    pub(super) program: Option<PathBuf>,
}

impl Host {
    /// This host, with the directories of system programs added to `PATH`: an ordinary user's often lacks them.
    pub(super) fn here() -> Self {
        Self {
            root: "/".into(),
            path: crate::sandbox::search_path(),
            is_root: nix::unistd::geteuid().is_root(),
            program: std::env::current_exe().ok(),
        }
    }

    /// A file of this host, by its absolute path.
    pub(super) fn at(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The text of a file without white space around it; `None` when it cannot be read.
    pub(super) fn read(&self, absolute: &str) -> Option<String> {
        fs::read_to_string(self.at(absolute)).ok().map(|text| text.trim().to_owned())
    }

    /// Where a program is, if it is in the search path and may be run.
    pub(super) fn find(&self, program: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|directory| directory.join(program)).find(|candidate| {
            fs::metadata(candidate).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
    }

    /// Standard output of a program that must succeed; `None` when it does not or is not there.
    pub(super) fn output(&self, program: &Path, arguments: &[&str]) -> Option<String> {
        let output = Command::new(program)
            .args(arguments)
            .env("PATH", &self.path)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The distribution family by os-release(5): `ID`, else the first known one of `ID_LIKE`.
    pub(super) fn family(&self) -> Option<Family> {
        let text = self.read("/etc/os-release").or_else(|| self.read("/usr/lib/os-release"))?;
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name == key).then(|| value.trim_matches(['"', '\'']).to_ascii_lowercase())
            })
        };
        let names = [value("ID"), value("ID_LIKE")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        names.split_ascii_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Family::Debian),
            "fedora" | "rhel" | "centos" => Some(Family::Fedora),
            "arch" => Some(Family::Arch),
            _ => None,
        })
    }

    /// Whether a process of this name runs.
    pub(super) fn runs(&self, comm: &str) -> bool {
        let Ok(entries) = fs::read_dir(self.at("/proc")) else { return false };
        entries
            .flatten()
            .any(|entry| fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == comm))
    }
}
