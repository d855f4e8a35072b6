//! Files of a lab. Whoever may write below the state directory must not be able to send netloom, which may be root,
//! anywhere else: no symbolic link is followed on the way to a file, what is read is a plain file of a bearable size,
//! and what is written is for nobody else to read.
//!
//! The state directory itself may lie behind symbolic links, and so may its `images` and `cache`: that is its owner's own
//! choice, and is resolved before ([`settled`]).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The largest file of a lab that is read, in bytes: twice the largest file of a user's, since a record of how a
/// service was made holds much of it.
const LARGEST: u64 = 16 << 20;

/// A directory on the way: neither read nor listed, only passed through.
const PASSED: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A path of the owner's choice without the symbolic links in it; what does not exist yet stays as it is.
#[must_use]
pub(crate) fn settled(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(real) = std::fs::canonicalize(ancestor) {
            return rest.into_iter().rev().fold(real, |path: PathBuf, name: &OsStr| path.join(name));
        }
        rest.extend(ancestor.file_name());
    }
    path.to_owned()
}

/// Reads a plain file as text.
///
/// # Errors
/// When it is not there, behind a symbolic link, no plain file, too large or not UTF-8.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let file = open(path, OFlag::O_RDONLY, 0)?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(text)
}

/// Opens a plain file; a new one, where `flags` allow that, gets the permissions `mode`.
///
/// # Errors
/// When it is not there, behind a symbolic link or no plain file.
pub(crate) fn open(path: &Path, flags: OFlag, mode: u32) -> io::Result<File> {
    let (directory, name) = beside(path, None)?;
    // Without O_NONBLOCK the open of a FIFO would wait for its other end.
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = openat(&directory, name, flags, Mode::from_bits_truncate(mode)).map_err(|e| match e {
        Errno::ELOOP => io::Error::other("it is a symbolic link, which netloom does not follow"),
        Errno::ENXIO => io::Error::other("it is no plain file"),
        other => other.into(),
    })?;
    let file = File::from(file);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
}

/// A file that is written but has not taken its place yet; dropped, it goes.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The directory it is in, which stays the same one whatever its name comes to mean.
    directory: OwnedFd,
    /// Name of the temporary file; empty once it has its place.
    temporary: OsString,
    name: OsString,
    durable: bool,
}

/// Writes a file beside its place, under a temporary name. Nothing is left of it after a failure. A `durable` one is on
/// the disk when this returns.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn stage(path: &Path, contents: &[u8], mode: u32, durable: bool) -> io::Result<Staged> {
    let temporary = path.with_extension("new");
    let (directory, own) = beside(&temporary, None)?;
    match unlinkat(&directory, own, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let (_, name) = split(path)?;
    let staged = Staged { temporary: own.to_owned(), name: name.to_owned(), directory, durable };
    let mut file = open(&temporary, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, mode)?;
    io::Write::write_all(&mut file, contents)?;
    // The permissions of a new file lack what the caller's umask takes.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    if durable {
        file.sync_all()?;
    }
    Ok(staged)
}

impl Staged {
    /// Puts it in its place. Whatever has its name, a symbolic link too, is replaced.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        let Self { directory, temporary, name, durable } = &self;
        nix::fcntl::renameat(directory, temporary.as_os_str(), directory, name.as_os_str())?;
        if *durable {
            // A file system that cannot do this for a directory does not need it.
            let _ = openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map(|directory| File::from(directory).sync_all());
        }
        self.temporary.clear();
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.temporary.is_empty() {
            let _ = unlinkat(&self.directory, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Writes a file whole: a temporary one beside it, then a rename.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    stage(path, contents, mode, false)?.commit()
}

/// Makes a directory and those above it.
///
/// # Errors
/// When one cannot be made, or something else has its name.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    let (directory, name) = beside(path, Some(mode))?;
    step(&directory, name, Some(mode)).map(drop)
}

/// A directory that was reached without following a symbolic link, and stays the same one whatever its name comes to mean.
/// What is in it is named from there, and not by a path below `/proc/self/fd`: a process that has entered a sandbox to
/// end it has no `/proc/self`.
pub(crate) struct Reached(OwnedFd);

impl Reached {
    /// Names of what is in it.
    fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.0, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes everything in it but the one called `kept`. What goes meanwhile is gone.
    ///
    /// # Errors
    /// When something cannot be removed; the rest was tried.
    pub(crate) fn clear(&self, kept: &str) -> io::Result<()> {
        let names = self.names()?;
        names.iter().filter(|name| *name != kept).map(|name| self.remove(name)).fold(Ok(()), io::Result::and)
    }

