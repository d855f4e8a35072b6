//! Guest images: the built-in one, made of distribution packages, and imported ones. Everything lives in one cache
//! directory and can be made again, so nothing is lost when it is deleted.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::host::files::{self, settled};
use crate::host::labdir::make_directory;

mod build;
mod cpio;
pub(crate) mod disk;
pub(crate) mod elf;
pub(crate) mod kernel;
mod packages;
mod store;

pub(crate) use packages::find_in_path;
pub use store::{import, overlay, remove, resolve};

/// Name under which [`list`] shows the built-in image.
pub const BUILT_IN: &str = "built-in";

/// The built-in image, ready to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltIn {
    /// Kernel for a direct boot.
    pub kernel: PathBuf,
    /// Initial RAM disk: the whole system.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Memory in MiB without which it does not start; depends on the distribution's kernel.
    pub memory_mib: u32,
    /// SHA-256 (hex) over everything the image is made of.
    pub digest: String,
}

/// One image as `netloom image list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Name by which a file refers to it; `built-in` for netloom's own.
    pub name: String,
    /// `built-in`, or the disk's format: `qcow2` or `raw`.
    pub format: String,
    /// Size on disk in bytes.
    pub size: u64,
    /// Digest of the built-in image's inputs, or SHA-256 of an imported file.
    pub digest: String,
    /// Where it came from: the file or URL imported, or the packages of the built-in image's kernel.
    pub source: String,
    /// The file, or the built-in image's directory.
    pub path: PathBuf,
}

/// What the cache records of a built image, beside its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    digest: String,
    /// Digest of the parts that come with netloom itself: an image of another netloom is not current.
    recipe: String,
    cmdline: String,
    memory_mib: u32,
    /// `name_version_arch` of every package, or one line for each file of the host.
    inputs: Vec<String>,
}

/// The built-in image from the cache; built first when there is none of this netloom.
///
/// # Errors
/// Exit 3 when the host lacks what building needs, exit 4 when building fails.
pub fn built_in(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltIn> {
    let cache = &settled(cache);
    if let Some(image) = current(cache) {
        return Ok(image);
    }
    let _lock = lock(cache)?;
    match current(cache) {
        Some(image) => Ok(image), // another process built it meanwhile
        None => build_locked(cache, progress),
    }
}

/// Builds the built-in image from the packages offered now; does nothing when they are those of the current image.
///
/// # Errors
/// As [`built_in`].
pub fn build(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltIn> {
    let cache = &settled(cache);
    let _lock = lock(cache)?;
    build_locked(cache, progress)
}

/// Every image in the cache, by name.
///
/// # Errors
/// When an imported image's record cannot be read.
pub fn list(cache: &Path) -> Result<Vec<ImageInfo>> {
    let cache = &settled(cache);
    let mut images = store::list(cache)?;
    if let Some(manifest) = current_manifest(cache) {
        let path = directory(cache, &manifest.digest);
        let size = ["vmlinux", "initrd"].iter().filter_map(|file| fs::metadata(path.join(file)).ok());
        let kernel = manifest.inputs.iter().filter(|input| input.starts_with("linux-image")).cloned();
        images.push(ImageInfo {
            name: BUILT_IN.into(),
            format: BUILT_IN.into(),
            size: size.map(|meta| meta.len()).sum(),
            digest: manifest.digest,
            source: kernel.collect::<Vec<_>>().join(" "),
            path,
        });
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

fn current(cache: &Path) -> Option<BuiltIn> {
    let manifest = current_manifest(cache)?;
    (manifest.recipe == build::recipe()).then(|| finished(cache, &manifest))
}

fn finished(cache: &Path, manifest: &Manifest) -> BuiltIn {
    let directory = directory(cache, &manifest.digest);
    BuiltIn {
        kernel: directory.join("vmlinux"),
        initrd: directory.join("initrd"),
        cmdline: manifest.cmdline.clone(),
        memory_mib: manifest.memory_mib,
        digest: manifest.digest.clone(),
    }
}

/// The manifest of the image that was built or confirmed last, while its files are there.
fn current_manifest(cache: &Path) -> Option<Manifest> {
    let text = files::read(&cache.join(BUILT_IN).join("current.json")).ok()?;
    let manifest: Manifest = serde_json::from_str(&text).ok()?;
    load(&directory(cache, &manifest.digest))
}

/// The manifest of a finished image.
fn load(directory: &Path) -> Option<Manifest> {
    let manifest = serde_json::from_str(&files::read(&directory.join("manifest.json")).ok()?).ok()?;
    ["vmlinux", "initrd"].iter().all(|file| directory.join(file).is_file()).then_some(manifest)
}

fn directory(cache: &Path, digest: &str) -> PathBuf {
    cache.join(BUILT_IN).join(digest.get(..16).unwrap_or(digest))
}

/// Resolves, and builds unless an image of these very inputs exists. The new directory is made beside its place and
/// renamed, so nobody ever sees half an image; older images stay, since defined guests may refer to them.
fn build_locked(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltIn> {
    let home = cache.join(BUILT_IN);
    let work = home.join("work");
    clear(&work)?;
    make_directory(&work)?;
    let outcome = build::run(&work, &|digest| load(&directory(cache, digest)), progress);
    let outcome = outcome.and_then(|(manifest, files)| {
        let target = directory(cache, &manifest.digest);
        if let Some(files) = files {
            clear(&target)?;
            fs::rename(&files, &target)
                .context(|| format!("cannot put the image at {}", target.display()))?;
        }
        let text = serde_json::to_string_pretty(&manifest).context(|| "cannot write the manifest".into())?;
        publish(&target.join("manifest.json"), &text)?;
        publish(&home.join("current.json"), &text)?;
        Ok(finished(cache, &manifest))
    });
    let cleared = clear(&work);
    outcome.and_then(|image| cleared.map(|()| image))
}

/// Writes what is nobody's secret: other users may boot the image, where its place is open to them.
fn publish(path: &Path, text: &str) -> Result<()> {
    files::write(path, text.as_bytes(), 0o644).context(|| format!("cannot write {}", path.display()))
}

fn clear(path: &Path) -> Result<()> {
    files::remove_directory(path).context(|| format!("cannot remove {}", path.display()))
}

/// Waits until no other process builds or imports.
fn lock(cache: &Path) -> Result<Flock<fs::File>> {
    make_directory(cache)?;
    let path = cache.join("lock");
    let file = files::open(&path, OFlag::O_WRONLY | OFlag::O_CREAT, 0o600);
    let file = file.context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, e)| Error::failed(format!("cannot lock {}", path.display())).caused_by(e))
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
