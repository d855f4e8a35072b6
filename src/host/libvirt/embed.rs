//! The embedded driver's directory: its settings, its lock, and QEMU's capabilities, which are probed once for all
//! labs and not once for each.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Result};
use crate::host::{labdir, run};

/// How long another opener of the same root is waited for before the client is told, which then looks for its socket.
const WAIT_FOR_LOCK: Duration = Duration::from_millis(100);

/// File of the lock, and in it the holder's process id.
const LOCK: &str = "worker.lock";

/// File that says that we made the root, not the user: only then may it go again.
const MADE: &str = "made-by-netloom";

/// Driver settings for all users: there is no virtlogd to write logs, no udev to watch a private `/dev`, nothing to
/// confine against each other within one lab; and file owners stay as they are.
const SETTINGS: &str = "stdio_handler = \"file\"\nnamespaces = []\nsecurity_driver = \"none\"\n\
    security_default_confined = 0\nremember_owner = 0\ndynamic_ownership = 0\n";

/// Further settings for root: QEMU runs as root without any capability (libvirt takes them all away), since the lab's
/// files are root's; and no cgroups, which libvirt would leave behind.
const SETTINGS_OF_ROOT: &str = "user = \"root\"\ngroup = \"root\"\ncgroup_controllers = []\n";

/// What libvirt's library makes outside of its root when root runs it, even where no daemon is installed. Closed to
/// others as it makes it, the directory would stand in a later daemon's way.
const RUN: &str = "/run/libvirt";
const LEFT_IN_RUN: [&str; 4] = ["common/system.token", "common", "hostdevmgr", ""];

/// An embedded root that this process holds until the value is dropped.
pub(super) struct Root {
    path: PathBuf,
    capabilities: Option<PathBuf>,
    /// Whether [`RUN`] was there before.
    run_existed: bool,
    /// Whether we made the root.
    ours: bool,
    _lock: Flock<fs::File>,
}

/// What came of taking a root.
pub(super) enum Taken {
    Root(Root),
    Held {
        /// Process id.
        by: String,
    },
}

/// Where the holder of a root lets other clients in.
pub(super) fn socket(root: &Path) -> PathBuf {
    root.join("worker.sock")
}

/// The process that holds a root, or held it last.
pub(super) fn holder(root: &Path) -> Option<u32> {
    fs::read_to_string(root.join(LOCK)).ok()?.trim().parse().ok()
}

impl Root {
    /// Takes the root and prepares it. `capabilities` is a directory that all roots of this user share.
    pub(super) fn take(path: &Path, capabilities: Option<&Path>) -> Result<Taken> {
        let (lock, ours) = loop {
            let new = !path.exists();
            labdir::make_directory(path)?;
            match lock(path)? {
                Lock::Taken(lock) => break (lock, new || path.join(MADE).exists()),
                Lock::Held { by } => return Ok(Taken::Held { by }),
                Lock::Gone => {}
            }
        };
        if ours {
            labdir::write(&path.join(MADE), "")?;
        }
        let settings = path.join("etc/qemu.conf");
        if ours || !settings.exists() {
            let of_root = if nix::unistd::geteuid().is_root() { SETTINGS_OF_ROOT } else { "" };
            labdir::write(&settings, &format!("{SETTINGS}{of_root}"))?;
        }
        let root = Self {
            path: path.to_owned(),
            capabilities: capabilities.map(Path::to_owned),
            run_existed: Path::new(RUN).exists(),
            ours,
            _lock: lock,
        };
        if let Some(shared) = &root.capabilities {
            copy_capabilities(shared, &root.own_capabilities());
        }
        Ok(Taken::Root(root))
    }

    /// Where this worker lets other clients in.
    pub(super) fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// Where libvirt keeps a running domain's process id.
    pub(super) fn pid_directory(path: &Path) -> PathBuf {
        path.join("run/qemu")
    }

    /// Keeps what libvirt found out about QEMU for other roots.
    pub(super) fn share_capabilities(&self) {
        if let Some(shared) = &self.capabilities {
            copy_capabilities(&self.own_capabilities(), shared);
        }
    }

