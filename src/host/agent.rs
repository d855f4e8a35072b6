//! The QEMU guest agent: commands in a guest without any network. The commands and their fields are those of QEMU's
//! guest agent protocol, <https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>.

mod file;

use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{Context, Error, Result};
use crate::host::domains::Domains;
use crate::topology::Mac;

pub use file::read_file;

/// How long an agent that runs may take for one command that does no work of its own.
const ANSWERS: Duration = Duration::from_secs(5);

/// The same for one that starts a program or asks after it: an emulated guest on a busy machine may have much to do.
const WORKS: Duration = Duration::from_secs(30);

/// Between two looks at a command's status, or two tries to reach an agent: first and longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How often a guest's console is looked at in such a pause, and the shortest one after it said something.
const GLANCE: Duration = Duration::from_millis(50);

/// How often a guest that is waited for is checked to run at all.
const LOOKS_AT_DOMAIN: Duration = Duration::from_secs(2);

/// How much of a console log an error shows, in bytes and in lines.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

/// Longest answer that is read, in bytes: two streams of output of 16 MiB each, in base64, and what is around them.
const LARGEST: usize = 44 << 20;

/// How a command in a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit status; 128 and the signal's number where a signal ended it, as shells count.
    pub status: i32,
    /// Standard output; the agent keeps at most 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error; likewise.
    pub stderr: Vec<u8>,
}

/// An interface as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInterface {
    /// Kernel name in the guest.
    pub name: String,
    /// MAC address, where it has one.
    pub mac: Option<Mac>,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNetwork>,
}

/// Asks the agent for a sign of life.
///
/// # Errors
/// When it does not answer within 5 s.
pub async fn ping(domains: &dyn Domains, name: &str) -> Result<()> {
    call::<IgnoredAny>(domains, name, "guest-ping", json!({}), ANSWERS).await.map(|_| ())
}

