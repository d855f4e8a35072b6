//! What the keeper tells the command that makes it: one line of JSON over a pipe.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::host::labdir::SandboxInfo;

/// The one answer of a keeper that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// Everything inside is built and answers.
    Ready(SandboxInfo),
    /// It cannot be built. All parts of an [`Error`].
    Failed {
        /// Exit code, which stands for the kind.
        code: u8,
        /// What could not be done.
        message: String,
        /// Causes, nearest first.
        causes: Vec<String>,
        /// The mend.
        hint: Option<String>,
    },
}

impl Report {
    pub(super) fn failed(error: &Error) -> Self {
        Report::Failed {
            code: error.kind.exit_code(),
            message: error.message().to_owned(),
            causes: error.causes().to_vec(),
            hint: error.mend().map(str::to_owned),
        }
    }

    /// Back to what it was made of.
    pub(super) fn into_result(self) -> Result<SandboxInfo> {
        match self {
            Report::Ready(info) => Ok(info),
            Report::Failed { code, message, causes, hint } => {
                let kinds = [Kind::No, Kind::Input, Kind::Host, Kind::Failed, Kind::Interrupted];
                let kind = kinds.into_iter().find(|kind| kind.exit_code() == code).unwrap_or(Kind::Failed);
                let error = causes.into_iter().fold(Error::new(kind, message), Error::caused_by);
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
        }
    }

    /// Writes it to standard output, which is the pipe. A line is shorter than `PIPE_BUF`, so it arrives whole.
    pub(super) fn send(&self) -> Result<()> {
        let text = serde_json::to_string(self).context(|| "cannot describe the sandbox".into())?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).context(|| "nobody waits for the sandbox".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was_sent() {
        let sent =
            Error::host("no user namespaces").caused_by("EPERM").caused_by("a setting").hint("change it");
        let text = serde_json::to_string(&Report::failed(&sent)).unwrap();
        let got = serde_json::from_str::<Report>(&text).unwrap().into_result().unwrap_err();
        assert_eq!((got.kind, got.report()), (sent.kind, sent.report()));
    }
}
