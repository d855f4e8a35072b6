//! What a person sees: progress and errors on stderr, data on stdout.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Serialize;

use crate::diagnostic::steady;
use crate::error::{Context, Error, Kind, Result};
use crate::host::lab::Say;

static QUIET: AtomicBool = AtomicBool::new(false);
static STARTED: OnceLock<Instant> = OnceLock::new();

pub(super) fn set_quiet(quiet: bool) {
    STARTED.get_or_init(Instant::now);
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether progress is not wanted.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// One line of progress with the seconds since the start.
pub(super) fn say(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        let seconds = STARTED.get_or_init(Instant::now).elapsed().as_secs_f64();
        // In one piece: standard error has no buffer, and each write is a system call.
        let _ = std::io::stderr().write_all(format!("{seconds:7.2}s  {}\n", steady(line)).as_bytes());
    }
}

/// [`say`], to be handed on.
pub(super) fn sayer() -> Say {
    Arc::new(say)
}

/// Prints text on stderr. Nobody may be there to read it, which `eprint!` would panic about.
pub(super) fn error_text(text: &str) {
    let _ = std::io::stderr().write_all(steady(text).as_bytes());
}

/// Reports an error. A file's diagnostics are printed as they are.
pub(super) fn report(error: &Error) {
    error_text(&error.report());
}

/// Whether stderr takes colours.
pub(super) fn color_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a document on stdout.
pub(super) fn json<T: Serialize>(document: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(document).context(|| "cannot write JSON".into())?;
    print(&format!("{}\n", escaped(&text)))
}

/// JSON in which every control character is escaped: JSON itself asks that for the first 32 alone, but some terminals
/// obey those from U+007F to U+009F, too.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if c.is_control() && c != '\n' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Prints text on stdout. A reader that has gone (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(steady(text).as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Error::new(Kind::Failed, "cannot write to stdout").caused_by(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_document_without_control_characters() {
        let value = serde_json::json!({ "a\u{9b}": ["\u{7f}\u{1b}[31m\n", "é\\u"] });
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
