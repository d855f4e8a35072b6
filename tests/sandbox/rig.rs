//! The program under test, and the eyes that judge it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use netloom::host::labdir::{LabDir, SandboxInfo};
use netloom::{lease, sandbox};

/// The hidden verbs: netloom's own, and for tests `__create LAB`, `__enter LAB CMD…` and `__stop LAB`.
pub(crate) fn verb(verb: &str, args: &[OsString]) -> u8 {
    let lab = || {
        let state = netloom::host::labdir::state_directory().unwrap();
        LabDir::new(&state, args[0].to_str().unwrap())
    };
    match verb {
        "__keeper" => sandbox::keeper_main(args),
        "__sandbox-init" => sandbox::init_main(args),
        "__serve" => {
            let words: Vec<&str> = args.iter().map(|word| word.to_str().unwrap()).collect();
            let services: Vec<_> = words[1..].iter().map(|word| service(word)).collect();
            code(netloom::serve::run(words[0], &services))
        }
        "__lease" => code(lease::run(args[0].to_str().unwrap(), &lease::environment())),
        "__create" => code(sandbox::create(&lab()).map(|_| ())),
        "__stop" => code(lab().info().and_then(|info| sandbox::stop(&info.sandbox.unwrap()))),
        "__enter" if sandbox::inside() => {
            let status = Command::new(&args[1]).args(&args[2..]).status().unwrap();
            u8::try_from(status.code().unwrap_or(255)).unwrap()
        }
        "__enter" => match sandbox::enter(&lab().info().unwrap().sandbox.unwrap()) {
            Ok(code) => code,
            Err(error) => code(Err(error)),
        },
        "__routes" => code(routes(args)),
        "__uplink" => code(uplink(args)),
        _ => 2,
    }
}

fn code(result: netloom::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprint!("{}", error.report());
            error.kind.exit_code()
        }
    }
}

/// `__routes add|remove NETWORK…`, inside.
fn routes(args: &[OsString]) -> netloom::Result<()> {
    let networks: Vec<ipnetwork::IpNetwork> =
        args[1..].iter().map(|n| n.to_str().unwrap().parse().unwrap()).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if args[0] == "add" {
        runtime.block_on(sandbox::world::add_return_routes(&networks))
    } else {
        runtime.block_on(sandbox::world::remove_return_routes(&networks))
    }
}

/// `__uplink join|leave LINK BRIDGE`, inside.
fn uplink(args: &[OsString]) -> netloom::Result<()> {
    let [verb, link, bridge] = args else { return Err(netloom::Error::input("three arguments")) };
    let (link, bridge) = (link.to_str().unwrap(), bridge.to_str().unwrap());
    let links = netloom::host::links::Links::new("lab");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if verb == "join" {
        let attach = netloom::topology::Attach::Plain;
        let uplink = netloom::resource::Uplink { link: link.into(), bridge: bridge.into(), attach };
        runtime.block_on(links.join_uplink("br", &uplink))
    } else {
        runtime.block_on(links.leave_uplink("br", link, bridge))
    }
}

fn service(word: &str) -> netloom::topology::Service {
    let (protocol, port) = word.split_once('/').unwrap();
    let protocol = match protocol {
        "tcp" => netloom::topology::Protocol::Tcp,
        _ => netloom::topology::Protocol::Udp,
    };
    netloom::topology::Service { protocol, port: port.parse().unwrap() }
}

/// A state directory of its own, and the commands on it. Ends and removes all it made when dropped.
pub(crate) struct Rig {
    pub(crate) state: PathBuf,
    user: Option<u32>,
}

