//! One directory for each lab: its file, services, seeds, disks, logs. Nothing in it decides what exists; it may be
//! lost and `down` still finds everything by its marks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::host::files;
use crate::resource::names;

/// What a lab's directory says about how it was built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabInfo {
    /// Process id of the sandbox's first process, for a lab that has one.
    pub sandbox: Option<SandboxInfo>,
    /// The `--connect` URI, where one was given.
    pub connect: Option<String>,
    /// Absolute directory of the file it was built from: where relative paths of images start.
    #[serde(default)]
    pub file_directory: Option<PathBuf>,
    /// Whether every guest is a namespace (`up --guests namespace`).
    pub guests: Option<crate::topology::GuestKind>,
}

/// How long a lab that is held is waited for. Of a netloom that was killed others hear, by the end of its output, before the
/// kernel has closed everything it had open, this lock among it.
const LETS_GO: Duration = Duration::from_millis(500);

/// A sandbox as recorded; only right while the process has this start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Process id outside the sandbox.
    pub pid: i32,
    /// Start time of the process, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
}

/// The directory of one lab.
#[derive(Debug, Clone)]
pub struct LabDir {
    path: PathBuf,
}

/// Where labs and the image cache live: `NETLOOM_STATE_DIR`, else `/var/lib/netloom` for root, else
/// `$XDG_STATE_HOME/netloom` or `~/.local/state/netloom`.
///
/// # Errors
/// When neither is set for an ordinary user.
pub fn state_directory() -> Result<PathBuf> {
    named_state_directory().map(|path| files::settled(&path))
}

fn named_state_directory() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NETLOOM_STATE_DIR").filter(|path| !path.is_empty()) {
        return std::path::absolute(path).context(|| "cannot use NETLOOM_STATE_DIR".into());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/netloom".into());
    }
    if let Some(path) = std::env::var_os("XDG_STATE_HOME").filter(|path| Path::new(path).is_absolute()) {
        return Ok(Path::new(&path).join("netloom"));
    }
    match std::env::var_os("HOME").filter(|path| !path.is_empty()) {
        Some(home) => Ok(Path::new(&home).join(".local/state/netloom")),
        None => Err(Error::host("there is no home directory to keep labs in").hint("set NETLOOM_STATE_DIR")),
    }
}

impl LabDir {
    /// The directory of a lab below the state directory; nothing is made yet.
    #[must_use]
    pub fn new(state: &Path, lab: &str) -> Self {
        Self { path: state.join("labs").join(lab) }
    }

    /// Names of all labs that have a directory, sorted.
    #[must_use]
    pub fn list(state: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(state.join("labs"))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| names::is_lab(name))
            .collect();
        names.sort();
        names
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lab's name.
    #[must_use]
    pub fn lab(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir())
    }

    /// Makes it (others may pass through, since a system QEMU runs as another user, but not look).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self) -> Result<()> {
        make_directory(&self.path)
    }

    /// Removes it with everything inside; and the directories above it, should they be empty now. The lock goes last, so
    /// that whoever takes the lab meanwhile either finds it held or has a directory without anything old in it.
    ///
    /// # Errors
    /// When something inside cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let failed = |e| Error::failed(format!("cannot remove {}", self.path.display())).caused_by(e);
        let reached = match files::reach(&self.path) {
            Ok(reached) => reached,
            Err(e) if e.kind() == ErrorKind::NotFound => return self.remove_empty(),
            Err(e) => return Err(failed(e)),
        };
        reached.clear(LOCK).and_then(|()| reached.remove(LOCK)).map_err(failed)?;
        match fs::remove_dir(&self.path).or_else(gone) {
            // Another netloom has begun to build the lab anew.
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
            other => other.map_err(failed)?,
        }
        self.remove_empty()
    }

    /// Removes the directories above it that are empty now.
    fn remove_empty(&self) -> Result<()> {
        self.path.ancestors().nth(2).map_or(Ok(()), Self::tidy)
    }

    /// Removes the directory of labs and the state directory, should they be empty: so they are left when a run is cut off
    /// right after it has removed the last lab's.
    ///
    /// # Errors
    /// When the directory of labs is empty and stays.
    pub fn tidy(state: &Path) -> Result<()> {
        remove_if_empty(&state.join("labs"))?;
        let _ = fs::remove_dir(state); // refused while the image cache is there, or above it is nobody's to change
        Ok(())
    }

    /// Directory of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> PathBuf {
        self.path.join("services").join(name.replace('/', "."))
    }

    /// Directory of a guest's files.
    #[must_use]
    pub fn guest(&self, name: &str) -> PathBuf {
        self.path.join("guests").join(name)
    }

    /// The copy of the lab's file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path.join("netloom.yaml")
    }

    /// Reads what is recorded of the lab; nothing recorded is the default.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn info(&self) -> Result<LabInfo> {
        match files::read(&self.path.join("lab.json")) {
            // An ordinary user may not look into root's labs, and learns elsewhere that they are root's.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                Ok(LabInfo::default())
            }
            Err(e) => Err(Error::failed(format!("cannot read {}", self.path.join("lab.json").display()))
                .caused_by(e)
                .hint(format!("`netloom down {}` removes the lab all the same", self.lab()))),
            Ok(text) => serde_json::from_str(&text)
                .context(|| format!("{} is damaged", self.path.join("lab.json").display()))
                .map_err(|e| e.hint(format!("`netloom down {}` removes the lab all the same", self.lab()))),
        }
    }

    /// Records it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_info(&self, info: &LabInfo) -> Result<()> {
        self.stage_info(info)?.commit()
    }

    fn stage_info(&self, info: &LabInfo) -> Result<Staged> {
        let text = serde_json::to_string(info).context(|| "cannot write lab.json".into())?;
        stage(&self.path.join("lab.json"), &text, true)
    }

    /// Writes what is to be recorded of a lab, and the text of its file, beside what is recorded now: what can fail for
    /// want of space fails before anything is built. To be put in place by [`Staged::commit`], both.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn stage(&self, info: &LabInfo, text: &str) -> Result<[Staged; 2]> {
        Ok([self.stage_info(info)?, stage(&self.file(), text, true)?])
    }

    /// Takes the lab for this process until the value is dropped.
    ///
    /// # Errors
    /// Exit 4 when another process holds it, and for longer than one takes to die, with its process id.
    pub fn lock(&self) -> Result<nix::fcntl::Flock<fs::File>> {
        self.take_lock().inspect_err(|_| {
            // What was made on the way; refused while anything is in it.
            let _ = fs::remove_dir(&self.path);
            let _ = self.remove_empty();
        })
    }

    fn take_lock(&self) -> Result<nix::fcntl::Flock<fs::File>> {
        let path = self.path.join(LOCK);
        let began = Instant::now();
        loop {
            make_directory(&self.path)?;
            let file = match files::open(&path, OFlag::O_RDWR | OFlag::O_CREAT, 0o600) {
                // Another process removed the directory since it was made.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other.context(|| format!("cannot open {}", path.display()))?,
            };
            match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_at(&lock, &path) => {
                    // For people only: a full disk must not keep anybody from taking the lab down.
                    let _ = write(&self.path.join("holder"), &std::process::id().to_string());
                    return Ok(lock);
                }
                // Another process removed the directory between our opening the file and taking it.
                Ok(_) => {}
                Err(_) if began.elapsed() < LETS_GO => std::thread::sleep(Duration::from_millis(10)),
                Err((_, e)) => {
                    let holder = files::read(&self.path.join("holder")).unwrap_or_else(|_| "unknown".into());
                    return Err(Error::failed(format!(
                        "lab `{}` is held by another netloom, process {holder}",
                        self.lab()
                    ))
                    .caused_by(e)
                    .hint("wait for it to end"));
                }
            }
        }
    }
}

