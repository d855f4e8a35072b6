//! The files of kernel settings, in the network namespace of the calling thread.
//!
//! Each namespace has entries of its own for `ipv4` and `ipv6` below `/proc/sys/net`, and the kernel keeps all of them, of
//! the same name and in the same directory, in one chain of its directory cache, where it compares them one by one
//! (`proc_sys_compare`). With a thousand namespaces that is most of what a look at their settings costs, and it grows with
//! their square. An instance of procfs of one's own begins with an empty chain; it is mounted nowhere, and goes with its
//! descriptor. Each thread has its own: two that walk through one instance take turns at its entries' locks.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where everybody finds them.
const ROOT: &str = "/proc/sys/net";
/// Files opened in one instance: a namespace has about four settings that netloom looks at, and an instance costs as much as
/// a few dozen of them.
const MOST: usize = 512;

/// More than the longest setting takes, in bytes.
const LONGEST: usize = 4096;

/// The instance in use, and how many files were opened in it.
struct Tree {
    instance: Option<OwnedFd>,
    opened: usize,
    /// Whether none can be had: a container often may not mount procfs.
    refused: bool,
}

thread_local! {
    static TREE: RefCell<Tree> = const { RefCell::new(Tree { instance: None, opened: 0, refused: false }) };
}

/// Reads a setting, without the line's end.
pub(super) fn read(path: &str) -> io::Result<String> {
    // One call reads all of it: asking for the size first, and for the end afterwards, would be three more for each of a
    // thousand namespaces.
    let mut text = [0; LONGEST];
    let length = open(path, false)?.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).trim_end().to_owned())
}

/// Writes one.
pub(super) fn write(path: &str, value: &str) -> io::Result<()> {
    open(path, true)?.write_all(value.as_bytes())
}

fn open(path: &str, write: bool) -> io::Result<File> {
    TREE.with_borrow_mut(|tree| {
        let Some(instance) = tree.instance() else {
            return fs::OpenOptions::new().read(!write).write(write).open(Path::new(ROOT).join(path));
        };
        let access = if write { OFlag::O_WRONLY } else { OFlag::O_RDONLY };
        let path = Path::new("sys/net").join(path);
        Ok(openat(instance, &path, access | OFlag::O_CLOEXEC, Mode::empty())?.into())
    })
}

impl Tree {
    fn instance(&mut self) -> Option<&OwnedFd> {
        if self.refused {
            return None;
        }
        self.opened += 1;
        if self.instance.is_none() || self.opened > MOST {
            let made = make();
            self.refused = made.is_err();
            self.instance = made.ok();
            self.opened = 1;
        }
        self.instance.as_ref()
    }
}

fn make() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
