//! What all labs of a host share below `/run`, which a reboot clears: the record of kernel settings, whether the directory
//! of namespaces was made by us, and whose turn it is to claim what only one lab can have.

use std::fs;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Result};
use crate::host::labdir;

/// Labs' shared directory.
pub const DIRECTORY: &str = "/run/netloom";

/// Held while something in the directory is read and written, alone, or while nobody may remove it, by many.
///
/// # Errors
/// When the directory cannot be made or locked.
pub(crate) fn hold(how: FlockArg) -> Result<Flock<fs::File>> {
    let failed = || format!("cannot lock {DIRECTORY}");
    loop {
        labdir::make_directory(Path::new(DIRECTORY))?;
        let directory = match fs::File::open(DIRECTORY) {
            // The last lab of a moment ago removed it.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other.context(failed)?,
        };
        let lock = Flock::lock(directory, how).map_err(|(_, e)| e).context(failed)?;
        if labdir::is_at(&lock, Path::new(DIRECTORY)) {
            return Ok(lock);
        }
    }
}

/// A turn to claim ports, subnets and uplinks of the host: nobody else looks for what is free meanwhile.
#[derive(Debug)]
pub struct Turn {
    _lock: Flock<fs::File>,
}

impl Drop for Turn {
    /// Still locked: whoever opened the file before sees that it is no longer the one there.
    fn drop(&mut self) {
        let _ = fs::remove_file(Path::new(DIRECTORY).join(TURN));
    }
}

/// Name of the file that is locked by whoever has the turn.
const TURN: &str = "turn";

/// Takes the turn; else says which process has it.
///
/// # Errors
/// When the file cannot be made or locked.
pub(crate) fn take_turn() -> Result<std::result::Result<Turn, String>> {
    let path = Path::new(DIRECTORY).join(TURN);
    let failed = || format!("cannot lock {}", path.display());
    loop {
        let kept = hold(FlockArg::LockShared)?;
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .context(failed)?;
        drop(kept);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) if labdir::is_at(&lock, &path) => {
                // Only for others to say whom they wait for.
                let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
                return Ok(Ok(Turn { _lock: lock }));
            }
            Ok(_) => {} // tidied away meanwhile
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                return Ok(Err(if holder.is_empty() { "unknown".to_owned() } else { holder }));
            }
            Err((_, e)) => return Err(e).context(failed),
        }
    }
}

/// Removes what no lab needs any more. What others need, or have put there, stays.
///
/// # Errors
/// When the directory cannot be locked.
pub(crate) fn tidy() -> Result<()> {
    if !Path::new(DIRECTORY).exists() {
        return Ok(());
    }
    let _alone = hold(FlockArg::LockExclusive)?;
    crate::host::netns::tidy();
    // Left by one that was killed: files that did not get to their places. Whoever writes one holds the directory, alone.
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "new") {
            let _ = fs::remove_file(entry.path());
        }
    }
    let turn = Path::new(DIRECTORY).join(TURN);
    if let Ok(file) = fs::File::open(&turn)
        && let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        && labdir::is_at(&lock, &turn)
    {
        let _ = fs::remove_file(&turn);
    }
    labdir::remove_if_empty(Path::new(DIRECTORY))
}
