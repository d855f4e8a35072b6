//! What client and worker say to each other, over pipes or a socket: one JSON document a line. The worker's first
//! line answers request 0, the opening of the connection, which nobody has to ask for.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::host::domains::{HypervisorInfo, ObservedDomain};

/// A line to the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Chosen by the client, above 0.
    pub(super) id: u64,
    /// What to do.
    #[serde(flatten)]
    pub(super) call: Call,
}

/// What the worker can do; one for each method of [`Domains`](crate::host::domains::Domains).
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub(super) enum Call {
    Info,
    List,
    Create {
        xml: String,
    },
    Start {
        name: String,
    },
    Remove {
        name: String,
    },
    Agent {
        name: String,
        command: String,
        timeout_ms: u64,
    },
    /// The client's last word.
    Leave,
}

/// A line from the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Of the request.
    pub(super) id: u64,
    /// What came of it.
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Done,
    Info(HypervisorInfo),
    Domains(Vec<ObservedDomain>),
    Text(String),
    /// Another worker has the root.
    Busy {
        /// Its process id.
        holder: String,
    },
    /// The worker stays for others, or ends now.
    Left {
        /// Whether there are others.
        others: bool,
    },
    Error(Fault),
}

/// An [`Error`] on its way through the pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    /// The exit code of its kind.
    code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self {
            code: error.kind.exit_code(),
            message: error.message().to_owned(),
            causes: error.causes().to_vec(),
            hint: error.mend().map(str::to_owned),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let kinds = [Kind::No, Kind::Input, Kind::Host, Kind::Failed, Kind::Interrupted];
        let kind = kinds.into_iter().find(|kind| kind.exit_code() == fault.code).unwrap_or(Kind::Failed);
        let error = fault
            .causes
            .into_iter()
            .fold(Error::new(kind, fault.message), |error, cause| error.caused_by(cause));
        match fault.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_pipe() {
        let error = Error::host("no").caused_by("a").caused_by("b").hint("mend");
        let report = error.report();
        let line = serde_json::to_string(&Reply { id: 7, outcome: Outcome::Error(error.into()) }).unwrap();
        assert!(!line.contains('\n'));
        let reply: Reply = serde_json::from_str(&line).unwrap();
        let Outcome::Error(fault) = reply.outcome else { panic!("{line}") };
        let back = Error::from(fault);
        assert_eq!((back.kind, back.report()), (Kind::Host, report));
    }

    #[test]
    fn every_line_reads_back() {
        for outcome in [Outcome::Done, Outcome::Text("x\ny".into()), Outcome::Domains(Vec::new())] {
            let line = serde_json::to_string(&Reply { id: 1, outcome }).unwrap();
            let back: Reply = serde_json::from_str(&line).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), line);
        }
        let line = serde_json::to_string(&Request { id: 3, call: Call::List }).unwrap();
        assert!(matches!(serde_json::from_str::<Request>(&line).unwrap().call, Call::List));
    }
}
