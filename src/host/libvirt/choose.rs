//! Which libvirt a lab uses.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::embed;
use super::embed::Root;
use crate::error::{Error, Kind, Result};

/// Sockets of the system daemon: the one daemon, and the split one of newer distributions.
const SYSTEM_SOCKETS: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

/// Longest path of an embedded root, in bytes. The longest socket that libvirt makes below it is, in older versions,
/// `/lib/qemu/channel/target/domain-123-` + 20 bytes of the domain's name + `/org.qemu.guest_agent.0`, 79 bytes in all;
/// later ones are shorter. A socket's path has at most 107 bytes (`sun_path` of unix(7)).
const LONGEST_ROOT: usize = 28;

/// A libvirt connection, not yet opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// A daemon, by URI.
    Daemon(String),
    /// The QEMU driver in the worker itself, its files below this directory.
    Embedded(PathBuf),
}

impl Connection {
    /// Process id of a running domain's emulator, where this connection's files are ours to read.
    pub(crate) fn emulator(&self, domain: &str) -> Option<u32> {
        let directory = match self {
            Self::Embedded(root) => Root::pid_directory(root),
            Self::Daemon(uri) if uri == "qemu:///system" => "/run/libvirt/qemu".into(),
            Self::Daemon(uri) if uri == "qemu:///session" => {
                PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("libvirt/qemu/run")
            }
            Self::Daemon(_) => return None,
        };
        std::fs::read_to_string(directory.join(format!("{domain}.pid"))).ok()?.trim().parse().ok()
    }

    /// The connection that a URI names.
    ///
    /// # Errors
    /// Exit 2 when it is empty or holds a control character, or is an embedded one without an absolute, short root.
    pub fn from_uri(uri: &str) -> Result<Self> {
        if uri.is_empty() || uri.chars().any(char::is_control) {
            return Err(Error::input(format!("{uri:?} is not a libvirt URI"))
                .hint("such as qemu:///system, or qemu:///embed?root=/run/lab"));
        }
        let Some(query) = uri.strip_prefix("qemu:///embed") else { return Ok(Self::Daemon(uri.to_owned())) };
        let root = query.strip_prefix("?root=").filter(|root| root.starts_with('/'));
        let Some(root) = root else {
            return Err(Error::input(format!("`{uri}` names no root directory"))
                .hint("qemu:///embed?root=/run/lab, with an absolute path"));
        };
        Self::embedded(Path::new(root)).map_err(|mut error| {
            error.kind = Kind::Input; // the path was typed, not derived
            error
        })
    }

    /// The embedded driver with this root.
    ///
    /// # Errors
    /// When the path is too long, relative, or holds characters that a URI would need escaped.
    pub fn embedded(root: &Path) -> Result<Self> {
        let text = root.to_str().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if !text.starts_with('/') || !text.chars().all(plain) {
            return Err(Error::failed(format!("libvirt cannot keep its files in {root:?}"))
                .hint("an absolute path of letters, digits, `.`, `_` and `-`"));
        }
        if text.len() > LONGEST_ROOT {
            return Err(Error::failed(format!(
                "libvirt's directory {text} is too long: {} bytes, of which sockets below it leave {LONGEST_ROOT}",
                text.len()
            ))
            .hint("a shorter path, such as one below /run"));
        }
        Ok(Self::Embedded(root.to_owned()))
    }

    /// The URI that libvirt is given.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Daemon(uri) => uri.clone(),
            Self::Embedded(root) => format!("qemu:///embed?root={}", root.display()),
        }
    }
}

/// Chooses: what `--connect` says; the embedded driver where it has domains already, or in a sandbox, since a daemon lives outside of it; else the
/// system daemon where one listens, so that other libvirt programs show the guests; else the embedded driver.
/// `embed_root` is the embedded driver's directory.
///
/// # Errors
/// Exit 2 for a bad URI; exit 3 when the embedded driver is needed and QEMU or libvirt's driver for it is missing.
pub fn choose(connect: Option<&str>, embed_root: &Path, sandbox: bool) -> Result<Connection> {
    let connection = match connect {
        Some(uri) => Connection::from_uri(uri)?,
        // A daemon may have been installed or started since.
        None if embed::has_domains(embed_root) => Connection::embedded(embed_root)?,
        None if !sandbox && system_daemon_listens() => Connection::Daemon("qemu:///system".into()),
        None => Connection::embedded(embed_root)?,
    };
    if matches!(connection, Connection::Embedded(_)) {
        qemu_is_installed()?;
    }
    Ok(connection)
}

/// Whether something accepts connections on one of the sockets: a socket's file outlives a dead daemon.
#[must_use]
pub fn system_daemon_listens() -> bool {
    SYSTEM_SOCKETS.iter().any(|path| UnixStream::connect(path).is_ok())
}

fn qemu_is_installed() -> Result<()> {
    // Where distributions put it; libvirt itself looks in PATH and in libexec.
    let program = format!("qemu-system-{}", std::env::consts::ARCH);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(&program).is_file())
        || ["/usr/bin", "/usr/local/bin"]
            .iter()
            .any(|directory| Path::new(directory).join(&program).is_file())
        || Path::new("/usr/libexec/qemu-kvm").is_file();
    if found {
        return Ok(());
    }
    Err(Error::host(format!("VM guests need QEMU, and there is no {program}")).hint(super::answer::INSTALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_wins_over_everything() {
        let chosen = choose(Some("test:///default"), Path::new("/run/x"), true).unwrap();
        assert_eq!(chosen, Connection::Daemon("test:///default".into()));
    }

    #[test]
    fn a_sandbox_never_uses_a_daemon() {
        let chosen = choose(None, Path::new("/run/x"), true);
        match chosen {
            Ok(connection) => assert_eq!(connection.uri(), "qemu:///embed?root=/run/x"),
            Err(error) => assert_eq!(error.kind, Kind::Host),
        }
    }

    #[test]
    fn an_embedded_uri_is_read_back() {
        let connection = Connection::from_uri("qemu:///embed?root=/run/lab").unwrap();
        assert_eq!(connection, Connection::Embedded("/run/lab".into()));
        assert_eq!(connection.uri(), "qemu:///embed?root=/run/lab");
    }

    #[test]
    fn bad_uris_are_the_users_mistake() {
        for uri in ["", "qemu:///embed", "qemu:///embed?root=lab", "qemu:///system\n"] {
            assert_eq!(Connection::from_uri(uri).unwrap_err().kind, Kind::Input, "{uri:?}");
        }
        let long = format!("qemu:///embed?root=/{}", "x".repeat(60));
        assert!(Connection::from_uri(&long).unwrap_err().to_string().contains("too long"));
    }
}
