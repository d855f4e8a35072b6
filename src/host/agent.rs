//! The QEMU guest agent: commands in a guest without any network. The commands and their fields are those of QEMU's
//! guest agent protocol, <https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>.

mod file;
mod wait;

use std::net::IpAddr;
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
pub use wait::{tail, wait_ready};

/// How long an agent that runs may take for one command that does no work of its own.
const ANSWERS: Duration = Duration::from_secs(5);

/// The same for one that starts a program or asks after it: an emulated guest on a busy machine may have much to do.
const WORKS: Duration = Duration::from_secs(30);

/// Between two looks at a command's status, or two tries to reach an agent: first and longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

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
    format!("{interfaces:?}{}", wait::plain(answer))
}

#[cfg(test)]
mod tests;
