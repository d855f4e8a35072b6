//! Imported images: disks copied into the cache under a name, and disks that a file names by path or URL.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::packages::{find_in_path, tail};
use super::{BUILT_IN, ImageInfo, clear, disk, hex, lock};
use crate::error::{Context, Error, Result};
use crate::host::files::{self, settled};
use crate::host::labdir::{make_directory, write};
use crate::topology::Image;

/// Copies an image into the cache under `name`. `source` is a path, or an `http`, `https` or `file` URL.
///
/// # Errors
/// Exit 2 for a bad name, a taken name, a checksum that differs, or what is not one whole disk, qcow2 or raw; exit 3 when `curl` is missing for a URL; exit 4 when
/// the copy fails.
pub fn import(cache: &Path, name: &str, source: &str, sha256: Option<&str>) -> Result<ImageInfo> {
    let valid = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !valid || name == BUILT_IN {
        return Err(Error::input(format!("`{name}` cannot be the name of an image"))
            .hint("use 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit"));
    }
    let cache = &settled(cache);
    let _lock = lock(cache)?;
    let home = imports(cache).join(name);
    if home.exists() {
        return Err(Error::input(format!("there is an image `{name}` already"))
            .hint(format!("remove it first: netloom image remove {name}")));
    }
    let work = cache.join("imports.new");
    clear(&work)?;
    make_directory(&work)?;
    let outcome = fetch(source, &work.join("disk"), sha256).and_then(|digest| {
        let path = home.join("disk");
        let size = fs::metadata(work.join("disk")).context(|| format!("cannot read image `{name}`"))?.len();
        let format = format(&work.join("disk"), source)?.into();
        let info = ImageInfo { name: name.into(), format, size, digest, source: source.into(), path };
        let text = serde_json::to_string_pretty(&info).context(|| "cannot write image.json".into())?;
        write(&work.join("image.json"), &text)?;
        make_directory(&imports(cache))?;
        fs::rename(&work, &home).context(|| format!("cannot put image `{name}` at {}", home.display()))?;
        Ok(info)
    });
    if outcome.is_err() {
        clear(&work)?;
    }
    outcome
}

/// The disk a guest's `image:` stands for; downloads a URL once, into the cache. A path is taken relative to
/// `base`, the directory of the file that names it.
///
/// # Errors
/// Exit 2 when there is no such image, when a URL has no checksum, or when the checksum differs; exit 3 when `curl` is
/// missing; exit 4 when the download fails. [`Image::BuiltIn`] has no disk: exit 4.
pub fn resolve(cache: &Path, image: &Image, base: &Path) -> Result<PathBuf> {
    let Image::Disk { source, sha256 } = image else {
        return Err(Error::failed("the built-in image has no disk"));
    };
    let cache = &settled(cache);
    if is_url(source) {
        let Some(sha256) = sha256 else {
            return Err(Error::input(format!("image {source} has no checksum"))
                .hint("add `sha256:`; what a URL serves may change from one day to the next"));
        };
        return download(cache, source, sha256);
    }
    let imported = imports(cache).join(source).join("disk");
    let named = !source.contains('/') && imported.is_file();
    let path = if named { imported } else { base.join(source) };
    if !path.is_file() {
        return Err(Error::input(format!("there is no image `{source}`")).hint(format!(
            "neither an imported image (`netloom image list`) nor a file {}",
            path.display()
        )));
    }
    if let Some(sha256) = sha256 {
        check(source, &digest_of(&path)?, sha256)?;
    }
    std::path::absolute(&path).context(|| format!("cannot use {}", path.display()))
}

/// Makes `target` a qcow2 disk over `backing`, which is only ever read.
///
/// # Errors
/// Exit 2 when `backing` is not one whole disk, qcow2 or raw; exit 3 without `qemu-img`, exit 4 when it fails.
pub fn overlay(backing: &Path, target: &Path) -> Result<()> {
    let tool = find_in_path("qemu-img").ok_or_else(|| {
        Error::host("`qemu-img` is needed for guests with a disk image").hint(
            "Debian/Ubuntu: sudo apt-get install qemu-utils; Fedora: sudo dnf install qemu-img; Arch: sudo pacman -S qemu-img",
        )
    })?;
    let backing = std::path::absolute(backing).context(|| format!("cannot use {}", backing.display()))?;
    let output = Command::new(tool)
        .args(["create", "-q", "-f", "qcow2", "-F", format(&backing, &backing.to_string_lossy())?, "-b"])
        .arg(&backing)
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .context(|| "cannot run qemu-img".into())?;
    if output.status.success() {
        // What a guest writes is for nobody else on the host to read; libvirt gives it to the user that QEMU runs as.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        return fs::set_permissions(target, private).context(|| format!("cannot close {}", target.display()));
    }
    Err(Error::failed(format!("cannot make the disk {}", target.display())).caused_by(tail(&output.stderr)))
}

