//! One thing looked at, and what mends it.

use serde::{Deserialize, Serialize};

/// How a thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Present and usable.
    Ok,
    /// Not there, and something netloom promises cannot work without it.
    Missing,
    /// Works, but slower, in part, or with something in its way.
    Warning,
}

/// A distribution family: which package manager and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Debian,
    Fedora,
    Arch,
}

/// What mends it, as a command, for each distribution family; all empty when nothing has to be mended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mend {
    /// Debian, Ubuntu and those made from them.
    pub debian: Option<String>,
    /// Fedora, RHEL and those made from them.
    pub fedora: Option<String>,
    /// Arch and those made from it.
    pub arch: Option<String>,
}

impl Mend {
    /// The same everywhere.
    pub(super) fn everywhere(command: &str) -> Self {
        let command = Some(command.to_owned());
        Self { debian: command.clone(), fedora: command.clone(), arch: command }
    }

    /// Packages to install; names differ.
    pub(super) fn packages(debian: &str, fedora: &str, arch: &str) -> Self {
        Self {
            debian: Some(format!("sudo apt-get install --no-install-recommends {debian}")),
            fedora: Some(format!("sudo dnf install {fedora}")),
            arch: Some(format!("sudo pacman -S --needed {arch}")),
        }
    }

    /// The lines to show: one for a known family or when all are the same, else one for each.
    pub(super) fn for_family(&self, family: Option<Family>) -> Vec<String> {
        let one = match family {
            Some(Family::Debian) => self.debian.clone(),
            Some(Family::Fedora) => self.fedora.clone(),
            Some(Family::Arch) => self.arch.clone(),
            None if self.debian == self.fedora && self.debian == self.arch => self.debian.clone(),
            None => {
                return [("Debian, Ubuntu", &self.debian), ("Fedora", &self.fedora), ("Arch", &self.arch)]
                    .into_iter()
                    .filter_map(|(name, mend)| mend.as_ref().map(|mend| format!("{mend}    ({name})")))
                    .collect();
            }
        };
        one.into_iter().collect()
    }
}

/// One thing looked at. The JSON of `netloom doctor --json` is a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable short name, such as `dnsmasq` or `vlan-filtering`.
    pub name: String,
    /// How it was found.
    pub status: Status,
    /// What was found, in a clause.
    pub detail: String,
    /// What needs it, in a clause.
    pub needed_for: String,
    /// What mends it.
    pub mend: Mend,
}

impl Finding {
    pub(super) fn ok(name: &str, needed_for: &str, detail: impl Into<String>) -> Self {
        Self::new(name, needed_for, Status::Ok, detail, Mend::default())
    }
    pub(super) fn missing(name: &str, needed_for: &str, detail: impl Into<String>, mend: Mend) -> Self {
        Self::new(name, needed_for, Status::Missing, detail, mend)
    }
    pub(super) fn warning(name: &str, needed_for: &str, detail: impl Into<String>, mend: Mend) -> Self {
        Self::new(name, needed_for, Status::Warning, detail, mend)
    }
    fn new(name: &str, needed_for: &str, status: Status, detail: impl Into<String>, mend: Mend) -> Self {
        Self { name: name.into(), status, detail: detail.into(), needed_for: needed_for.into(), mend }
    }
}
