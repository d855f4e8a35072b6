//! Imported images. Other readers judge: `sha256sum` and `qemu-img`.

use std::path::Path;
use std::process::Command;

use netloom::error::Kind;
use netloom::image::{import, list, overlay, remove, resolve};
use netloom::topology::Image;

use crate::vm::Directory;

fn disk(source: &str, sha256: Option<&str>) -> Image {
    Image::Disk { source: source.into(), sha256: sha256.map(Into::into) }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn information(path: &Path) -> serde_json::Value {
    let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(path).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_imported_image_is_found_by_name_and_backs_an_overlay() {
    let scratch = Directory::new();
    let cache = scratch.path().join("cache");
    let source = scratch.path().join("source.qcow2");
    let made =
        Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&source).arg("16M").status();
    assert!(made.unwrap().success());
    let info = import(&cache, "debian", source.to_str().unwrap(), Some(&sha256(&source))).unwrap();
    assert_eq!((info.format.as_str(), info.digest), ("qcow2", sha256(&source)));
    assert_eq!(list(&cache).unwrap().iter().map(|image| &image.name).collect::<Vec<_>>(), ["debian"]);

    let found = resolve(&cache, &disk("debian", None), scratch.path()).unwrap();
    let target = scratch.path().join("guest.qcow2");
    overlay(&found, &target).unwrap();
    let information = information(&target);
    assert_eq!(information["full-backing-filename"], found.to_str().unwrap());
    assert_eq!(
        (&information["backing-filename-format"], &information["virtual-size"]),
        (&"qcow2".into(), &(16 << 20).into())
    );

    let again = import(&cache, "debian", source.to_str().unwrap(), None).unwrap_err();
    assert_eq!((again.kind, again.message()), (Kind::Input, "there is an image `debian` already"));
    remove(&cache, "debian").unwrap();
    assert!(list(&cache).unwrap().is_empty());
    assert_eq!(remove(&cache, "debian").unwrap_err().kind, Kind::Input);
    assert_eq!(resolve(&cache, &disk("debian", None), scratch.path()).unwrap_err().kind, Kind::Input);
}

#[test]
fn a_raw_disk_by_path_stays_raw_whatever_it_holds_later() {
    let scratch = Directory::new();
    std::fs::write(scratch.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
    let found = resolve(&scratch.path().join("cache"), &disk("disk.img", None), scratch.path()).unwrap();
    let target = scratch.path().join("guest.qcow2");
    overlay(&found, &target).unwrap();
    assert_eq!(information(&target)["backing-filename-format"], "raw");
}

#[test]
fn a_wrong_checksum_is_refused_and_leaves_nothing() {
    let scratch = Directory::new();
    let cache = scratch.path().join("cache");
    let source = scratch.path().join("disk.img");
    std::fs::write(&source, b"some disk").unwrap();
    let (path, url) = (source.to_str().unwrap().to_owned(), format!("file://{}", source.display()));
    let wrong = "0".repeat(64);
    for image in [&path, &url] {
        let error = import(&cache, "name", image, Some(&wrong)).unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.causes()[0].contains(&sha256(&source)), "{error}");
        assert_eq!(
            resolve(&cache, &disk(image, Some(&wrong)), scratch.path()).unwrap_err().kind,
            Kind::Input
        );
    }
    assert!(list(&cache).unwrap().is_empty());
    let left = Command::new("find").arg(&cache).args(["-type", "f", "!", "-name", "lock"]).output().unwrap();
    assert_eq!(String::from_utf8(left.stdout).unwrap(), "");

    assert_eq!(resolve(&cache, &disk(&url, None), scratch.path()).unwrap_err().kind, Kind::Input);
    let right = sha256(&source).to_uppercase();
    let found = resolve(&cache, &disk(&url, Some(&right)), scratch.path()).unwrap();
    std::fs::remove_file(&source).unwrap();
    assert_eq!(std::fs::read(&found).unwrap(), b"some disk");
    assert_eq!(resolve(&cache, &disk(&url, Some(&right)), scratch.path()).unwrap(), found, "downloaded once");
}

#[test]
fn a_name_cannot_lead_out_of_the_cache() {
    let scratch = Directory::new();
    let cache = scratch.path().join("cache");
    std::fs::write(scratch.path().join("victim"), b"precious").unwrap();
    for name in ["../victim", "..", ".", "", "a/b", "built-in", "-x", "a\nb"] {
        assert_eq!(import(&cache, name, "/bin/true", None).unwrap_err().kind, Kind::Input, "{name}");
        assert_eq!(remove(&cache, name).unwrap_err().kind, Kind::Input, "{name}");
    }
    assert_eq!(std::fs::read(scratch.path().join("victim")).unwrap(), b"precious");
    let missing = import(&cache, "name", "/does/not/exist", None).unwrap_err();
    assert_eq!(missing.message(), "there is no image file /does/not/exist");
}