    /// Whether libvirt will have to probe QEMU, which takes seconds.
    pub(super) fn is_cold(&self) -> bool {
        !fs::read_dir(self.own_capabilities()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The last thing to do with a root: keeps what is worth it, and removes what nobody needs any more.
    pub(super) fn leave(&self) {
        self.share_capabilities();
        self.clean_run();
        if self.ours && !has_domains(&self.path) {
            let _ = fs::remove_dir_all(&self.path);
            if self.path.parent() == Some(Path::new(run::DIRECTORY)) {
                let _ = run::tidy();
            }
        }
    }

    /// Removes what libvirt left outside of the root, if it was not there before and nothing else is in it.
    fn clean_run(&self) {
        if self.run_existed {
            return;
        }
        let directory = Path::new(RUN);
        let foreign = |name: &std::ffi::OsStr| name != "common" && name != "hostdevmgr";
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        if entries.into_iter().any(|entry| foreign(&entry.file_name())) {
            return; // a daemon has begun meanwhile
        }
        for name in LEFT_IN_RUN {
            let path = directory.join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)); // only an empty directory goes
        }
    }

    fn own_capabilities(&self) -> PathBuf {
        self.path.join("cache/qemu/capabilities")
    }
}

/// Whether an embedded root has domains, defined or running: libvirt keeps each as a file.
pub(super) fn has_domains(root: &Path) -> bool {
    let is_domain = |entry: fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "xml");
    ["etc/qemu", "run/qemu"]
        .iter()
        .any(|place| fs::read_dir(root.join(place)).is_ok_and(|entries| entries.flatten().any(is_domain)))
}

enum Lock {
    Taken(Flock<fs::File>),
    Held {
        /// Process id.
        by: String,
    },
    /// Its holder removed the root.
    Gone,
}

/// Takes the lock. It is let go when the holder ends, however it ends.
fn lock(root: &Path) -> Result<Lock> {
    let path = root.join(LOCK);
    let failed = || format!("cannot open {}", path.display());
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o644)
        .open(&path)
        .context(failed)?;
    let started = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let taken = lock.metadata().context(failed)?.ino();
                if fs::metadata(&path).map(|now| now.ino()).ok() != Some(taken) {
                    return Ok(Lock::Gone);
                }
                lock.set_len(0).context(failed)?;
                write!(&mut *lock, "{}", std::process::id()).context(failed)?;
                return Ok(Lock::Taken(lock));
            }
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, e)) => return Err(Error::failed(failed()).caused_by(e)),
        }
        if started.elapsed() > WAIT_FOR_LOCK {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Ok(Lock::Held { by: if holder.is_empty() { "unknown".into() } else { holder } });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Copies capability files that are not there or differ. Losing this race or failing costs time only: libvirt checks
/// each file against the QEMU it finds and probes again where they do not match.
pub(crate) fn copy_capabilities(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        if fs::read_to_string(&target).is_ok_and(|present| present == text) {
            continue;
        }
        if let Err(error) = labdir::write(&target, &text) {
            tracing::debug!("QEMU's capabilities are not kept: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_holder() {
        let root = std::env::temp_dir().join(format!("netloom-embed-{}", std::process::id()));
        let first = Root::take(&root, None).unwrap();
        assert_eq!(holder(&root), Some(std::process::id()));
        let Taken::Held { by } = Root::take(&root, None).unwrap() else { panic!("two holders") };
        assert_eq!(by, std::process::id().to_string());
        drop(first);
        assert!(matches!(Root::take(&root, None).unwrap(), Taken::Root(_)));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn only_a_root_of_ours_without_domains_goes() {
        let base = std::env::temp_dir().join(format!("netloom-roots-{}", std::process::id()));
        let take = |root: &Path| match Root::take(root, None).unwrap() {
            Taken::Root(root) => root,
            Taken::Held { by } => panic!("held by {by}"),
        };
        let (users, ours) = (base.join("users"), base.join("ours"));
        fs::create_dir_all(users.join("etc")).unwrap();
        fs::write(users.join("etc/qemu.conf"), "user = \"me\"\n").unwrap();
        take(&users).leave();
        assert_eq!(fs::read_to_string(users.join("etc/qemu.conf")).unwrap(), "user = \"me\"\n");

        let root = take(&ours);
        fs::create_dir_all(ours.join("etc/qemu")).unwrap();
        fs::write(ours.join("etc/qemu/pc.xml"), "").unwrap();
        root.leave();
        assert!(ours.exists());
        fs::remove_file(ours.join("etc/qemu/pc.xml")).unwrap();
        root.leave();
        assert!(!ours.exists() && base.exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
