//! Writes an initramfs: a cpio archive in the kernel's `newc` form (Documentation/driver-api/early-userspace/buffer-format.rst
//! of the kernel). The same entries give the same bytes: sorted, time zero, inode numbers counted from one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A file tree to be archived, by path without a leading slash.
#[derive(Default)]
pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    data: Vec<u8>,
    device: (u32, u32),
}

impl Archive {
    /// Adds a directory, mode 0755 (also made for every parent of what is added).
    pub(super) fn directory(&mut self, path: &str) {
        self.insert(path, 0o040_755, Vec::new(), (0, 0));
    }

    /// Adds a file with permission bits `mode`.
    pub(super) fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.insert(path, 0o100_000 | mode, data, (0, 0));
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.insert(path, 0o120_777, target.as_bytes().to_vec(), (0, 0));
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.insert(path, 0o020_000 | mode, Vec::new(), (major, minor));
    }

    /// Whether the path is taken.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    fn insert(&mut self, path: &str, mode: u32, data: Vec<u8>, device: (u32, u32)) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.contains(parent)
        {
            self.directory(parent);
        }
        self.entries.insert(path.to_owned(), Entry { mode, data, device });
    }

    /// The archive's bytes.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let end = Entry { mode: 0, data: Vec::new(), device: (0, 0) };
        let named = self.entries.iter().map(|(path, entry)| (path.as_str(), entry));
        for (inode, (path, entry)) in (1_usize..).zip(named.chain([("TRAILER!!!", &end)])) {
            let links = if entry.mode & 0o040_000 != 0 { 2 } else { 1 };
            let mut header = String::from("070701");
            let fields = [
                inode,
                entry.mode as usize,
                0, // owner root
                0,
                links,
                0, // time
                entry.data.len(),
                0,
                0,
                entry.device.0 as usize,
                entry.device.1 as usize,
                path.len() + 1,
                0, // checksum, unused in this form
            ];
            for field in fields {
                let _ = write!(header, "{field:08x}");
            }
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(path.as_bytes());
            out.push(0);
            pad(&mut out);
            out.extend_from_slice(&entry.data);
            pad(&mut out);
        }
        out
    }
}

/// Names and contents begin at multiples of four bytes.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// The judge is `cpio`, an independent reader of the form.
    #[test]
    fn cpio_lists_what_was_added() {
        let mut archive = Archive::default();
        archive.file("etc/motd", 0o644, b"hello\n".to_vec());
        archive.link("bin", "usr/bin");
        archive.device("dev/console", 0o600, 5, 1);
        let mut cpio = Command::new("cpio")
            .args(["-itv", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let listing = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        let names: Vec<&str> = lines.iter().map(|words| words.last().copied().unwrap()).collect();
        assert_eq!(names, ["usr/bin", "dev", "dev/console", "etc", "etc/motd"]);
        assert_eq!(lines[0][0], "lrwxrwxrwx");
        assert_eq!(lines[2][0], "crw-------");
        assert_eq!(&lines[4][..5], ["-rw-r--r--", "1", "0", "0", "6"]);
    }
}
