//! Supervised processes. Each service has a small supervisor of its own (this very program) that restarts the child
//! when it ends. Both carry the mark in their environment, so a scan of `/proc` finds them with no file's help, even
//! when the supervisor was killed.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dhcp::RESOLVERS;
use crate::error::{Context, Error, Result};
use crate::host::labdir::{self, LabDir};
use crate::host::{files, netns, resolvers, sys};
use crate::lease;
use crate::resource::{Id, Kind, Service, mark, names};

/// Name of the environment variable that carries the mark and, after a blank, the digest.
pub const MARK: &str = "NETLOOM_MARK";

/// A process with our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Process id, in our own pid namespace.
    pub pid: i32,
    /// Lab.
    pub lab: String,
    /// The service.
    pub id: Id,
    /// Digest of the service it was started from.
    pub digest: String,
    /// Whether it is the supervisor.
    pub supervisor: bool,
}

/// Digest of what a service is.
#[must_use]
pub fn digest(service: &Service) -> String {
    names::sha256(serde_json::to_string(service).unwrap_or_default().as_bytes())[..16].to_owned()
}

/// Every marked process of our pid namespace (another one's are a sandbox's own business).
#[must_use]
pub fn scan() -> Vec<Marked> {
    let here = fs::read_link("/proc/self/ns/pid").ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let prefix = format!("{MARK}=");
        let Some(value) = environment
            .split(|byte| *byte == 0)
            .filter_map(|item| std::str::from_utf8(item).ok())
            .find_map(|item| item.strip_prefix(&prefix))
        else {
            continue;
        };
        if fs::read_link(entry.path().join("ns/pid")).ok() != here {
            continue;
        }
        let Some((mark_text, digest)) = value.split_once(' ') else { continue };
        // A mark of another kind, or on somebody else's process, is none that we wrote.
        let Some((lab, id)) = mark::read(mark_text).filter(|(_, id)| id.kind == Kind::Service) else {
            continue;
        };
        if !is_mine(&entry.path()) {
            continue;
        }
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let supervisor = command.split(|byte| *byte == 0).nth(1) == Some(b"__supervise");
        found.push(Marked { pid, lab, id, digest: digest.to_owned(), supervisor });
    }
    found
}

/// What is wrong with a service that has these processes: nobody keeps it running, it does not run, or its files are not
/// those that it was made with. What the files shall be is only known as far as it was noted, in `made`.
#[must_use]
pub fn defects(home: &Path, made: Option<&Service>, processes: &[Marked]) -> Vec<String> {
    let mut defects = Vec::new();
    let supervisor = processes.iter().find(|process| process.supervisor);
    match supervisor {
        None => defects.push("is not supervised".to_owned()),
        // A young supervisor is about to start it.
        Some(supervisor) if processes.len() == 1 && age(supervisor.pid).is_some_and(|age| age > SETTLED) => {
            defects.push("does not run".to_owned());
        }
        Some(_) => {}
    }
    let Some(made) = made else {
        defects.push("its files are missing".to_owned());
        return defects;
    };
    for (file, text) in &made.files {
        let wanted = text.replace("{dir}", &home.to_string_lossy());
        match files::read(&home.join(file)) {
            Err(_) => defects.push(format!("its file `{file}` is missing")),
            // Where the host asks for names may have changed since.
            Ok(found) if found != wanted && !text.contains(RESOLVERS) => {
                defects.push(format!("its file `{file}` was changed"));
            }
            Ok(_) => {}
        }
    }
    defects
}

/// After this long a supervisor has started what it supervises.
const SETTLED: Duration = Duration::from_secs(3);

/// How long a process has lived.
fn age(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything; the start is the 22nd field, the 20th behind it.
    let started: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    // In clock ticks, of which user space sees 100 a second.
    Some(Duration::from_secs_f64((uptime - Duration::from_millis(started * 10).as_secs_f64()).max(0.0)))
}

/// Whether a process runs as the user that we run as.
fn is_mine(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let uid =
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok());
    uid == Some(nix::unistd::geteuid().as_raw())
}

/// Writes the service's files and starts its supervisor in its place.
///
/// # Errors
/// When files cannot be written or the supervisor cannot be started.
pub fn start(dir: &LabDir, name: &str, service: &Service) -> Result<()> {
    let home = dir.service(name);
    if let Some(services) = home.parent() {
        labdir::make_directory(services)?;
    }
    // Closed: what a service writes of its own, such as leases, has the permissions that it likes.
    files::make_directory(&home, 0o700).context(|| format!("cannot create {}", home.display()))?;
    let at_home = |text: &str| {
        let text = text.replace("{dir}", &home.to_string_lossy());
        if text.contains(RESOLVERS) { text.replace(RESOLVERS, resolvers::file()) } else { text }
    };
    for (file, text) in &service.files {
        let (path, mode) = (home.join(file), if text.starts_with("#!") { 0o700 } else { 0o600 });
        files::write(&path, at_home(text).as_bytes(), mode)
            .context(|| format!("cannot write {}", path.display()))?;
    }
    if service.files.contains_key(lease::HOOK_FILE) {
        lease::forget(&home.join(lease::RECORD_FILE))?;
    }
    let argv: Vec<String> = service.argv.iter().map(|argument| at_home(argument)).collect();
    let text = serde_json::to_string(&argv).context(|| "cannot describe a service".into())?;
    labdir::write(&home.join("service.json"), &text)?;
    let id = Id::new(Kind::Service, name);
    let value = format!("{} {}", mark::write(dir.lab(), &id), digest(service));
    let log = files::open(&home.join("log"), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND, 0o600)
        .context(|| format!("cannot open the log of {id}"))?;
    let errors = log.try_clone().context(|| format!("cannot open the log of {id}"))?;
    let program = own_program()?;
    let path = crate::sandbox::search_path();
    installed(service, &path)?;
    netns::within(&service.place, move || {
        // It outlives us: nothing of the user's environment (which may hold secrets) is for it.
        Command::new(program)
            .arg("__supervise")
            .arg(&home)
            .env_clear()
            .env("PATH", path)
            .env(MARK, value)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
    })?
    .context(|| format!("cannot start {id}"))?;
    Ok(())
}

