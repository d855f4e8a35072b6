//! The one error type: what went wrong, why, and what mends it; its kind decides the exit code.

use std::fmt;

/// Which of the documented exit codes an error ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exit 1: the question was asked properly and the answer is no.
    No,
    /// Exit 2: usage, YAML or topology is wrong.
    Input,
    /// Exit 3: the host lacks something: privilege, kernel feature, daemon, package, image.
    Host,
    /// Exit 4: the work failed; what this run had done was rolled back.
    Failed,
    /// Exit 130: interrupted and rolled back.
    Interrupted,
}

impl Kind {
    /// The process exit code of this kind.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::No => 1,
            Kind::Input => 2,
            Kind::Host => 3,
            Kind::Failed => 4,
            Kind::Interrupted => 130,
        }
    }
}

/// What went wrong, with its causes and the mend.
#[derive(Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` says what could not be done, naming the object.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }
    /// Exit 2: the input is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }
    /// Exit 3: the host lacks something. Add the mend with [`Error::hint`].
    pub fn host(message: impl Into<String>) -> Self {
        Self::new(Kind::Host, message)
    }
    /// Exit 4: the work failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }
    /// Adds what mends it, as a sentence or a command.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds a cause and, below it, the causes of that cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }
    /// Wraps this error: `message` becomes what is said first, the old message its first cause.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let old = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, old);
        self
    }
    /// The first line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
    /// Causes, nearest first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }
    /// What mends it.
    #[must_use]
    pub fn mend(&self) -> Option<&str> {
        self.hint.as_deref()
    }
    /// The whole error as shown to the user: `Error:`, `Caused by:`, `Hint:`.
    #[must_use]
    pub fn report(&self) -> String {
        // The mistakes of a file are a report of their own, with a head for each.
        let head = if self.message.starts_with("error: ") { "" } else { "Error: " };
        let mut out = format!("{head}{}\n", self.message);
        for cause in &self.causes {
            out.push_str(&format!("Caused by: {cause}\n"));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("Hint: {hint}\n"));
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns foreign errors into [`Error`]s with a sentence of context.
pub trait Context<T> {
    /// `Kind::Failed` with `message`, caused by the error.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::failed(message()).caused_by(e))
    }
}