impl Rig {
    /// As the calling user.
    pub(crate) fn new(name: &str) -> Self {
        Self::at(std::env::temp_dir().join(format!("netloom-sandbox-{name}-{}", std::process::id())), None)
    }
    /// As an ordinary user (65000 when root runs the tests), with a state directory of its own.
    pub(crate) fn unprivileged(name: &str) -> Self {
        let state = std::env::temp_dir().join(format!("netloom-sandbox-{name}-{}", std::process::id()));
        Self::at(state, nix::unistd::geteuid().is_root().then_some(65000))
    }
    pub(crate) fn at(state: PathBuf, user: Option<u32>) -> Self {
        fs::create_dir_all(&state).unwrap();
        if let Some(user) = user {
            std::os::unix::fs::chown(&state, Some(user), Some(user)).unwrap();
        }
        Self { state, user }
    }
    /// This program, where the rig's user may run it.
    pub(crate) fn program(&self) -> PathBuf {
        program_for(self.user, &self.state)
    }
    /// This program with arguments, as the rig's user.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = program_for(self.user, &self.state);
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
                // Without /usr/sbin, as ordinary users have it on Debian.
                command.arg("env").arg("-u").arg("XDG_RUNTIME_DIR").arg("PATH=/usr/bin:/bin").arg(program);
                command
            }
        };
        command.args(args).env("NETLOOM_STATE_DIR", &self.state).stdin(Stdio::null());
        command
    }
    pub(crate) fn create(&self, lab: &str) -> SandboxInfo {
        let output = self.command(&["__create", lab]).output().unwrap();
        assert!(output.status.success(), "create failed: {}", text(&output));
        self.info(lab).expect("create records the sandbox")
    }
    pub(crate) fn info(&self, lab: &str) -> Option<SandboxInfo> {
        LabDir::new(&self.state, lab).info().unwrap().sandbox
    }
    pub(crate) fn inside(&self, lab: &str, command: &[&str]) -> Output {
        self.command(&[&["__enter", lab], command].concat()).output().unwrap()
    }
    /// Standard output of a command inside that must succeed.
    pub(crate) fn run(&self, lab: &str, command: &[&str]) -> String {
        let output = self.inside(lab, command);
        assert!(output.status.success(), "{command:?} failed: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }
    pub(crate) fn json(&self, lab: &str, command: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(lab, command)).unwrap()
    }
    pub(crate) fn stop(&self, lab: &str) {
        let output = self.command(&["__stop", lab]).output().unwrap();
        assert!(output.status.success(), "stop failed: {}", text(&output));
    }
    /// Processes (zombies aside) that were started with this rig's state directory: by what they were given, not by
    /// any record.
    pub(crate) fn processes(&self) -> Vec<String> {
        let needle = format!("NETLOOM_STATE_DIR={}", self.state.display());
        living(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|item| item == needle.as_bytes())
        })
    }
    /// Waits until nothing of the rig runs; what is left after 5 s is returned.
    pub(crate) fn left(&self) -> Vec<String> {
        let began = std::time::Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() || began.elapsed().as_secs() >= 30 {
                return left;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for lab in LabDir::list(&self.state) {
            if let Some(info) = self.info(&lab) {
                let _ = sandbox::stop(&info);
            }
        }
        let _ = fs::remove_dir_all(&self.state);
    }
}

/// This program where the user may run it: build directories are often closed to others.
fn program_for(user: Option<u32>, state: &Path) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    if user.is_none() {
        return program;
    }
    let copy = state.join("netloom-test");
    if !copy.exists() {
        fs::copy(&program, &copy).unwrap();
    }
    copy
}

/// `PID command` of every process that is not a zombie and passes.
pub(crate) fn living(passes: impl Fn(i32) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        if !zombie && passes(pid) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push(format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Waits until `holds`, for at most 10 s.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 30, "not in 30 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Network and mount namespaces that any process is in, from `lsns`.
pub(crate) fn namespaces(of: &str) -> Vec<String> {
    let output = Command::new("lsns").args(["-n", "-o", "NS", "-t", of]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

/// The namespace a process is in, as its number.
pub(crate) fn namespace(pid: i32, of: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{of}")).unwrap().display().to_string();
    link.split(['[', ']']).nth(1).unwrap().to_owned()
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{} stdout: {} stderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
