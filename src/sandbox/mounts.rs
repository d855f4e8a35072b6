//! The file system as seen inside: the host's, with a private `/run`, `/proc` and `/sys`.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::world;
use crate::error::{Context, Error, Result};

const RUN: &str = "/run";

/// Programs and libraries live there on NixOS, removable media on desktops.
const KEPT: [&str; 5] =
    ["/run/current-system", "/run/booted-system", "/run/wrappers", "/run/opengl-driver", "/run/media"];

/// Something below `/run` that must stay in reach.
enum Kept {
    Tree(PathBuf, OwnedFd, bool),
    Link(PathBuf, PathBuf),
}

/// Hides the sockets of the host's daemons behind an empty `/run` (whatever of `keep` lies there stays in reach), and
/// makes `/proc` and `/sys` show the new namespaces.
pub(super) fn prepare(keep: &[PathBuf]) -> Result<()> {
    let none = None::<&str>;
    // A file system that the host unmounts goes here, too; nothing we mount shows on the host.
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
        .context(|| "cannot separate the sandbox's mounts".into())?;
    let kept: Vec<Kept> =
        KEPT.iter().map(PathBuf::from).chain(keep.iter().cloned()).filter_map(hold).collect();
    let resolver = fs::canonicalize("/etc/resolv.conf").ok().filter(|path| path.starts_with(RUN));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("netloom"), RUN, Some("tmpfs"), flags, Some("mode=0755"))
        .context(|| format!("cannot mount a private {RUN}"))?;
    for item in kept {
        put_back(&item)?;
    }
    furnish(resolver.as_deref())?;
    mount(Some("proc"), "/proc", Some("proc"), flags | MsFlags::MS_NOEXEC, none).map_err(|e| {
        Error::host("cannot mount a private /proc, which a sandbox needs")
            .caused_by(e)
            .hint("a container must not mask parts of /proc: `--security-opt systempaths=unconfined`, or `--privileged`")
    })?;
    // Where the host's /sys is read-only, only a read-only one may be mounted. Without any, /sys/class/net shows the
    // host's links; netloom itself does not read it.
    let flags = flags | MsFlags::MS_NOEXEC;
    let sys = [flags, flags | MsFlags::MS_RDONLY]
        .into_iter()
        .any(|flags| mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none).is_ok());
    if !sys {
        eprintln!("cannot mount a private /sys: /sys/class/net shows the links of the host");
    }
    Ok(())
}

fn hold(path: PathBuf) -> Option<Kept> {
    let metadata = fs::symlink_metadata(&path).ok()?;
    if metadata.is_symlink() && path.starts_with(RUN) {
        return fs::read_link(&path).ok().map(|target| Kept::Link(path, target));
    }
    let path = fs::canonicalize(&path).ok().filter(|path| path.starts_with(RUN) && path != Path::new(RUN))?;
    let opened =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(&path).ok()?;
    Some(Kept::Tree(path, opened.into(), metadata.is_dir()))
}

fn put_back(item: &Kept) -> Result<()> {
    let (Kept::Tree(path, ..) | Kept::Link(path, _)) = item;
    let failed = || format!("cannot keep {} in reach", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(failed)?;
    }
    match item {
        Kept::Link(_, target) => match std::os::unix::fs::symlink(target, path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e).context(failed),
            _ => Ok(()),
        },
        Kept::Tree(_, opened, directory) => {
            if *directory {
                fs::create_dir_all(path).context(failed)?;
            } else if !path.exists() {
                fs::File::create(path).context(failed)?;
            }
            // With the mounts below it: a user namespace may not uncover what a mount hides.
            let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(source.as_str()), path, None::<&str>, flags, None::<&str>).context(failed)
        }
    }
}

/// What programs expect below `/run`.
fn furnish(resolver: Option<&Path>) -> Result<()> {
    let failed = |path: &Path| format!("cannot create {}", path.display());
    let make = |path: &Path, mode: u32| {
        fs::DirBuilder::new().recursive(true).mode(mode).create(path).context(|| failed(path))
    };
    make(Path::new("/run/lock"), 0o755)?;
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    if let Some(path) = runtime.filter(|path| path.starts_with(RUN)) {
        make(&path, 0o700)?;
    }
    if let Some(path) = resolver {
        if let Some(parent) = path.parent() {
            make(parent, 0o755)?;
        }
        let text = format!("nameserver {}\n", world::ROUTER_ADDRESSES[0]);
        fs::write(path, text).context(|| failed(path))?;
    }
    Ok(())
}
