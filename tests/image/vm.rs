//! QEMU without libvirt: one guest, its agent over a unix socket, its console in a file.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netloom::guest::config::GuestConfig;
use netloom::guest::seed;
use netloom::image::BuiltIn;
use serde_json::{Value, json};

/// A directory that goes away with its test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("netloom-image-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a NIC is plugged into.
pub(crate) enum Link {
    /// A hub without anyone else.
    Nothing,
    /// One end of a cable; the other guest connects to this socket.
    Listen(PathBuf),
    /// The other end.
    Connect(PathBuf),
    /// QEMU's own user-mode network 10.1.0.0/24; the host's port leads to the guest's 10.1.0.1, TCP port 80.
    Forward(u16),
}

const AGENT_PORT: &str = "virtserialport,chardev=agent,name=org.qemu.guest_agent.0";

/// QEMU options for the built-in image.
fn how_it_boots(image: &BuiltIn) -> [String; 6] {
    [
        "-kernel".into(),
        image.kernel.display().to_string(),
        "-initrd".into(),
        image.initrd.display().to_string(),
        "-append".into(),
        image.cmdline.clone(),
    ]
}

/// A running guest.
pub(crate) struct Guest {
    qemu: Child,
    /// One connection for all commands: whoever hangs up after each makes the agent throw away what follows at once.
    agent: Mutex<Option<BufReader<UnixStream>>>,
    directory: Directory,
    started: Instant,
}

impl Guest {
    /// Starts the built-in image with a seed, one virtual CPU and `memory` MiB.
    pub(crate) fn boot(image: &BuiltIn, config: &GuestConfig, links: &[Link], memory: u32) -> Self {
        Self::start(&how_it_boots(image), config, links, memory)
    }

    /// Starts the built-in image, but the emulator tells it of no agent's port before [`Guest::plug_port`].
    pub(crate) fn boot_without_port(image: &BuiltIn, config: &GuestConfig) -> Self {
        Self::launch(&how_it_boots(image), config, &[], image.memory_mib, &[])
    }

    /// Starts a guest that boots as `boot` (QEMU options) says.
    pub(crate) fn start(boot: &[String], config: &GuestConfig, links: &[Link], memory: u32) -> Self {
        Self::launch(boot, config, links, memory, &["-device", AGENT_PORT])
    }

