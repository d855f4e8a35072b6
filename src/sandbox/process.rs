//! The keeper as seen from outside: who it is, whether it lives, ending it.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;

use super::INIT_VERB;
use crate::error::{Context, Error, Result};
use crate::host::labdir::SandboxInfo;
use crate::host::sys;

/// How long a killed keeper may take to go. The kernel ends and reaps everything inside first.
const PATIENCE: Duration = Duration::from_secs(20);

/// State letter and start time of a process (`/proc/PID/stat`, fields 3 and 22). The name in field 2 may hold
/// anything, so fields are counted from its closing bracket.
pub(super) fn stat(pid: &str) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Whether the sandbox still runs. A keeper that has ended but was not yet reaped does not.
#[must_use]
pub fn alive(info: &SandboxInfo) -> bool {
    stat(&info.pid.to_string())
        .is_some_and(|(state, started)| started == info.started && !matches!(state, 'Z' | 'X'))
}

/// A descriptor of the keeper; `None` when it is gone.
pub(super) fn open(info: &SandboxInfo) -> Result<Option<OwnedFd>> {
    let process = match sys::open_process(info.pid) {
        Ok(process) => process,
        Err(Errno::ESRCH) => return Ok(None),
        Err(e) => {
            return Err(Error::failed(format!("cannot open the sandbox's process {}", info.pid)).caused_by(e));
        }
    };
    // Checked after the open: the number may have passed to another process before, but not since.
    Ok(Some(process).filter(|_| alive(info)))
}

/// A sandbox that can be ended even after this process has [entered](super::enter) it, where its number means another
/// process or none.
#[derive(Debug)]
pub struct Held {
    pid: i32,
    process: Option<OwnedFd>,
}

/// Takes hold of a sandbox before entering it.
///
/// # Errors
/// When the kernel refuses.
pub fn hold(info: &SandboxInfo) -> Result<Held> {
    Ok(Held { pid: info.pid, process: open(info)? })
}

/// Ends a sandbox with everything inside, and waits until it is gone. Fine when it is. Not from inside: see [`hold`].
///
/// # Errors
/// When it belongs to another user or does not go.
pub fn stop(info: &SandboxInfo) -> Result<()> {
    hold(info)?.stop()
}

impl Held {
    /// Ends the sandbox with everything inside, and waits until it is gone. Fine when it is.
    ///
    /// # Errors
    /// When it belongs to another user or does not go.
    pub fn stop(self) -> Result<()> {
        let Some(process) = self.process else { return Ok(()) };
        let failed = || format!("cannot end the sandbox, process {}", self.pid);
        match sys::signal_process(&process, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e @ Errno::EPERM) => {
                return Err(Error::failed(failed()).caused_by(e).hint("run as the user who made the lab"));
            }
            Err(e) => return Err(Error::failed(failed()).caused_by(e)),
        }
        // Readable once the process has ended, reaped or not.
        if wait_readable(&process, PATIENCE).context(failed)? {
            return Ok(());
        }
        Err(Error::failed(failed())
            .hint("something inside cannot be killed: look for processes in state D or T"))
    }
}

/// Waits until a descriptor is readable; false when `timeout` has passed.
pub(super) fn wait_readable(fd: &impl AsFd, timeout: Duration) -> Result<bool, Errno> {
    first_readable(&[fd.as_fd()], timeout).map(|found| found.is_some())
}

/// Waits until one of several descriptors is readable and tells which, the last one first; `None` when `timeout` has
/// passed.
pub(super) fn first_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> Result<Option<usize>, Errno> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match nix::poll::poll(&mut polled, timeout) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(_) => return Ok(polled.iter().rposition(|fd| fd.any() == Some(true))),
        }
    }
}

/// Every sandbox of the calling user, with the directory of its lab, from the processes themselves: no record is needed
/// to find one. For root also those of other users, each with a lab in a directory of its user's: anyone may have a
/// process that says it keeps a lab of root's.
#[must_use]
pub fn list() -> Vec<(std::path::PathBuf, SandboxInfo)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(directory) = lab_of_trusted(&entry.path()) else { continue };
        let Some((state, started)) = stat(&pid.to_string()) else { continue };
        if !matches!(state, 'Z' | 'X') {
            found.push((directory, SandboxInfo { pid, started }));
        }
    }
    found.sort_by_key(|(_, info)| (info.started, info.pid));
    found
}

/// Whether a recorded sandbox runs and is that of the lab with this directory. A record may be wrong, and whatever process
/// it names would be entered, and ended.
#[must_use]
pub fn keeps(info: &SandboxInfo, lab: &Path) -> bool {
    alive(info) && lab_of_trusted(Path::new(&format!("/proc/{}", info.pid))).is_some_and(|kept| kept == lab)
}

/// The lab directory of a keeper that may keep it.
fn lab_of_trusted(process: &Path) -> Option<std::path::PathBuf> {
    let me = nix::unistd::geteuid();
    let user = user(process).filter(|user| me.is_root() || *user == me.as_raw())?;
    lab_of_keeper(process).filter(|directory| user == me.as_raw() || owner(directory) == Some(user))
}

/// Whose process it is, by its effective uid: a process can make its directory in `/proc` root's.
pub(super) fn user(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok())
}

/// Who owns a directory, or the closest one above it that is there.
fn owner(directory: &Path) -> Option<u32> {
    directory.ancestors().find_map(|path| fs::symlink_metadata(path).ok()).map(|found| found.uid())
}

/// The sandbox of the lab with this directory, found without its record.
#[must_use]
pub fn find(lab: &Path) -> Option<SandboxInfo> {
    list().into_iter().find(|(directory, _)| directory == lab).map(|(_, info)| info)
}

/// The lab directory of a keeper, from its command line; `None` for any other process.
pub(super) fn lab_of_keeper(process: &Path) -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let command = fs::read(process.join("cmdline")).ok()?;
    let mut arguments = command.split(|byte| *byte == 0).skip(1);
    if arguments.next() != Some(INIT_VERB.as_bytes()) {
        return None;
    }
    // A process 1 of a pid namespace below ours: its last number is 1.
    let status = fs::read_to_string(process.join("status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    if numbers.split_ascii_whitespace().next_back() != Some("1") {
        return None;
    }
    let directory = arguments.next().filter(|argument| !argument.is_empty())?;
    Some(std::ffi::OsStr::from_bytes(directory).into())
}
