//! Going inside: this program runs itself again within the sandbox and hands the outcome on.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::interrupts::{ENDING, Interrupts};
use super::keeper::NAMESPACES;
use super::{INSIDE, process, search_path};
use crate::error::{Context, Error, Result};
use crate::host::labdir::{self, SandboxInfo};
use crate::host::{service, sys};

/// Whether this process runs inside a sandbox.
#[must_use]
pub fn inside() -> bool {
    inside_of().is_some()
}

/// The directory of the lab whose sandbox this process runs in; `None` outside of any. It asks process 1 of our own
/// pid namespace, since an environment variable also reaches processes that are not inside.
#[must_use]
pub fn inside_of() -> Option<PathBuf> {
    process::lab_of_keeper(Path::new("/proc/1"))
}

/// Runs this program again inside the sandbox, with the same arguments, working directory and standard streams, and
/// returns its exit code (128 and the number of the signal that ended it). Signals sent to this process are passed
/// on; should it be killed, the one inside gets SIGTERM.
///
/// To be called before any thread is started: a process with threads cannot change its user or mount namespace. The
/// process stays in the namespaces, so there is little to do afterwards but to exit.
///
/// # Errors
/// Exit 4 when the sandbox is gone or is another user's, exit 130 when a signal came before the start.
pub fn enter(info: &SandboxInfo) -> Result<u8> {
    let keeper = process::open(info)?.ok_or_else(|| {
        Error::failed("the sandbox has ended").hint("build the lab anew: `netloom up --sandbox`")
    })?;
    let program = service::own_program()?;
    let state = labdir::state_directory()?;
    let here = WorkingDirectory::note()?;
    move_in(info, &keeper)?;
    here.restore()?;
    // Kept back before the start, so that none is lost. One that is waiting came before there was a child to get it.
    let interrupts = Interrupts::listen()?;
    if interrupts.came() {
        return Err(interrupts.answer());
    }
    let signals = SigSet::from_iter(ENDING.into_iter().chain([Signal::SIGCHLD]));
    let listening = || "cannot wait for signals".to_owned();
    let mut mask = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).context(listening)?;
    signals.iter().for_each(|signal| mask.remove(signal));
    let listener = SignalFd::new(&signals).context(listening)?;
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("NETLOOM_STATE_DIR", state)
        .env("PATH", search_path());
    let child = sys::tie_to_this_thread(&mut command, mask)
        .spawn()
        .context(|| "cannot run inside the sandbox".into())?;
    follow(&child, &listener)
}

fn move_in(info: &SandboxInfo, keeper: &OwnedFd) -> Result<()> {
    let user = |who: &str| fs::read_link(format!("/proc/{who}/ns/user"));
    let refused = |e: &dyn std::fmt::Display| {
        Error::failed(format!("cannot enter the sandbox, process {}", info.pid))
            .caused_by(e)
            .hint("run as the user who made the lab")
    };
    let theirs = user(&info.pid.to_string()).map_err(|e| refused(&e))?;
    let ours = user("self").map_err(|e| refused(&e))?;
    // Entering the user namespace one is in already is refused.
    let more = if theirs == ours { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    let me = nix::unistd::geteuid();
    if me.is_root() && process::user(Path::new(&format!("/proc/{}", info.pid))) != Some(me.as_raw()) {
        // What runs inside is the user's to choose, and must not have root's groups.
        nix::unistd::setgroups(&[]).map_err(|e| refused(&e))?;
    }
    setns(keeper.as_fd(), NAMESPACES | more).map_err(|e| refused(&e))?;
    if !nix::unistd::geteuid().is_root() {
        // Root of the host came into the user namespace of an ordinary user, where its own id has no name.
        nix::unistd::setgid(0.into()).map_err(|e| refused(&e))?;
        nix::unistd::setuid(0.into()).map_err(|e| refused(&e))?;
    }
    Ok(())
}

/// The working directory, which a change of the mount namespace resets to the root.
struct WorkingDirectory {
    path: Option<PathBuf>,
    opened: OwnedFd,
}

impl WorkingDirectory {
    fn note() -> Result<Self> {
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(".")
            .context(|| "cannot open the working directory".into())?;
        Ok(Self { path: std::env::current_dir().ok(), opened: opened.into() })
    }

    /// By its path, where that leads to the same directory inside; else (below a private mount) by the descriptor,
    /// so that relative paths mean the same in any case.
    fn restore(&self) -> Result<()> {
        let identity = |fd: &OwnedFd| nix::sys::stat::fstat(fd).map(|s| (s.st_dev, s.st_ino)).ok();
        if let Some(path) = &self.path
            && std::env::set_current_dir(path).is_ok()
            && Self::note().is_ok_and(|now| identity(&now.opened) == identity(&self.opened))
        {
            return Ok(());
        }
        nix::unistd::fchdir(&self.opened).context(|| "cannot return to the working directory".into())
    }
}

/// Waits for the child and passes signals on.
fn follow(child: &Child, listener: &SignalFd) -> Result<u8> {
    let failed = || "cannot wait for the command inside the sandbox".to_owned();
    let pid = Pid::from_raw(i32::try_from(child.id()).context(failed)?);
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)).context(failed)? {
            WaitStatus::Exited(_, code) => return u8::try_from(code).context(failed),
            WaitStatus::Signaled(_, signal, _) => return u8::try_from(128 + signal as i32).context(failed),
            _ => {}
        }
        let came = match listener.read_signal() {
            Err(Errno::EINTR) => continue,
            other => other.context(failed)?,
        };
        let Some(came) = came else { continue };
        // A key press at the terminal (sent by the kernel) has reached the child already: it is in the same group.
        let from_terminal = came.ssi_code == libc::SI_KERNEL;
        let signal = i32::try_from(came.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        if let Some(signal) = signal.filter(|signal| *signal != Signal::SIGCHLD && !from_terminal) {
            let _ = kill(pid, signal);
        }
    }
}
