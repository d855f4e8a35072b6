//! Making a sandbox: starts the keeper and waits until all inside answers.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::interrupts::Interrupts;
use super::process::{self, first_readable};
use super::report::Report;
use super::{KEEPER_VERB, LOG, search_path};
use crate::error::{Context, Error, Result};
use crate::host::labdir::{LabDir, SandboxInfo};
use crate::host::{files, service};

/// How long building may take: a fraction of a second on an idle machine, many on an emulated and busy one.
const PATIENCE: Duration = Duration::from_secs(90);

/// Makes the lab's sandbox and records it in the lab's directory. When this returns, the world around the host is
/// built and answers. Should the calling process die before, the sandbox ends by itself.
///
/// # Errors
/// Exit 3 when the host lacks what it needs (user namespaces, dnsmasq), exit 4 when the lab has one already or
/// building fails, exit 130 when interrupted; no sandbox remains then, and the lab's directory is left to the caller.
pub fn create(dir: &LabDir) -> Result<SandboxInfo> {
    if let Some(old) = dir
        .info()?
        .sandbox
        .filter(|info| process::keeps(info, dir.path()))
        .or_else(|| process::find(dir.path()))
    {
        return Err(Error::failed(format!("lab `{}` has a sandbox already, process {}", dir.lab(), old.pid))
            .hint(format!("remove it first: `netloom down {}`", dir.lab())));
    }
    dir.create()?;
    let interrupts = Interrupts::listen()?;
    let mut keeper = start(dir)?;
    let made = finish(dir, &mut keeper, &interrupts);
    // Closing the pipe before the go-ahead ends whatever was built.
    drop(keeper.stdin.take());
    let _ = keeper.wait();
    made
}

fn start(dir: &LabDir) -> Result<Child> {
    let failed = || format!("cannot start the sandbox of lab `{}`", dir.lab());
    let path = dir.path().join(LOG);
    let _ = fs::remove_file(&path);
    let log =
        files::open(&path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND, 0o600).context(failed)?;
    Command::new(service::own_program()?)
        .arg(KEEPER_VERB)
        .arg(dir.path())
        .env("PATH", search_path())
        .env_remove(service::MARK)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context(failed)
}

/// Waits for the report, records the sandbox, and gives the go-ahead, in this order: from then on it lives on its own.
fn finish(dir: &LabDir, keeper: &mut Child, interrupts: &Interrupts) -> Result<SandboxInfo> {
    let info = read_report(dir, keeper, interrupts)?.into_result()?;
    let mut record = dir.info()?;
    record.sandbox = Some(info.clone());
    if interrupts.came() {
        return Err(interrupts.answer());
    }
    dir.set_info(&record)?;
    let given = keeper.stdin.as_mut().map(|pipe| pipe.write_all(b"g").and_then(|()| pipe.flush()));
    match given {
        Some(Ok(())) => Ok(info),
        _ => Err(died(dir)),
    }
}

fn read_report(dir: &LabDir, keeper: &mut Child, interrupts: &Interrupts) -> Result<Report> {
    let Some(pipe) = keeper.stdout.as_mut() else { return Err(died(dir)) };
    let started = Instant::now();
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    while !line.contains(&b'\n') {
        let left = PATIENCE.saturating_sub(started.elapsed());
        let sources = [pipe.as_fd(), interrupts.as_fd()];
        match first_readable(&sources, left).context(|| "cannot wait for the sandbox".into())? {
            None => return Err(Error::failed("the sandbox was not ready in time").caused_by(log_end(dir))),
            Some(0) => {}
            Some(_) => return Err(interrupts.answer()),
        }
        match pipe.read(&mut chunk).context(|| "cannot listen to the sandbox".into())? {
            0 => return Err(died(dir)),
            count => line.extend_from_slice(&chunk[..count]),
        }
    }
    serde_json::from_slice(&line).context(|| "the sandbox's report is not understood".into())
}

fn died(dir: &LabDir) -> Error {
    Error::failed("the sandbox ended before it was ready").caused_by(log_end(dir))
}

/// The last line of the log, for an error's cause.
fn log_end(dir: &LabDir) -> String {
    let path = dir.path().join(LOG);
    let text = files::read(&path).unwrap_or_default();
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => line.to_owned(),
        None => format!("{} is empty", path.display()),
    }
}