    /// Removes one thing in it, a directory with everything in that. Of a symbolic link the link goes. Fine when it is gone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = name.as_ref();
        let removed = match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {
                step(&self.0, name, None).map(Reached)?.clear("")?;
                unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)
            }
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Reaches a directory.
///
/// # Errors
/// When it is not there, behind a symbolic link or no directory.
pub(crate) fn reach(path: &Path) -> io::Result<Reached> {
    let (directory, name) = beside(path, None)?;
    step(&directory, name, None).map(Reached)
}

/// Removes a directory with everything in it. Fine when it is gone. Of a symbolic link in its place the link goes.
///
/// # Errors
/// When it is behind a symbolic link, or something in it cannot be removed.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match beside(path, None) {
        Ok((directory, name)) => Reached(directory).remove(name),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// The directory that a file is in, reached without following a symbolic link, and the file's name there. Directories
/// that are missing are made where there is a mode for them.
fn beside(path: &Path, make: Option<Mode>) -> io::Result<(OwnedFd, &OsStr)> {
    let (parent, name) = split(path)?;
    let start = if path.is_absolute() { "/" } else { "." };
    let mut directory = openat(AT_FDCWD, start, PASSED, Mode::empty())?;
    for component in parent.components() {
        match component {
            Component::Normal(name) => directory = step(&directory, name, make)?,
            Component::RootDir | Component::CurDir => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "`..` in a path of netloom's own")),
        }
    }
    Ok((directory, name))
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent().zip(path.file_name()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// One directory further down.
fn step(above: &OwnedFd, name: &OsStr, make: Option<Mode>) -> io::Result<OwnedFd> {
    loop {
        match openat(above, name, PASSED, Mode::empty()) {
            Ok(directory) => return Ok(directory),
            Err(Errno::ENOENT) if make.is_some() => {}
            // Said of symbolic links, too, which are not followed.
            Err(Errno::ENOTDIR) if is_link(above, name) => {
                let what = format!("`{}` is a symbolic link, which netloom does not follow", name.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
            }
            Err(e) => return Err(e.into()),
        }
        match mkdirat(above, name, make.unwrap_or(Mode::empty())) {
            Ok(()) | Err(Errno::EEXIST) => {} // another process may have made it, or have removed it since
            Err(e) => return Err(e.into()),
        }
    }
}

fn is_link(above: &OwnedFd, name: &OsStr) -> bool {
    fstatat(above, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFLNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;

    struct Scratch(PathBuf);
    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("netloom-files-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(fs::canonicalize(path).unwrap())
        }
    }
    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_private_and_reads_back() {
        let scratch = Scratch::new("plain");
        let path = scratch.0.join("a/b/c.json");
        make_directory(path.parent().unwrap(), 0o711).unwrap();
        make_directory(path.parent().unwrap(), 0o711).unwrap();
        write(&path, b"text", 0o600).unwrap();
        write(&path, b"other", 0o600).unwrap();
        assert_eq!(read(&path).unwrap(), "other");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn no_link_is_followed_to_a_file_or_on_the_way() {
        let scratch = Scratch::new("links");
        let (victim, target) = (scratch.0.join("victim"), scratch.0.join("elsewhere"));
        fs::create_dir(&target).unwrap();
        for path in [&victim, &target.join("file")] {
            fs::write(path, "precious").unwrap();
        }
        let (link, way) = (scratch.0.join("link"), scratch.0.join("way"));
        symlink(&victim, &link).unwrap();
        symlink(&target, &way).unwrap();
        assert_eq!(settled(&way.join("no/such")), target.join("no/such"));
        for path in [&link, &way.join("file")] {
            assert!(read(path).unwrap_err().to_string().contains("symbolic link"), "{}", path.display());
            assert!(open(path, OFlag::O_RDWR | OFlag::O_CREAT, 0o600).is_err());
        }
        assert!(write(&way.join("file"), b"", 0o600).is_err());
        assert!(make_directory(&way, 0o711).is_err());
        assert!(make_directory(&way.join("new"), 0o711).is_err());
        // A link in the place of a file, or of the temporary one, is replaced and not followed.
        symlink(&victim, scratch.0.join("link.new")).unwrap();
        assert!(reach(&way).is_err());
        assert!(remove_directory(&way.join("sub")).is_err());
        remove_directory(&way).unwrap();
        assert!(fs::symlink_metadata(&way).is_err() && target.join("file").exists());
        write(&link, b"text", 0o600).unwrap();
        assert_eq!(read(&link).unwrap(), "text");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let scratch = Scratch::new("odd");
        let began = Instant::now();
        let (fifo, hole) = (scratch.0.join("fifo"), scratch.0.join("hole"));
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        File::create(&hole).unwrap().set_len(1 << 40).unwrap();
        for path in [&fifo, &scratch.0, Path::new("/dev/zero"), Path::new("/dev/tty"), &hole] {
            assert!(read(path).is_err(), "{}", path.display());
        }
        assert!(open(&fifo, OFlag::O_WRONLY, 0).is_err());
        assert!(read(&scratch.0.join("none")).is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
        assert!(began.elapsed().as_secs() < 5);
        assert!(read(&scratch.0.join("../x")).is_err());
    }
}
