//! Reading a file into a [`Topology`].

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{GuestKind, Topology, check};
use crate::diagnostic::{Diagnostics, Problem, Sink, Span};
use crate::error::Error;
use crate::spec;

/// Largest file that is read, in bytes. Ten thousand guests take about a tenth of it.
pub const SIZE_MAX: usize = 8 * 1024 * 1024;

/// What the command line may change about a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Builds every guest as this kind, whatever the file says.
    pub guests: Option<GuestKind>,
}

/// Why there is no topology.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    File(Error),
    /// The file has mistakes.
    Mistakes(Diagnostics),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::File(error) => error.fmt(f),
            LoadError::Mistakes(diagnostics) => diagnostics.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        match error {
            LoadError::File(error) => error,
            LoadError::Mistakes(diagnostics) => diagnostics.into(),
        }
    }
}

/// Reads and checks a text; `source_name` is how messages call it.
///
/// # Errors
/// Every mistake of the text, in the text's order.
pub fn load(source_name: &str, text: &str, options: &LoadOptions) -> Result<Topology, Diagnostics> {
    if text.len() > SIZE_MAX {
        return Err(too_large(source_name));
    }
    let mut sink = Sink::default();
    let topology = spec::read(text, &mut sink).map(|file| check::check(&file, options, &mut sink));
    match (Diagnostics::new(source_name, text, sink.problems), topology) {
        (None, Some(topology)) => Ok(topology),
        (Some(diagnostics), _) => Err(diagnostics),
        (None, None) => Err(Diagnostics::whole_file(source_name, "the file describes no lab", None)),
    }
}

/// [`load`] for bytes that may not be text.
///
/// # Errors
/// As [`load`], and where the bytes are not UTF-8.
pub fn load_bytes(source_name: &str, bytes: &[u8], options: &LoadOptions) -> Result<Topology, Diagnostics> {
    match std::str::from_utf8(bytes) {
        Ok(text) => load(source_name, text, options),
        Err(error) => Err(not_text(source_name, bytes, error.valid_up_to())),
    }
}

/// Reads and checks a file.
///
/// # Errors
/// [`LoadError::File`] when it cannot be read, [`LoadError::Mistakes`] when it is read and wrong. A file over
/// [`SIZE_MAX`] is refused without being read to its end.
pub fn load_file(path: &Path, options: &LoadOptions) -> Result<Topology, LoadError> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(LoadError::File)?;
    if bytes.len() > SIZE_MAX {
        return Err(LoadError::Mistakes(too_large(&name)));
    }
    load_bytes(&name, &bytes, options).map_err(LoadError::Mistakes)
}

/// Reads at most one byte more than is allowed.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| {
        let said = Error::input(format!("cannot read `{}`", path.display())).caused_by(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                said.hint("name an existing file; without a name it is netloom.yaml here")
            }
            std::io::ErrorKind::PermissionDenied => said.hint("make the file readable for you"),
            std::io::ErrorKind::IsADirectory => said.hint("name a file, not a directory"),
            _ => said,
        }
    };
    // Without O_NONBLOCK the open of a FIFO would wait for its other end, for ever.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    if !kind.is_file() {
        // A pipe or a device has no end that could be relied on, and gives its contents once alone.
        return Err(Error::input(format!("`{}` is no plain file", path.display()))
            .hint("write the lab into a file first"));
    }
    let limit = u64::try_from(SIZE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn too_large(name: &str) -> Diagnostics {
    let message = format!("the file is larger than {} MiB", SIZE_MAX / (1024 * 1024));
    Diagnostics::whole_file(name, message, Some("split the lab into several files".to_owned()))
}

/// Shows the first byte that is no text.
fn not_text(name: &str, bytes: &[u8], place: usize) -> Diagnostics {
    let before = String::from_utf8_lossy(&bytes[..place]).into_owned();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let byte = bytes.get(place).copied().unwrap_or_default();
    let problem = Problem {
        span: Span { line: number(line), column: number(column), length: 1 },
        message: format!("the file is not UTF-8 text: byte 0x{byte:02x}"),
        hint: Some("save the file as UTF-8".to_owned()),
    };
    let text = String::from_utf8_lossy(bytes);
    Diagnostics::new(name, &text, vec![problem])
        .unwrap_or_else(|| Diagnostics::whole_file(name, "the file is not UTF-8 text", None))
}
