//! Waiting until a guest's agent answers, with an eye on the guest's console.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{FIRST_PAUSE, LONGEST_PAUSE, ping};
use crate::error::{Error, Result};
use crate::host::domains::Domains;

/// How often a guest's console is looked at in such a pause, and the shortest one after it said something.
const GLANCE: Duration = Duration::from_millis(50);

/// How often a guest that is waited for is checked to run at all.
const LOOKS_AT_DOMAIN: Duration = Duration::from_secs(2);

/// How much of a console log an error shows, in bytes and in lines.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

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
    let (mut said, mut told) = (String::new(), None::<Instant>);
    loop {
        let Err(error) = ping(domains, name).await else { return Ok(()) };
        let line = console_log.and_then(|path| tail(path).pop()).unwrap_or_default();
        // Some write hundreds of lines a second.
        if line != said && told.is_none_or(|told| told.elapsed() >= LONGEST_PAUSE) {
            progress(&line);
            (said, told) = (line, Some(Instant::now()));
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
pub(super) async fn speaks(console_log: Option<&Path>, pause: Duration) -> bool {
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
pub(super) fn plain(text: &str) -> String {
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
