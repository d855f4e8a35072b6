//! An ordinary uid for libvirt. In a sandbox that an ordinary user made we are uid 0 of a user namespace, and as uid 0
//! libvirt would hand files to other users and drop groups, neither of which that namespace allows. As the real root it
//! would want a user of its own for QEMU, which only the daemon's package makes, and leave cgroups and files behind. A
//! further user namespace, in which the same user has an ordinary uid, makes it take its unprivileged ways in both
//! cases; and QEMU has no power at all over the host.

use std::fs;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{getegid, geteuid};

use crate::error::{Context, Result};

/// The uid and gid that the worker has inside; any but 0 serves.
const ORDINARY: u32 = 1000;

/// Whether the caller is, or seems to be, root, so that the namespace makes a difference.
pub(super) fn is_needed() -> bool {
    geteuid().is_root()
}

/// Enters the namespace. The process must have one thread only. The inner error says that the kernel gives out no such
/// namespace, and that nothing has changed.
///
/// # Errors
/// When the namespace is entered and cannot be set up.
pub(super) fn enter() -> Result<Result<(), Errno>> {
    let (uid, gid) = (geteuid(), getegid());
    if let Err(errno) = nix::sched::unshare(CloneFlags::CLONE_NEWUSER) {
        return Ok(Err(errno));
    }
    // The kernel takes a group map from an unprivileged process only once it has given up setgroups.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{ORDINARY} {uid} 1")),
        ("gid_map", format!("{ORDINARY} {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .context(|| format!("cannot set libvirt's {file} in its user namespace"))?;
    }
    Ok(Ok(()))
}
