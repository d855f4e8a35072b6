//! The keeper: making the namespaces, and the life of process 1 inside.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::report::Report;
use super::{INIT_VERB, mounts, process, refusal, world};
use crate::error::{Context, Error, Result};
use crate::host::labdir::SandboxInfo;
use crate::host::service;

/// What a sandbox has of its own, besides the user namespace.
pub(super) const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// The hidden verb `__keeper LABDIR`: makes the namespaces, starts process 1 in them and ends. Nobody waits for
/// process 1 then but the system's own process 1: a parent of ours would be one more process that can be killed.
#[must_use]
pub fn keeper_main(args: &[OsString]) -> u8 {
    close_inherited();
    let _ = nix::unistd::setsid();
    let _ = SigSet::empty().thread_set_mask();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let started = lab_directory(args).and_then(|dir| {
        make_namespaces()?;
        Command::new(service::own_program()?)
            .arg(INIT_VERB)
            .arg(dir)
            .current_dir("/")
            .spawn()
            .map_err(|e| refusal::error("start a process in new namespaces", e))
    });
    finish(started.map(drop))
}

/// The hidden verb `__sandbox-init LABDIR`: process 1 of a sandbox.
#[must_use]
pub fn init_main(args: &[OsString]) -> u8 {
    match lab_directory(args).and_then(|dir| build(&dir)) {
        Ok(stand_ins) => live(&stand_ins),
        Err(error) => finish(Err(error)),
    }
}

fn finish(result: Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprint!("{}", error.report());
            let _ = Report::failed(&error).send();
            error.kind.exit_code()
        }
    }
}

fn lab_directory(args: &[OsString]) -> Result<PathBuf> {
    args.first().map(PathBuf::from).ok_or_else(|| Error::input("the lab's directory is missing"))
}

/// Closes what the caller's shell left open, so that a keeper holds no lock, pipe or terminal of it. Only standard
/// streams are ours this early.
pub(crate) fn close_inherited() {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|number| *number > 2) {
        let _ = nix::unistd::close(descriptor);
    }
}

fn make_namespaces() -> Result<()> {
    let refused = |e: Errno| refusal::error("make namespaces", e);
    if nix::unistd::geteuid().is_root() {
        match unshare(NAMESPACES) {
            Err(Errno::EPERM) => {} // root without capabilities, as in a container
            other => return other.map_err(refused),
        }
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refusal::user_namespace)?;
    // user_namespaces(7): without privilege the only map allowed is one's own id, and setgroups must be off.
    let maps = [
        ("setgroups", "deny".into()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| refusal::error("become root of a user namespace", e))?;
    }
    unshare(NAMESPACES).map_err(refused)
}

/// Builds everything and reports it; returns once the creator has recorded the sandbox.
fn build(dir: &Path) -> Result<Vec<world::StandIn>> {
    let (recorded, go_ahead) = mpsc::channel();
    std::thread::Builder::new()
        .name("creator".into())
        .spawn(move || match std::io::stdin().lock().read(&mut [0]) {
            Ok(1) => drop(recorded.send(())),
            // The creator is gone, or gave up. Ending process 1 ends all there is.
            _ => std::process::exit(i32::from(crate::error::Kind::Interrupted.exit_code())),
        })
        .context(|| "cannot start a thread".into())?;
    let info = seen_from_outside()?;
    // The state directory with all labs and images is two above the lab's. (Asked for here, it would be root's.)
    let state = dir.ancestors().nth(2).unwrap_or(dir);
    mounts::prepare(&[state.to_owned(), service::own_program()?])?;
    let stand_ins = world::build()?;
    Report::Ready(info).send()?;
    go_ahead.recv().context(|| "the creator of the sandbox is gone".into())?;
    leave_standard_streams()?;
    Ok(stand_ins)
}

/// Our own number outside: `/proc` is still the one of the namespace we came from.
fn seen_from_outside() -> Result<SandboxInfo> {
    let failed = || "cannot read /proc/self".to_owned();
    let link = fs::read_link("/proc/self").context(failed)?;
    let pid = link.to_string_lossy().parse().context(failed)?;
    let (_, started) = process::stat("self").ok_or_else(|| Error::failed(failed()))?;
    Ok(SandboxInfo { pid, started })
}

/// The pipes to the creator are done with.
fn leave_standard_streams() -> Result<()> {
    let failed = || "cannot let go of the creator's pipes".to_owned();
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").context(failed)?;
    nix::unistd::dup2_stdin(&null).context(failed)?;
    nix::unistd::dup2_stdout(&null).context(failed)
}

/// Reaps every process that ends, at once, until SIGTERM. Of other signals process 1 has nothing to fear: without a
/// handler the kernel does not deliver them.
fn live(stand_ins: &[world::StandIn]) -> u8 {
    // Blocked signals are kept for process 1 even without a handler. Not blocked any earlier, since children inherit
    // the mask.
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    let mut came = signals.thread_block().map(|()| Signal::SIGCHLD);
    loop {
        match came {
            Ok(Signal::SIGTERM) => return 0,
            Ok(_) | Err(Errno::EINTR) => reap(stand_ins),
            Err(e) => {
                eprintln!("cannot wait for signals: {e}");
                return crate::error::Kind::Failed.exit_code();
            }
        }
        came = signals.wait();
    }
}

fn reap(stand_ins: &[world::StandIn]) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let Some(pid) = status.pid().filter(|_| status != WaitStatus::StillAlive) else { break };
        if let Some(gone) = stand_ins.iter().find(|stand_in| stand_in.pid == pid.as_raw()) {
            eprintln!("{} ended: {status:?}", gone.name);
        }
    }
}
