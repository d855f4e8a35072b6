//! NoCloud seeds: how a VM is told its configuration. A seed is a small vfat volume labelled `cidata` with cloud-init's
//! three files, and beside them, in `netloom/`, the same facts in a form that a shell script can read: the built-in
//! image has neither cloud-init nor a YAML parser. The same configuration always gives the same bytes.

use std::io::{Cursor, Write as _};
use std::path::Path;

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use super::config::GuestConfig;
use crate::error::{Context, Error, Result};
use crate::host::files;

mod cloud;
pub mod console;
mod facts;

/// Label by which cloud-init and the built-in image find the seed.
const LABEL: &[u8; 11] = b"cidata     ";
/// The smallest volume, in bytes; it grows with what it holds.
const SMALLEST: usize = 1 << 20;
/// Of every file and of the volume, since a clock would make each seed differ: FAT's first day.
const EPOCH: DateTime = DateTime {
    date: Date { year: 1980, month: 1, day: 1 },
    time: Time { hour: 0, min: 0, sec: 0, millis: 0 },
};

#[derive(Debug)]
struct FixedTime;
static FIXED_TIME: FixedTime = FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        EPOCH.date
    }
    fn get_current_date_time(&self) -> DateTime {
        EPOCH
    }
}

/// One file of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFile {
    /// Path inside the volume.
    pub path: String,
    /// Contents.
    pub text: String,
}

/// Writes a guest's seed as a volume image that everyone may read: a temporary file beside it, then a rename.
///
/// # Errors
/// When it cannot be made or written.
pub fn write(path: &Path, config: &GuestConfig) -> Result<()> {
    let failed = || format!("cannot write the seed of guest `{}` to {}", config.name, path.display());
    let everyone = 0o644; // a system QEMU runs as another user
    files::write(path, &volume(config)?, everyone).context(failed)
}

/// Every file of a guest's seed, sorted by path.
///
/// # Errors
/// When the configuration cannot be rendered.
pub fn files(config: &GuestConfig) -> Result<Vec<SeedFile>> {
    let own = facts::render(config);
    let mut files = cloud::render(config, &own)?;
    files.extend(
        own.into_iter().map(|file| SeedFile { path: format!("netloom/{}", file.path), text: file.text }),
    );
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The seed as the bytes of a vfat volume.
///
/// # Errors
/// When the volume cannot be made.
pub fn volume(config: &GuestConfig) -> Result<Vec<u8>> {
    let files = files(config)?;
    let payload: usize = files.iter().map(|file| file.text.len().next_multiple_of(4096)).sum();
    let size = (payload + payload / 8 + SMALLEST / 2).next_multiple_of(SMALLEST);
    fill(Cursor::new(vec![0; size]), &files)
        .map_err(|e| Error::failed(format!("cannot make the seed of guest `{}`", config.name)).caused_by(e))
}

fn fill(mut volume: Cursor<Vec<u8>>, files: &[SeedFile]) -> std::io::Result<Vec<u8>> {
    // Volume id 0x6e6c: any constant would do.
    let options = FormatVolumeOptions::new().volume_label(*LABEL).volume_id(0x6e6c);
    let options =
        if volume.get_ref().len() <= 4 * SMALLEST { options.fat_type(FatType::Fat12) } else { options };
    fatfs::format_volume(&mut volume, options)?;
    {
        let options = FsOptions::new().time_provider(&FIXED_TIME).update_accessed_date(false);
        let filesystem = FileSystem::new(&mut volume, options)?;
        let root = filesystem.root_dir();
        root.create_dir("netloom")?;
        for file in files {
            let mut target = root.create_file(&file.path)?;
            target.write_all(file.text.as_bytes())?;
            target.flush()?;
        }
        drop(root);
        filesystem.unmount()?;
    }
    Ok(volume.into_inner())
}

#[cfg(test)]
mod tests;
