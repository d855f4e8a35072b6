//! A private world for everything that is measured: network, mount and process namespaces that go, with all that is in
//! them, when the program ends. Process 1 of it is this program, which reaps orphans at once: a process 1 that takes its
//! time would be measured as well.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};

use crate::Result;

const STAGE: &str = "NETLOOM_BENCH_STAGE";

/// Where everything is written that need not last: memory.
pub(crate) const WORK: &str = "/run/bench";

/// Enters the world. `Some` is the exit code of what ran inside, for the processes outside of it.
pub(crate) fn enter() -> Result<Option<i32>> {
    match env::var(STAGE).as_deref() {
        Err(_) => outside().map(Some),
        Ok("first") => first_process().map(Some),
        Ok(_) => Ok(None),
    }
}

fn again(stage: &str, command: &mut Command) -> Result<Command> {
    command.arg(env::current_exe()?).args(env::args_os().skip(1)).env(STAGE, stage);
    Ok(std::mem::replace(command, Command::new("true")))
}

fn outside() -> Result<i32> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    unshare.args(["--propagation", "private"]);
    // `unshare` waits deaf to signals. A pipe that breaks when this process goes, whatever ends it, is what ends the world.
    let mut child = again("first", &mut unshare)?.stdin(Stdio::piped()).spawn()?;
    let pipe = child.stdin.take();
    let status = child.wait()?;
    drop(pipe);
    Ok(status.code().unwrap_or(1))
}

fn first_process() -> Result<i32> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(130); // and with process 1 the kernel ends all others
    });
    let images = env::var_os("NETLOOM_STATE_DIR").map(|state| PathBuf::from(state).join("images"));
    let images = images.filter(|images| images.is_dir());
    let held = images.as_deref().map(fs::File::open).transpose()?;
    over("/run")?;
    for directory in ["netns", "netloom", "lock", "libvirt", "bench", "bench/state"] {
        fs::create_dir_all(Path::new("/run").join(directory))?;
    }
    if let Some(held) = held {
        let inside = Path::new(WORK).join("state/images");
        fs::create_dir(&inside)?;
        let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
        mount(Some(source.as_str()), &inside, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if !up.success() {
        return Err("`ip link set lo up` failed".into());
    }
    let mut itself = Command::new("env");
    let mut itself = again("inside", &mut itself)?;
    let worker = itself
        .env("NETLOOM_STATE_DIR", Path::new(WORK).join("state"))
        .env("TMPDIR", WORK)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?
        .id();
    loop {
        match wait()? {
            WaitStatus::Exited(pid, code) if pid.as_raw().cast_unsigned() == worker => return Ok(code),
            WaitStatus::Signaled(pid, ..) if pid.as_raw().cast_unsigned() == worker => return Ok(1),
            _ => {}
        }
    }
}

/// Covers a directory with an empty one in memory.
pub(crate) fn over(directory: &str) -> Result<()> {
    mount(Some("none"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    Ok(())
}

/// Links other than the loopback, and names of namespaces, that are there.
pub(crate) fn objects() -> Result<(usize, usize)> {
    let links = fs::read_to_string("/proc/thread-self/net/dev")?.lines().skip(2).count() - 1;
    Ok((links, fs::read_dir("/run/netns")?.count()))
}
