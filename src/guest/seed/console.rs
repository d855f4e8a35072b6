//! What a cloud image says on its console about its seed. A guest without an agent has no other way to tell the host how
//! far it is; what it says is believed as what an agent says would be.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Said early in the boot, as soon as cloud-init has read the seed.
pub(super) const BEGUN: &str = "netloom: setting up";

/// How much of a console's log is looked at, in bytes from its end: what is looked for comes at the end of a boot.
const LOOKED_AT: u64 = 256 * 1024;

/// How far a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has begun to carry out its seed.
    Begun,
    /// It has carried out its seed; what is served listens.
    Ready {
        /// Whether its image has an agent, which will answer soon if it does not yet.
        agent: bool,
    },
    /// It could not carry out its seed.
    Failed {
        /// What went wrong, in its words.
        reasons: String,
    },
}

/// Whether a guest has said that its boot is over, well or not: the built-in image's first process does so, too, before it
/// starts what keeps running.
#[must_use]
pub fn has_settled(log: &Path) -> bool {
    let said = last(log).unwrap_or_default();
    said.lines().any(|line| {
        let outcome = line.trim().strip_prefix("netloom: ");
        outcome.is_some_and(|outcome| outcome.starts_with("ready") || outcome.starts_with("failed"))
    })
}

/// The last that a guest said on its console; `None` when it said nothing, or nothing that was understood.
#[must_use]
pub fn progress(log: &Path) -> Option<Progress> {
    read(&last(log)?)
}

fn last(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOOKED_AT))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOOKED_AT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(text: &str) -> Option<Progress> {
    text.lines().rev().find_map(|line| {
        let line = line.trim();
        if line == BEGUN {
            return Some(Progress::Begun);
        }
        let outcome = line.strip_prefix("netloom: ")?;
        if let Some(rest) = outcome.strip_prefix("ready") {
            return match rest {
                "" => Some(Progress::Ready { agent: true }),
                " without agent" => Some(Progress::Ready { agent: false }),
                _ => None,
            };
        }
        let rest = outcome.strip_prefix("failed")?;
        let reasons = rest.strip_prefix(" without agent").unwrap_or(rest).strip_prefix(": ")?;
        Some(Progress::Failed {
            reasons: reasons.trim_end_matches(';').chars().filter(|c| !c.is_control()).collect(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_others_words_do_not() {
        assert_eq!(read("Linux version 6\r\n[ OK ] Reached target\r\n"), None);
        assert_eq!(read("x\r\nnetloom: setting up\r\nnoise\r\n"), Some(Progress::Begun));
        let ready = "netloom: setting up\r\n\r\nnetloom: ready without agent\r\nlogin: root\r\n";
        assert_eq!(read(ready), Some(Progress::Ready { agent: false }));
        assert_eq!(read("netloom: ready\r\n"), Some(Progress::Ready { agent: true }));
        assert_eq!(read(&format!("{ready}reboot\r\nnetloom: setting up\r\n")), Some(Progress::Begun));
        let failed = "netloom: failed without agent: no \u{1b}[1mnft;not everything served listens;\r\n";
        let reasons = "no [1mnft;not everything served listens".to_owned();
        assert_eq!(read(failed), Some(Progress::Failed { reasons }));
        assert_eq!(read("I said netloom: ready\nnetloom: ready?\n"), None);
    }

    #[test]
    fn only_the_end_of_a_long_log_is_read() {
        let log = std::env::temp_dir().join(format!("netloom-console-{}", std::process::id()));
        std::fs::write(&log, format!("{}\nnetloom: ready\n", "x".repeat(1 << 20))).unwrap();
        let found = progress(&log);
        std::fs::write(&log, format!("netloom: ready\n{}\n", "x".repeat(1 << 20))).unwrap();
        let lost = progress(&log);
        std::fs::remove_file(&log).unwrap();
        assert_eq!((found, lost), (Some(Progress::Ready { agent: true }), None));
    }
}
