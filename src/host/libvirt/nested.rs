//! An ordinary uid inside a sandbox. There we are uid 0 of a user namespace that an ordinary user made; as uid 0
//! libvirt would hand files to other users and drop groups, neither of which that namespace allows. A second user
//! namespace, in which the same user has an ordinary uid, makes libvirt take its unprivileged ways.

use std::fs;

use nix::sched::CloneFlags;
use nix::unistd::{getegid, geteuid};

use crate::error::{Context, Result};

/// The uid and gid that the worker has inside; any but 0 serves.
const ORDINARY: u32 = 1000;

/// Enters the namespace. The process must have one thread only.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn enter() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)
        .context(|| "cannot give libvirt an ordinary uid in a user namespace".into())?;
    // The kernel takes a group map from an unprivileged process only once it has given up setgroups.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{ORDINARY} {uid} 1")),
        ("gid_map", format!("{ORDINARY} {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .context(|| format!("cannot set libvirt's {file} in its user namespace"))?;
    }
    Ok(())
}