/// Runs a command in a guest and waits for its end. `argv[0]` is looked up in the agent's PATH.
///
/// # Errors
/// When the agent does not answer, the program does not start, or the command is not done within `timeout`; it is then
/// killed.
pub async fn exec(
    domains: &dyn Domains,
    name: &str,
    argv: &[String],
    stdin: Option<&[u8]>,
    timeout: Duration,
) -> Result<ExecOutcome> {
    let (program, words) =
        argv.split_first().ok_or_else(|| Error::input(format!("no command to run in domain `{name}`")))?;
    let mut arguments = json!({ "path": program, "arg": words, "capture-output": true });
    if let Some(input) = stdin {
        arguments["input-data"] = BASE64_STANDARD.encode(input).into();
    }
    let deadline = Instant::now() + timeout;
    let started: Started = call(domains, name, "guest-exec", arguments, WORKS)
        .await
        .map_err(|error| error.context(format!("cannot run `{program}` in domain `{name}`")))?;
    let mut pause = FIRST_PAUSE;
    loop {
        let arguments = json!({ "pid": started.pid });
        let status: Status = call(domains, name, "guest-exec-status", arguments, WORKS).await?;
        if status.exited {
            return status.outcome().context(|| format!("cannot read the output of `{program}`"));
        }
        if Instant::now() >= deadline {
            let kill = json!({ "path": "kill", "arg": ["-9", started.pid.to_string()] });
            let _ = call::<IgnoredAny>(domains, name, "guest-exec", kill, ANSWERS).await;
            let limit = timeout.as_secs_f32();
            return Err(Error::failed(format!(
                "`{program}` in domain `{name}` was not done within {limit} s and was killed"
            )));
        }
        tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    exited: bool,
    exitcode: Option<i32>,
    signal: Option<i32>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
}

impl Status {
    fn outcome(self) -> Result<ExecOutcome, base64::DecodeError> {
        let status = self.exitcode.or_else(|| self.signal.map(|signal| 128 + signal));
        Ok(ExecOutcome {
            status: status.unwrap_or(-1),
            stdout: BASE64_STANDARD.decode(self.out_data)?,
            stderr: BASE64_STANDARD.decode(self.err_data)?,
        })
    }
}

/// The guest's interfaces and addresses.
///
/// # Errors
/// When the agent does not answer.
pub async fn addresses(domains: &dyn Domains, name: &str) -> Result<Vec<GuestInterface>> {
    let found: Vec<RawInterface> =
        call(domains, name, "guest-network-get-interfaces", json!({}), ANSWERS).await?;
    Ok(found.into_iter().map(RawInterface::read).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawInterface {
    name: String,
    hardware_address: Option<String>,
    #[serde(default)]
    ip_addresses: Vec<RawAddress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawAddress {
    ip_address: IpAddr,
    prefix: u8,
}

impl RawInterface {
    fn read(self) -> GuestInterface {
        let address = |raw: RawAddress| IpNetwork::new(raw.ip_address, raw.prefix).ok();
        GuestInterface {
            name: self.name,
            mac: self.hardware_address.and_then(|mac| mac.parse().ok()),
            addresses: self.ip_addresses.into_iter().filter_map(address).collect(),
        }
    }
}

/// Waits until the guest's agent answers. `progress` is told in one line what is waited for, each time that changes.
/// `console_log` is where the guest's console is kept, for the error.
///
/// # Errors
/// When `limit` has passed or the domain does not run any more; the error shows the end of the console.
pub async fn wait_ready(
    domains: &dyn Domains,
    name: &str,
    limit: Duration,
    console_log: Option<&Path>,
    progress: impl Fn(&str),
) -> Result<()> {
    let began = Instant::now();
    let mut looked = began;
    let mut pause = FIRST_PAUSE;
    let (mut said, mut told) = (String::new(), began.checked_sub(LONGEST_PAUSE).unwrap_or(began));
    loop {
        let Err(error) = ping(domains, name).await else { return Ok(()) };
        let line = console_log.and_then(|path| tail(path).pop()).unwrap_or_default();
        // Some write hundreds of lines a second.
        if line != said && told.elapsed() >= LONGEST_PAUSE {
            progress(&line);
            (said, told) = (line, Instant::now());
        }
        let not_ready = |message: String| with_tail(Error::failed(message).caused_by(&error), console_log);
        if began.elapsed() >= limit {
            return Err(not_ready(format!("domain `{name}` was not ready within {} s", limit.as_secs())));
        }
        if looked.elapsed() >= LOOKS_AT_DOMAIN {
            looked = Instant::now();
            if !domains.list().await?.iter().any(|domain| domain.name == name && domain.running) {
                return Err(not_ready(format!("domain `{name}` stopped before it was ready")));
            }
        }
        pause = if speaks(console_log, pause).await { GLANCE } else { (pause * 2).min(LONGEST_PAUSE) };
    }
}

/// Waits for so long, or until a guest says something on its console: most do so shortly before their agent can answer.
async fn speaks(console_log: Option<&Path>, pause: Duration) -> bool {
    let length = || console_log.and_then(|path| std::fs::metadata(path).ok()).map(|data| data.len());
    let (before, until) = (length(), Instant::now() + pause);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(GLANCE)).await;
        if length() != before {
            return true;
        }
        if left <= GLANCE {
            return false;
        }
    }
}

fn with_tail(error: Error, console_log: Option<&Path>) -> Error {
    let lines = console_log.map(tail).unwrap_or_default();
    if lines.is_empty() {
        return error.caused_by("its console is empty");
    }
    error.caused_by(format!("the last it wrote on its console:\n    {}", lines.join("\n    ")))
}

/// The last lines of a console log, as plain text.
#[must_use]
pub fn tail(path: &Path) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = plain(&String::from_utf8_lossy(&read().unwrap_or_default()));
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Without terminal control: neither escape sequences (ECMA-48: `ESC [`, parameters, a final byte from `@` to `~`) nor
/// other control characters, so that a guest cannot play with the terminal of whoever reads an error.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\n' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// One command and its answer.
async fn call<T: DeserializeOwned>(
    domains: &dyn Domains,
    name: &str,
    command: &str,
    arguments: Value,
    timeout: Duration,
) -> Result<T> {
    let mut request = json!({ "execute": command });
    if arguments.as_object().is_some_and(|fields| !fields.is_empty()) {
        request["arguments"] = arguments;
    }
    let answer = domains.agent(name, &request.to_string(), timeout).await?;
    read(&answer).map_err(|e| {
        e.context(format!("the guest agent of domain `{name}` gave an answer to {command} that does not fit"))
    })
}

#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    value: T,
}

/// What an agent returns. The guest decides what stands here: it is read into what is wanted and nothing else, and not
/// at all beyond a size. (libvirt itself ends an answer at 64 MiB.)
fn read<T: DeserializeOwned>(answer: &str) -> Result<T> {
    if answer.len() > LARGEST {
        return Err(Error::failed(format!("it is longer than {} MiB", LARGEST >> 20)));
    }
    serde_json::from_str::<Answer<T>>(answer)
        .map(|answer| answer.value)
        .context(|| "it is not understood".into())
}

/// Reads an answer as that of each command in turn; for tests with answers at random.
pub(crate) fn read_any(answer: &str) -> String {
    let _ = read::<Started>(answer);
    let _ = read::<Status>(answer).map(Status::outcome);
    let interfaces = read::<Vec<RawInterface>>(answer).unwrap_or_default();
    let interfaces: Vec<GuestInterface> = interfaces.into_iter().map(RawInterface::read).collect();
    format!("{interfaces:?}{}", plain(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::domains::{HypervisorInfo, ObservedDomain};
    use async_trait::async_trait;
    use std::sync::Mutex;

    /// An agent that gives these answers, last one first, and then none; and remembers what it was asked.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<Vec<&'static str>>,
        asked: Mutex<Vec<Value>>,
        running: bool,
    }

    #[async_trait]
    impl Domains for Scripted {
        async fn info(&self) -> Result<HypervisorInfo> {
            Err(Error::failed("not asked here"))
        }
        async fn list(&self) -> Result<Vec<ObservedDomain>> {
            Ok(vec![ObservedDomain {
                name: "d".into(),
                lab: "l".into(),
                guest: "g".into(),
                digest: String::new(),
                running: self.running,
                console: None,
                pid: None,
            }])
        }
        async fn create(&self, _: &str) -> Result<()> {
            Ok(())
        }
        async fn start(&self, _: &str) -> Result<()> {
            Ok(())
        }
        async fn remove(&self, _: &str) -> Result<()> {
            Ok(())
        }
        async fn agent(&self, _: &str, command: &str, _: Duration) -> Result<String> {
            self.asked.lock().unwrap().push(serde_json::from_str(command).unwrap());
            let answer = self.answers.lock().unwrap().pop();
            answer.map(str::to_owned).ok_or_else(|| Error::failed("the agent is not there"))
        }
    }

    fn scripted(answers: &[&'static str]) -> Scripted {
        Scripted { answers: Mutex::new(answers.iter().rev().copied().collect()), ..Scripted::default() }
    }

    #[tokio::test]
    async fn a_command_is_awaited_and_its_output_decoded() {
        let agent = scripted(&[
            r#"{"return":{"pid":7}}"#,
            r#"{"return":{"exited":false}}"#,
            r#"{"return":{"exited":true,"exitcode":3,"out-data":"aGkK","err-data":"/w=="}}"#,
        ]);
        let argv = ["sh".to_owned(), "-c".to_owned()];
        let outcome = exec(&agent, "d", &argv, Some(b"in"), Duration::from_secs(9)).await.unwrap();
        assert_eq!(outcome, ExecOutcome { status: 3, stdout: b"hi\n".to_vec(), stderr: vec![0xff] });
        let asked = agent.asked.lock().unwrap();
        let wanted = json!({"path": "sh", "arg": ["-c"], "capture-output": true, "input-data": "aW4="});
        assert_eq!(asked[0], json!({"execute": "guest-exec", "arguments": wanted}));
        assert_eq!(asked[2], json!({"execute": "guest-exec-status", "arguments": {"pid": 7}}));
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed() {
        let mut answers = vec![r#"{"return":{"pid":7}}"#];
        answers.extend([r#"{"return":{"exited":false}}"#; 100]);
        let agent = scripted(&answers);
        let error = exec(&agent, "d", &["sleep".into()], None, Duration::from_millis(100)).await.unwrap_err();
        assert!(error.to_string().contains("`sleep` in domain `d`"), "{error}");
        let asked = agent.asked.lock().unwrap();
        assert_eq!(asked.last().unwrap()["arguments"]["arg"], json!(["-9", "7"]));
    }

    #[tokio::test]
    async fn a_signal_counts_as_shells_count_it() {
        let agent = scripted(&[r#"{"return":{"pid":7}}"#, r#"{"return":{"exited":true,"signal":9}}"#]);
        let outcome = exec(&agent, "d", &["x".into()], None, Duration::from_secs(9)).await.unwrap();
        assert_eq!(outcome.status, 137);
    }

    #[tokio::test]
    async fn interfaces_are_read() {
        let agent = scripted(&[r#"{"return":[
            {"name":"lo","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"127.0.0.1","prefix":8}]},
            {"name":"eth0","hardware-address":"52:54:00:00:00:01","ip-addresses":[
                {"ip-address-type":"ipv6","ip-address":"fe80::1","prefix":64}]},
            {"name":"eth1","hardware-address":"52:54:00:00:00:02"}]}"#]);
        let found = addresses(&agent, "d").await.unwrap();
        assert_eq!(found[0].mac, None);
        assert_eq!(found[1].addresses, ["fe80::1/64".parse().unwrap()]);
        assert_eq!((found[2].name.as_str(), found[2].addresses.len()), ("eth1", 0));
    }

    #[tokio::test]
    async fn a_guest_that_stopped_is_not_waited_for_and_its_console_is_shown() {
        let log = std::env::temp_dir().join(format!("netloom-tail-{}", std::process::id()));
        std::fs::write(&log, "first\r\n\x1b[1;31mKernel panic\x1b[0m\x07\n\n").unwrap();
        let agent = scripted(&[]);
        let said = Mutex::new(Vec::new());
        let progress = |line: &str| said.lock().unwrap().push(line.to_owned());
        let error =
            wait_ready(&agent, "d", Duration::from_secs(600), Some(&log), progress).await.unwrap_err();
        std::fs::remove_file(&log).unwrap();
        assert!(error.to_string().contains("stopped before it was ready"), "{error}");
        assert!(error.causes().last().unwrap().ends_with("\n    first\n    Kernel panic"), "{error}");
        assert_eq!(*said.lock().unwrap(), ["Kernel panic"]);
    }

    #[tokio::test]
    async fn a_guest_that_is_never_ready_ends_the_wait() {
        let agent = Scripted { running: true, ..scripted(&[]) };
        let error = wait_ready(&agent, "d", Duration::from_secs(1), None, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("not ready within 1 s"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_read_and_closed() {
        let agent =
            scripted(&[r#"{"return":1000}"#, r#"{"return":{"count":6,"buf-b64":"cmVhZHkK","eof":true}}"#]);
        assert_eq!(read_file(&agent, "d", "/run/x").await.unwrap(), b"ready\n");
        let agent = scripted(&[r#"{"return":1000}"#]);
        read_file(&agent, "d", "/run/x").await.unwrap_err();
        let asked = agent.asked.lock().unwrap();
        assert_eq!(
            asked[0],
            json!({"execute": "guest-file-open", "arguments": {"path": "/run/x", "mode": "r"}})
        );
        assert_eq!(asked[2], json!({"execute": "guest-file-close", "arguments": {"handle": 1000}}));
    }

    #[tokio::test]
    async fn a_pause_ends_when_the_guest_speaks() {
        let log = std::env::temp_dir().join(format!("netloom-speaks-{}", std::process::id()));
        std::fs::write(&log, "a").unwrap();
        assert!(!speaks(Some(&log), Duration::from_millis(30)).await);
        assert!(!speaks(None, Duration::from_millis(30)).await);
        let began = Instant::now();
        let (spoke, ()) = tokio::join!(speaks(Some(&log), Duration::from_secs(60)), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::fs::write(&log, "ab").unwrap();
        });
        std::fs::remove_file(&log).unwrap();
        assert!(spoke && began.elapsed() < Duration::from_secs(30));
    }
}