/// Says now what its supervisor could only write to a log: that the service's program is missing.
fn installed(service: &Service, path: &std::ffi::OsStr) -> Result<()> {
    let Some(program) = service.argv.first() else { return Ok(()) };
    let there = program.contains('/') || std::env::split_paths(path).any(|dir| dir.join(program).is_file());
    if there {
        return Ok(());
    }
    let packages = match program.as_str() {
        "dnsmasq" => ["dnsmasq-base", "dnsmasq", "dnsmasq"],
        "busybox" => ["busybox", "busybox", "busybox"],
        other => [other; 3],
    };
    let [apt, dnf, pacman] = packages;
    Err(Error::host(format!("`{program}` is not installed")).hint(format!(
        "`sudo apt install {apt}` (Debian, Ubuntu), `sudo dnf install {dnf}` (Fedora), `sudo pacman -S {pacman}` (Arch)"
    )))
}

/// Ends a service: the supervisor is asked, then whatever is left of it is killed. Returns when all are gone.
///
/// # Errors
/// When a process does not go within 5 s of being killed.
pub fn stop(lab: &str, name: &str) -> Result<()> {
    let id = Id::new(Kind::Service, name);
    let started = Instant::now();
    // Asked once, then killed: 2 s are the supervisor's, which gives its child one.
    for (signal, patience) in
        [(Signal::SIGTERM, Duration::from_secs(2)), (Signal::SIGKILL, Duration::from_secs(5))]
    {
        loop {
            let left: Vec<Marked> =
                scan_shared().into_iter().filter(|p| p.lab == lab && p.id == id).collect();
            if left.is_empty() {
                return Ok(());
            }
            let asked = left.iter().any(|process| process.supervisor);
            if signal == Signal::SIGTERM && !asked {
                break; // its supervisor was killed, so nobody but us is left to end it
            }
            let to_signal = left.iter().filter(|p| p.supervisor || signal == Signal::SIGKILL);
            let held: Vec<OwnedFd> = to_signal.filter_map(|p| sys::open_process(p.pid).ok()).collect();
            for process in &held {
                let _ = sys::signal_process(process, signal);
            }
            if !gone(&held, patience) {
                break;
            }
            if started.elapsed() > Duration::from_secs(10) {
                break; // it makes new processes faster than they are ended
            }
        }
    }
    match scan().into_iter().find(|p| p.lab == lab && p.id == id) {
        None => Ok(()),
        Some(left) => Err(Error::failed(format!("{id} does not end, process {}", left.pid))),
    }
}

/// Waits until all of the processes have ended; false when `patience` has passed.
fn gone(held: &[OwnedFd], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    held.iter().all(|process| {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // Readable once the process has ended, reaped or not.
        nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|n| n > 0)
    })
}

/// As [`scan`], done once for all who ask while the last one still runs: a lab's services are stopped side by side.
fn scan_shared() -> Vec<Marked> {
    static LAST: Mutex<Option<(Instant, Vec<Marked>)>> = Mutex::new(None);
    let asked = Instant::now();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match last.as_ref() {
        Some((began, found)) if *began >= asked => found.clone(),
        _ => {
            let began = Instant::now();
            let found = scan();
            *last = Some((began, found.clone()));
            found
        }
    }
}

/// Path of this program, for the processes it starts of itself.
///
/// # Errors
/// When `/proc` does not tell.
pub fn own_program() -> Result<std::path::PathBuf> {
    std::env::current_exe().context(|| "cannot find my own program file".into())
}

/// The supervisor's whole life: runs the service described in `home`, restarts it when it ends (after 100 ms, doubled
/// up to 5 s), ends it on SIGTERM.
///
/// # Errors
/// When the description cannot be read.
pub fn supervise(home: &Path) -> Result<()> {
    crate::sandbox::close_inherited();
    let _ = nix::unistd::setsid();
    let text = files::read(&home.join("service.json")).context(|| "cannot read service.json".into())?;
    let argv: Vec<String> = serde_json::from_str(&text).context(|| "service.json is damaged".into())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the runtime".into())?;
    runtime.block_on(keep_running(home, &argv))
}

async fn keep_running(home: &Path, argv: &[String]) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (program, arguments) =
        argv.split_first().ok_or_else(|| Error::failed("a service without a program"))?;
    let mut stop = signal(SignalKind::terminate()).context(|| "cannot wait for signals".into())?;
    let mut pause = Duration::from_millis(100);
    loop {
        let began = Instant::now();
        let mut child = match tokio::process::Command::new(program).args(arguments).kill_on_drop(true).spawn()
        {
            Ok(child) => child,
            Err(e) => return Err(Error::host(format!("cannot start `{program}`")).caused_by(e)),
        };
        tokio::select! {
            _ = stop.recv() => return end(&mut child).await,
            status = child.wait() => tracing::warn!("{program} ended: {status:?}; starting it again"),
        }
        if home.join(lease::HOOK_FILE).exists() {
            let _ = lease::forget(&home.join(lease::RECORD_FILE)); // the next client asks for a lease of its own
        }
        pause = if began.elapsed() > Duration::from_secs(10) { Duration::from_millis(100) } else { pause };
        tokio::select! {
            _ = stop.recv() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn end(child: &mut tokio::process::Child) -> Result<()> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(Duration::from_secs(1), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    Ok(())
}
