//! What a disk image is, by its own first bytes. Nothing that an image names is opened: a file from elsewhere must not
//! decide which files of this host a guest gets to read.

use crate::error::{Error, Result};

/// How much of a file is looked at, in bytes: what all the headers below lie in.
pub(crate) const HEAD: usize = 512;

/// `QFI` and 0xfb (QEMU, docs/interop/qcow2).
const QCOW: &[u8] = b"QFI\xfb";
/// `incompatible_features`, bit 2: the guest's data lie in another file.
const DATA_FILE: u64 = 1 << 2;

/// Formats that are neither qcow2 nor raw, by what they begin with: offset, bytes, name.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"KDMV", "a VMDK disk"),
    (0, b"COWD", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"conectix", "a VHD disk"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"QED\0", "a QED disk"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"Bochs Virtual HD Image", "a Bochs disk"),
    (0, b"LUKS\xba\xbe", "an encrypted disk"),
];

/// Compressed files, and what unpacks them.
const PACKED: &[(&[u8], &str)] = &[
    (b"\x1f\x8b\x08", "gzip -d"),
    (b"\xfd7zXZ\0", "xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd -d"),
    (b"BZh", "bzip2 -d"),
    (b"PK\x03\x04", "unzip"),
];

/// `qcow2` or `raw`, to be told to QEMU outright, since its own guess can be led astray by what a guest writes into a
/// raw disk. `head` are the first [`HEAD`] bytes of the file, or all of a shorter one; `name` is what messages call it.
///
/// # Errors
/// Exit 2 for an image that is made of more than one file, is packed, or has another format.
pub(crate) fn format(name: &str, head: &[u8]) -> Result<&'static str> {
    if head.starts_with(QCOW) {
        return whole_qcow2(name, head).map(|()| "qcow2");
    }
    let begins = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((_, _, what)) = OTHERS.iter().find(|(offset, magic, _)| begins(*offset, magic)) {
        return Err(Error::input(format!("image {name} is {what}; netloom takes qcow2 and raw ones"))
            .hint("convert it, where you trust it: qemu-img convert -O qcow2 OLD NEW.qcow2"));
    }
    if let Some((_, tool)) = PACKED.iter().find(|(magic, _)| begins(0, magic)) {
        return Err(Error::input(format!("image {name} is a compressed file, not a disk"))
            .hint(format!("unpack it first: {tool}")));
    }
    Ok("raw")
}

/// Refuses a qcow2 image that leads to other files.
fn whole_qcow2(name: &str, head: &[u8]) -> Result<()> {
    let refused = |why: &str| {
        Error::input(format!("image {name} {why}"))
            .hint("make it one file, where you trust it: qemu-img convert -O qcow2 OLD NEW.qcow2")
    };
    let short = || refused("ends within its own header");
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_be_bytes(head.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    let version = number(4).ok_or_else(short)? >> 32;
    if !(2..=3).contains(&version) {
        return Err(refused(&format!("is of version {version} of the qcow format, not of 2 or 3")));
    }
    // backing_file_offset at 8: 0 where there is none.
    if number(8).ok_or_else(short)? != 0 {
        return Err(refused("is a difference to another file, which it names (a backing file)"));
    }
    // incompatible_features at 72, from version 3 on.
    if version == 3 && number(72).ok_or_else(short)? & DATA_FILE != 0 {
        return Err(refused("keeps its data in another file, which it names (a data file)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, backing: u64, features: u64) -> Vec<u8> {
        let mut head = QCOW.to_vec();
        head.extend(version.to_be_bytes());
        head.extend(backing.to_be_bytes());
        head.resize(72, 0);
        head.extend(features.to_be_bytes());
        head.resize(HEAD, 0);
        head
    }

    #[test]
    fn only_whole_disks_pass() {
        assert_eq!(format("x", &header(3, 0, 0)).unwrap(), "qcow2");
        assert_eq!(format("x", &header(2, 0, u64::MAX)).unwrap(), "qcow2"); // version 2 has other things there
        assert_eq!(format("x", &header(3, 0, 3)).unwrap(), "qcow2");
        for head in [header(3, 112, 0), header(2, 72, 0), header(3, 0, 4), header(1, 0, 0), header(4, 0, 0)] {
            assert!(format("x", &head).is_err(), "{head:?}");
        }
        for length in 4..80 {
            let cut = format("x", &header(3, 0, 0)[..length]);
            assert!(cut.is_err(), "{length}: {cut:?}");
        }
        assert_eq!(format("x", &[]).unwrap(), "raw");
        assert_eq!(format("x", &[0; HEAD]).unwrap(), "raw");
        assert_eq!(format("x", b"\0QFI\xfb").unwrap(), "raw");
    }

    #[test]
    fn other_formats_are_named() {
        let mut vdi = [0; HEAD];
        vdi[0x40..0x44].copy_from_slice(b"\x7f\x10\xda\xbe");
        for (head, word) in
            [(&vdi[..], "VDI"), (b"KDMV", "VMDK"), (b"vhdxfile\0", "VHDX"), (b"BZh9", "compressed")]
        {
            let said = format("x", head).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
    }
}
