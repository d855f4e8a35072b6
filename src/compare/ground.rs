//! Where the labs of a comparison are.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use crate::host::lab::Say;
use crate::host::labdir;
use crate::topology::GuestKind;
use crate::{image, sandbox};

/// A directory for the labs, which goes with everything that is still in it.
#[derive(Debug)]
pub(super) struct Ground {
    /// The state directory of the labs.
    pub(super) state: PathBuf,
}

impl Ground {
    pub(super) fn new(guests: GuestKind, say: &Say) -> Result<Self> {
        let images = labdir::state_directory()?.join("images");
        if guests == GuestKind::Vm {
            // Once for all of them.
            image::built_in(&images, &mut |line| say(line))?;
        }
        let state = own_directory()?;
        let failed = || format!("cannot use the directory {}", state.display());
        let ground = Self { state: state.clone() };
        fs::create_dir(ground.files()).context(failed)?;
        if guests == GuestKind::Vm {
            std::os::unix::fs::symlink(&images, state.join("images")).context(failed)?;
        }
        Ok(ground)
    }

    /// Where the labs' files are: below the state directory, for a sandbox sees that.
    pub(super) fn files(&self) -> PathBuf {
        self.state.join("files")
    }
}

/// A new directory among the system's temporary ones, with a short name: sockets in it have short paths only.
fn own_directory() -> Result<PathBuf> {
    let mut number = std::process::id();
    loop {
        let path = format!("netloom-{number}");
        let path =
            std::path::absolute(std::env::temp_dir().join(path)).context(|| "cannot use TMPDIR".into())?;
        // A system QEMU runs as another user: it may pass through, and nobody may look.
        match fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => return Ok(path),
            // Left by a process of this number that was killed.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number = number.wrapping_add(100_000),
            Err(e) => {
                return Err(
                    Error::failed(format!("cannot make the directory {}", path.display())).caused_by(e)
                );
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for (lab, info) in sandbox::list() {
            if lab.starts_with(&self.state) {
                let _ = sandbox::stop(&info);
            }
        }
        let _ = fs::remove_dir_all(&self.state);
    }
}
