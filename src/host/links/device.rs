//! The character device by which a VM opens a macvtap, `/dev/tap` and the link's index; and indices for such links.
//!
//! The kernel keeps these files in one directory for all network namespaces, although each of them counts its links
//! from 1: of two macvtaps with the same index the second gets no file, and whoever asks for it opens the first. libvirt
//! moreover takes any link for a macvtap for which there is such a file. So macvtaps and taps get indices that nobody else has.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{AccessFlags, access};

use crate::error::{Context, Error, Result};

const DEV: &str = "/dev";
const PREFIX: &str = "tap";

/// Indices of ours: far above those that the kernel counts up to, and within 31 bits, which is all it takes.
const FIRST: u32 = 1 << 29;

fn path(index: u32) -> PathBuf {
    Path::new(DEV).join(format!("{PREFIX}{index}"))
}

/// An index for a new link: one of half a thousand million, and no macvtap of any namespace has it.
pub(crate) fn free_index() -> u32 {
    loop {
        // Keyed anew by the system's randomness each time.
        let random = RandomState::new().hash_one(0);
        let index = FIRST + u32::try_from(random % u64::from(FIRST)).unwrap_or_default();
        if !path(index).exists() {
            return index;
        }
    }
}

/// Makes sure that a macvtap that was just made can be opened.
///
/// # Errors
/// Exit 3 when there is no file for it and none can be made, or when it is closed to us.
pub(super) fn ready(link: &str, index: u32) -> Result<()> {
    let file = path(index);
    let number = fs::read_to_string(format!("/sys/class/net/{link}/macvtap/{PREFIX}{index}/dev"));
    let number = number.ok().and_then(|text| {
        let (major, minor) = text.trim().split_once(':')?;
        Some(makedev(major.parse().ok()?, minor.parse().ok()?))
    });
    match (fs::metadata(&file).map(|metadata| metadata.rdev()), number) {
        (Ok(found), Some(wanted)) if found != wanted => {
            return Err(Error::failed(format!("{} is the device of another link", file.display())));
        }
        (Ok(_), _) => {}
        // A container has a /dev that the kernel does not see to.
        (Err(_), Some(wanted)) => {
            mknod(&file, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, wanted).map_err(|e| {
                Error::host(format!("there is no {}, by which a VM opens its macvtap", file.display()))
                    .caused_by(e)
                    .hint("mount a devtmpfs on /dev (a container: with the host's /dev), or use `--guests namespace`")
            })?;
        }
        (Err(e), None) => {
            return Err(e).context(|| format!("there is no {}", file.display()));
        }
    }
    access(&file, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|e| {
        Error::host(format!("may not open {}, by which a VM opens its macvtap", file.display()))
            .caused_by(e)
            .hint("VMs on networks without a bridge need root: the kernel closes the device to all others; namespace guests (`--guests namespace`) and `mode: esxi/port-group`, which has a bridge, do without")
    })
}

/// Removes what [`ready`] made for a link that is gone; the kernel has removed what it made.
pub(super) fn remove(index: u32) {
    let file = path(index);
    let is_device = || fs::symlink_metadata(&file).is_ok_and(|m| m.file_type().is_char_device());
    if index >= FIRST && is_device() {
        let _ = fs::remove_file(&file);
    }
}
