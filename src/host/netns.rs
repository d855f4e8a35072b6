//! Network namespaces: entering, making, listing, removing. A namespace is bound to a file below the run directory's
//! `netns`, as `ip netns` does, so that every tool finds it by name.

mod tour;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::error::{Context, Error, Result};
use crate::host::{labdir, run, sys};
use crate::resource::{Place, names};

pub use tour::each;

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Runs `work` on this thread while it is in `place`. Sockets opened and processes started there belong to that namespace
/// for good, since a socket keeps the namespace it was made in and a child inherits its parent thread's. Other threads
/// stay where they are: a network namespace is each thread's own.
///
/// # Errors
/// When the namespace does not exist or may not be entered.
pub fn within<T>(place: &Place, work: impl FnOnce() -> T) -> Result<T> {
    match place {
        Place::Host => Ok(work()),
        Place::Netns(name) => {
            let _back = Back::here()?;
            enter(name)?;
            Ok(work())
        }
    }
}

/// For whoever has a way back.
fn enter(name: &str) -> Result<()> {
    let namespace = open(name)?;
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)
        .context(|| "cannot enter a network namespace".into())
}

/// How often the way back is tried.
const RETURNS: usize = 10;

/// Takes this thread back into the network namespace it is in now.
struct Back(OwnedFd);

impl Back {
    /// The way back is tried before it is needed: who may make a namespace may still not be allowed to return to one that
    /// another user owns, as root of a container in the host's network.
    fn here() -> Result<Self> {
        let here = fs::File::open("/proc/thread-self/ns/net");
        let here: OwnedFd = here.context(|| "cannot open this thread's own network namespace".into())?.into();
        nix::sched::setns(&here, CloneFlags::CLONE_NEWNET).map_err(|e| {
            Error::host("may not enter network namespaces")
                .caused_by(e)
                .hint("run as root, or use `netloom up --sandbox`, which needs no privilege")
        })?;
        Ok(Self(here))
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        // The kernel may lack memory for a moment.
        let back = || {
            let done = nix::sched::setns(&self.0, CloneFlags::CLONE_NEWNET).is_ok();
            if !done {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            done
        };
        if !(0..RETURNS).any(|_| back()) {
            // In a guest's network as if it were the host's it must not go on.
            tracing::error!("cannot return from a network namespace");
            std::process::abort();
        }
    }
}

/// Opens a namespace by name.
///
/// # Errors
/// When there is none.
pub fn open(name: &str) -> Result<OwnedFd> {
    let file = fs::File::open(path(name)).context(|| format!("cannot open network namespace `{name}`"))?;
    Ok(file.into())
}

/// Whether there is a network namespace behind a name, not a mere file or a namespace of another kind.
#[must_use]
pub fn is_bound(name: &str) -> bool {
    open(name).is_ok_and(|file| sys::is_network_namespace(&file))
}

/// Opens the host's own namespace.
///
/// # Errors
/// When `/proc` is not there.
pub fn host() -> Result<OwnedFd> {
    fs::File::open("/proc/thread-self/ns/net")
        .map(OwnedFd::from)
        .context(|| "cannot open the host's network namespace".into())
}

/// Makes a namespace, with loopback left down, and binds it to its name.
///
/// # Errors
/// When the name is taken or the caller may not.
pub fn create(name: &str) -> Result<()> {
    let _kept = prepare_directory()?;
    let target = path(name);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&target)
        .context(|| format!("cannot create network namespace `{name}`"))?;
    let bound = bind_new(&target);
    if bound.is_err() {
        let _ = fs::remove_file(&target);
    }
    bound
}

/// Makes a namespace by entering it for a moment, and gives it a name.
fn bind_new(target: &Path) -> Result<()> {
    let _back = Back::here()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).context(|| "cannot create a network namespace".into())?;
    let itself = Some("/proc/thread-self/ns/net");
    nix::mount::mount(itself, target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context(|| "cannot bind a network namespace to its name".into())
}

/// Made by us: the mount alone, or the directory, too.
const MADE: &str = "netns";

fn made() -> PathBuf {
    Path::new(run::DIRECTORY).join(MADE)
}

/// The directory must be a shared mount, else a namespace made here is pinned in mount namespaces made earlier and
/// cannot be removed (the same precaution as in iproute2). As long as what is returned is held nobody unmounts it.
fn prepare_directory() -> Result<Flock<fs::File>> {
    loop {
        let kept = run::hold(FlockArg::LockShared)?;
        if shared()? {
            return Ok(kept);
        }
        drop(kept);
        let _alone = run::hold(FlockArg::LockExclusive)?;
        if !shared()? {
            mount_directory()?;
        }
    }
}

/// Makes it a shared mount; false where it is no mount point yet, or not there at all.
fn shared() -> Result<bool> {
    match share() {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(false),
        Err(e) => Err(e).context(|| format!("cannot share the mount {DIRECTORY}")),
    }
}

fn share() -> nix::Result<()> {
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    nix::mount::mount(None::<&str>, DIRECTORY, None::<&str>, flags, None::<&str>)
}

/// That it is our doing is written down first.
fn mount_directory() -> Result<()> {
    let before = Path::new(DIRECTORY).exists();
    labdir::write(&made(), if before { "mount" } else { "directory" })?;
    fs::create_dir_all(DIRECTORY).context(|| format!("cannot create {DIRECTORY}"))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    nix::mount::mount(Some(DIRECTORY), DIRECTORY, None::<&str>, flags, None::<&str>)
        .context(|| format!("cannot make {DIRECTORY} a mount point"))?;
    share().context(|| format!("cannot share the mount {DIRECTORY}"))
}

/// Takes the mount away again, if it was ours and nothing is in it. Whoever calls holds [`run::hold`] alone.
pub(crate) fn tidy() {
    let Ok(what) = fs::read_to_string(made()) else { return };
    let left = list();
    if left.iter().any(|name| names::read_netns(name).is_some()) {
        return;
    }
    // Somebody else who has a namespace there would have made the mount, had it not been there.
    if left.is_empty() {
        if nix::mount::umount2(DIRECTORY, MntFlags::UMOUNT_NOFOLLOW) == Err(nix::errno::Errno::EBUSY) {
            return;
        }
        if what == "directory" {
            let _ = fs::remove_dir(DIRECTORY);
        }
    }
    let _ = fs::remove_file(made());
}

/// Removes a namespace's name, and with it, once no process is left inside, the namespace. Fine when it is gone.
///
/// # Errors
/// When the caller may not.
pub fn delete(name: &str) -> Result<()> {
    let target = path(name);
    match nix::mount::umount2(&target, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(e) => {
            return Err(Error::failed(format!("cannot remove network namespace `{name}`")).caused_by(e));
        }
    }
    match fs::remove_file(&target) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::failed(format!("cannot remove network namespace `{name}`")).caused_by(e))
        }
        _ => Ok(()),
    }
}

/// Names of all namespaces, sorted.
#[must_use]
pub fn list() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(DIRECTORY)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