/// Removes a directory unless something is in it, or it is not ours to remove.
///
/// # Errors
/// When it is empty and stays.
pub(crate) fn remove_if_empty(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(e)
            if !matches!(
                e.kind(),
                ErrorKind::NotFound
                    | ErrorKind::DirectoryNotEmpty
                    | ErrorKind::NotADirectory
                    | ErrorKind::PermissionDenied
            ) =>
        {
            Err(Error::failed(format!("cannot remove {}", path.display())).caused_by(e))
        }
        _ => Ok(()),
    }
}

/// Whether an open file is (still) the one at `path`.
pub(crate) fn is_at(file: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|ours| fs::metadata(path).is_ok_and(|there| identity(ours) == identity(there)))
}

/// Name of the file that whoever works on a lab holds locked.
const LOCK: &str = "lock";

/// Name of the file in a service's or guest's directory that says what it was made from.
const MADE: &str = "made.json";

/// Notes what a service or guest was made from, in its directory.
///
/// # Errors
/// When it cannot be written.
pub fn note_made<T: Serialize>(directory: &Path, made: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(made)
        .context(|| format!("cannot describe what is in {}", directory.display()))?;
    write(&directory.join(MADE), &text)
}

/// What a service or guest was made from, as far as noted.
#[must_use]
pub fn made<T: serde::de::DeserializeOwned>(directory: &Path) -> Option<T> {
    serde_json::from_str(&files::read(&directory.join(MADE)).ok()?).ok()
}

/// What was to be removed is gone already.
fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// How often a directory is made again that another process removes as often: each time that one's last lab ended.
const ATTEMPTS: usize = 100;

/// Makes a directory and those above it, mode 0711.
///
/// # Errors
/// When it cannot be made.
pub fn make_directory(path: &Path) -> Result<()> {
    let mut made = files::make_directory(path, 0o711);
    for _ in 0..ATTEMPTS {
        // One of those above may go between being reached and being used.
        if !made.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            break;
        }
        made = files::make_directory(path, 0o711);
    }
    made.map_err(|e| {
        let what = format!("cannot create {}", path.display());
        match e.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull => {
                Error::host(what)
                    .caused_by(e)
                    .hint("name a directory that can be written to, with space left, in NETLOOM_STATE_DIR")
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => Error::host(what)
                .caused_by(e)
                .hint("a file is where a directory is needed: name another place in NETLOOM_STATE_DIR"),
            _ => Error::failed(what).caused_by(e),
        }
    })
}

/// Writes a file whole, for its owner alone to read: a temporary one beside it, then a rename.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    stage(path, text, false)?.commit()
}

/// A file that is written but has not taken its place yet; dropped, it goes.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    file: files::Staged,
}

/// Writes a file beside its place. Nothing is left of it after a failure. A `durable` one is on the disk when this
/// returns.
///
/// # Errors
/// When it cannot be written; exit 3 where there is no space for it.
pub fn stage(path: &Path, text: &str, durable: bool) -> Result<Staged> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    let what = || format!("cannot write {}", path.display());
    match files::stage(path, text.as_bytes(), 0o600, durable) {
        Ok(file) => Ok(Staged { path: path.to_owned(), file }),
        Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Err(Error::host(what()).caused_by(e).hint("make space there"))
        }
        Err(e) => Err(Error::failed(what()).caused_by(e)),
    }
}

impl Staged {
    /// Puts it in its place.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn commit(self) -> Result<()> {
        self.file.commit().context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests;