    fn launch(boot: &[String], config: &GuestConfig, links: &[Link], memory: u32, port: &[&str]) -> Self {
        let directory = Directory::new();
        let at = |name: &str| directory.path().join(name).display().to_string();
        seed::write(Path::new(&at("seed.img")), config).unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "q35,accel=tcg", "-cpu", "max", "-smp", "1", "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-m", &memory.to_string()]).args(boot);
        command.args(["-serial", &format!("file:{}", at("console"))]);
        command.args(["-drive", &format!("file={},format=raw,if=virtio,readonly=on", at("seed.img"))]);
        command.args(["-device", "virtio-serial-pci"]);
        command.args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", at("agent"))]);
        command.args(["-monitor", &format!("unix:{},server=on,wait=off", at("monitor"))]).args(port);
        // Added last to first: the guest must find its NICs by MAC, not by the order it meets them in.
        for (index, (nic, link)) in config.nics.iter().zip(links).enumerate().rev() {
            let backend = match link {
                Link::Nothing => format!("hubport,id=n{index},hubid={index}"),
                Link::Listen(path) => {
                    format!("stream,id=n{index},server=on,addr.type=unix,addr.path={}", path.display())
                }
                Link::Forward(port) => format!(
                    "user,id=n{index},net=10.1.0.0/24,host=10.1.0.254,dns=10.1.0.253,dhcpstart=10.1.0.200,\
                     hostfwd=tcp:127.0.0.1:{port}-10.1.0.1:80"
                ),
                Link::Connect(path) => {
                    format!("stream,id=n{index},server=off,addr.type=unix,addr.path={}", path.display())
                }
            };
            command.args(["-netdev", &backend]);
            command.args(["-device", &format!("virtio-net-pci,netdev=n{index},mac={},romfile=", nic.mac)]);
        }
        let qemu = command.stdin(Stdio::null()).spawn().expect("qemu-system-x86_64 is needed");
        Self { qemu, agent: Mutex::new(None), directory, started: Instant::now() }
    }

    /// The emulator tells the guest of its agent's port, as it does at the start, only later.
    pub(crate) fn plug_port(&self) {
        let mut monitor = UnixStream::connect(self.directory.path().join("monitor")).unwrap();
        writeln!(monitor, "device_add {AGENT_PORT}").unwrap();
        monitor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = String::new();
        while said.matches("(qemu)").count() < 2 {
            let mut part = [0; 512];
            let count = std::io::Read::read(&mut monitor, &mut part).unwrap();
            assert!(count > 0, "{said}");
            said += &String::from_utf8_lossy(&part[..count]);
        }
        assert!(!said.contains("rror"), "{said}");
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("console")).unwrap_or_default())
            .into_owned()
    }

    /// How long after its start the agent answered.
    pub(crate) fn wait_for_agent(&self, limit: Duration) -> Duration {
        while self.started.elapsed() < limit {
            if self.command(&json!({ "execute": "guest-ping" }), Duration::from_millis(500)).is_some() {
                return self.started.elapsed();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the agent did not answer within {limit:?}; console:\n{}", self.console());
    }

    /// One command to the agent and its answer, or nothing when none came in time.
    fn command(&self, command: &Value, timeout: Duration) -> Option<Value> {
        let mut connection = self.agent.lock().unwrap();
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => self.connect(timeout)?,
        };
        stream.get_ref().set_read_timeout(Some(timeout)).ok()?;
        writeln!(stream.get_mut(), "{command}").ok()?;
        let answer = answer(&mut stream, |_| true)?;
        *connection = Some(stream);
        Some(answer)
    }

    /// A fresh sync number tells the agent's answer from those to commands given up before.
    fn connect(&self, timeout: Duration) -> Option<BufReader<UnixStream>> {
        static SYNC: AtomicU32 = AtomicU32::new(1);
        let mut stream = BufReader::new(UnixStream::connect(self.directory.path().join("agent")).ok()?);
        stream.get_ref().set_read_timeout(Some(timeout)).ok()?;
        let sync = SYNC.fetch_add(1, Ordering::Relaxed);
        writeln!(stream.get_mut(), "{}", json!({ "execute": "guest-sync", "arguments": { "id": sync } }))
            .ok()?;
        answer(&mut stream, |answer| answer["return"] == sync)?;
        Some(stream)
    }

    /// Runs a shell line in the guest and returns what it printed.
    pub(crate) fn run(&self, line: &str) -> String {
        self.status(line).1
    }

    /// Starts a shell line in the guest and does not wait for its end: its process id there.
    pub(crate) fn start_line(&self, line: &str) -> Value {
        let arguments = json!({ "path": "/bin/sh", "arg": ["-c", line], "capture-output": true });
        let command = json!({ "execute": "guest-exec", "arguments": arguments });
        let started = self.command(&command, Duration::from_secs(30));
        let started = started.unwrap_or_else(|| panic!("the agent is gone; console:\n{}", self.console()));
        assert!(started["return"]["pid"].is_number(), "{started}");
        started["return"]["pid"].clone()
    }

    /// Runs a shell line in the guest: its exit status and what it printed.
    pub(crate) fn status(&self, line: &str) -> (i64, String) {
        let pid = self.start_line(line);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(180) {
            let query = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
            let Some(answer) = self.command(&query, Duration::from_secs(30)) else { continue }; // asked again on a new connection
            assert!(answer["error"].is_null(), "`{line}`: {answer}");
            if answer["return"]["exited"] == true {
                let text = |key: &str| decode(answer["return"][key].as_str().unwrap_or_default());
                return (
                    answer["return"]["exitcode"].as_i64().unwrap_or(-1),
                    text("out-data") + &text("err-data"),
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("`{line}` did not end");
    }
}

impl Guest {
    /// Processor time the emulator has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.qemu.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(); // utime, stime
        Duration::from_millis(ticks * 10) // USER_HZ is 100 on every architecture QEMU's x86 emulator is built for
    }

    /// Whether the machine turns itself off in time.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            let status =
                std::fs::read_to_string(format!("/proc/{}/stat", self.qemu.id())).unwrap_or_default();
            if status.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z')) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The next line that is wanted.
fn answer(reader: &mut impl BufRead, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match serde_json::from_str::<Value>(line.trim()) {
            Ok(answer) if wanted(&answer) => return Some(answer),
            _ => {}
        }
    }
}

/// Base64, as the agent sends output.
fn decode(text: &str) -> String {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits =
            chunk.iter().fold(0_u32, |bits, c| bits << 6 | u32::from(value(*c))) << (6 * (4 - chunk.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    String::from_utf8_lossy(&out).into_owned()
}