/// Removes an imported image, or the built-in one (it is built again on the next need).
///
/// # Errors
/// Exit 2 when there is none of that name.
pub fn remove(cache: &Path, name: &str) -> Result<()> {
    let cache = &settled(cache);
    let _lock = lock(cache)?;
    let path = if name == BUILT_IN { cache.join(BUILT_IN) } else { imports(cache).join(name) };
    if name.contains('/') || name.starts_with('.') || name.is_empty() || !path.is_dir() {
        return Err(Error::input(format!("there is no image `{name}`")).hint("netloom image list"));
    }
    clear(&path)
}

/// Imported images.
pub(super) fn list(cache: &Path) -> Result<Vec<ImageInfo>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(imports(cache)).into_iter().flatten().flatten() {
        let path = entry.path().join("image.json");
        let text = files::read(&path).context(|| format!("cannot read {}", path.display()))?;
        let mut info: ImageInfo =
            serde_json::from_str(&text).context(|| format!("{} is damaged", path.display()))?;
        info.path = entry.path().join("disk"); // the cache may have been moved
        found.push(info);
    }
    Ok(found)
}

fn imports(cache: &Path) -> PathBuf {
    cache.join("imports")
}

fn is_url(source: &str) -> bool {
    ["http://", "https://", "file://"].iter().any(|scheme| source.starts_with(scheme))
}

fn download(cache: &Path, url: &str, sha256: &str) -> Result<PathBuf> {
    let home = cache.join("downloads");
    let wanted = sha256.to_ascii_lowercase();
    if wanted.len() != 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(
            Error::input(format!("`{sha256}` is not a SHA-256 checksum")).hint("it has 64 hex digits")
        );
    }
    let path = home.join(&wanted);
    if path.is_file() {
        return Ok(path); // named by its contents, and only ever put there after the check
    }
    let _lock = lock(cache)?;
    make_directory(&home)?;
    let part = home.join("part");
    let outcome = fetch(url, &part, Some(sha256)).and_then(|_| {
        fs::rename(&part, &path).context(|| format!("cannot put the image at {}", path.display()))
    });
    if outcome.is_err() {
        let _ = fs::remove_file(&part);
    }
    outcome.map(|()| path)
}

/// Copies `source` to `target` and returns its SHA-256, compared to the one expected.
fn fetch(source: &str, target: &Path, sha256: Option<&str>) -> Result<String> {
    if is_url(source) {
        let curl = find_in_path("curl").ok_or_else(|| {
            Error::host(format!("`curl` is needed to download {source}"))
                .hint("install curl, or download the image yourself and give its path")
        })?;
        let output = Command::new(curl)
            .args([
                "-fsSL",
                "--retry",
                "3",
                "--proto",
                "=http,https,file",
                "--proto-redir",
                "=http,https",
                "-o",
            ])
            .arg(target)
            .args(["--", source])
            .stdin(Stdio::null())
            .output()
            .context(|| "cannot run curl".into())?;
        if !output.status.success() {
            return Err(Error::failed(format!("cannot download {source}")).caused_by(tail(&output.stderr)));
        }
    } else {
        if !Path::new(source).is_file() {
            return Err(Error::input(format!("there is no image file {source}")));
        }
        fs::copy(source, target).context(|| format!("cannot copy {source}"))?;
    }
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o644); // a system QEMU runs as another user
    fs::set_permissions(target, everyone).context(|| format!("cannot open up {}", target.display()))?;
    let digest = digest_of(target)?;
    if let Some(sha256) = sha256 {
        check(source, &digest, sha256)?;
    }
    Ok(digest)
}

fn check(source: &str, found: &str, wanted: &str) -> Result<()> {
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Error::input(format!("image {source} has another checksum than the one given"))
        .caused_by(format!("SHA-256 is {found}, not {wanted}"))
        .hint("if the image was replaced on purpose, put its new checksum into `sha256:`"))
}

fn digest_of(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).context(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).context(failed)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// The format of a disk that is one whole file.
fn format(path: &Path, name: &str) -> Result<&'static str> {
    let failed = || format!("cannot read {}", path.display());
    let mut head = Vec::new();
    let file = fs::File::open(path).context(failed)?;
    file.take(disk::HEAD as u64).read_to_end(&mut head).context(failed)?;
    disk::format(name, &head)
}
