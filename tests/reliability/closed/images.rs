//! Disk images of others.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::rig::Rig;

/// Disk images that lead elsewhere, made by QEMU's own tool.
#[test]
fn images_that_name_other_files_are_refused() {
    let rig = Rig::new();
    let path = |name: &str| rig.work.join(name).display().to_string();
    let secret = path("secret");
    fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let make = |words: &[&str]| {
        let made = Command::new("qemu-img").arg("create").arg("-q").args(words).output().unwrap();
        assert!(made.status.success(), "{words:?}: {made:?}");
    };
    make(&["-f", "qcow2", "-F", "raw", "-b", &secret, &path("backing")]);
    make(&["-f", "qcow2", "-u", "-F", "raw", "-b", "nbd://192.0.2.1/x", &path("network"), "1M"]);
    make(&[
        "-f",
        "qcow2",
        "-u",
        "-F",
        "raw",
        "-b",
        "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
        &path("json"),
        "1M",
    ]);
    make(&[
        "-f",
        "qcow2",
        "-o",
        &format!("data_file={},data_file_raw=on", path("data")),
        &path("external"),
        "1M",
    ]);
    make(&["-f", "vmdk", "-o", "subformat=monolithicFlat", &path("flat.vmdk"), "1M"]);
    make(&["-f", "vmdk", &path("sparse.vmdk"), "1M"]);
    make(&["-f", "vdi", &path("disk.vdi"), "1M"]);
    make(&["-f", "vhdx", &path("disk.vhdx"), "8M"]);
    make(&["-f", "vpc", &path("disk.vhd"), "8M"]);
    make(&["-f", "qcow", &path("old"), "1M"]);
    make(&["-f", "qcow2", &path("whole"), "1M"]);
    // A raw disk into which a guest wrote the header of a difference to another file.
    let mut disk = vec![0; 1 << 20];
    let header = fs::read(path("backing")).unwrap();
    disk[..header.len().min(65536)].copy_from_slice(&header[..header.len().min(65536)]);
    fs::write(path("disguised"), disk).unwrap();
    fs::write(path("cut"), &header[..40]).unwrap();
    let refused = [
        "backing",
        "network",
        "json",
        "external",
        "flat.vmdk",
        "sparse.vmdk",
        "disk.vdi",
        "disk.vhdx",
        "disk.vhd",
        "old",
        "disguised",
        "cut",
    ];
    for name in refused {
        let ended = rig.run(&["image", "import", "evil", &path(name)]);
        ended.said(2, &["Hint:"]);
        let overlay = netloom::image::overlay(Path::new(&path(name)), &rig.work.join("guest.qcow2"));
        assert!(overlay.is_err_and(|e| e.kind.exit_code() == 2), "{name}");
    }
    for source in ["/dev/zero", "/dev/tty", "/proc/kcore/", &path("fifo")] {
        if source.ends_with("fifo") {
            assert!(Command::new("mkfifo").arg(source).status().unwrap().success());
        }
        rig.run(&["image", "import", "evil", source]).said(2, &["there is no image file"]);
    }
    assert_eq!(rig.json(&["image", "list", "--json"]).as_array().unwrap().len(), 0);
    rig.ok(&["image", "import", "good", &path("whole")]);
    netloom::image::overlay(Path::new(&path("whole")), &rig.work.join("guest.qcow2")).unwrap();
    assert_eq!(fs::metadata(rig.work.join("guest.qcow2")).unwrap().mode() & 0o777, 0o600);
    rig.ok(&["image", "remove", "good"]);
    assert_eq!(fs::read(&secret).unwrap(), vec![b's'; 1 << 20]);
}
