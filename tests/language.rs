//! The language from outside: files that must load, files that must not and what is said about them, and the schema.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use netloom::topology::{LoadOptions, Topology, load_bytes};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} has no files");
    files
}

fn load_path(path: &Path) -> Result<Topology, String> {
    let bytes = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    load_bytes(name, &bytes, &LoadOptions::default()).map_err(|diagnostics| diagnostics.render(false))
}

#[test]
fn good_files_and_topologies_load() {
    for path in yaml_files("topologies").into_iter().chain(yaml_files("tests/good")) {
        if let Err(said) = load_path(&path) {
            panic!("{}:\n{said}", path.display());
        }
    }
}

/// The message of every bad file stands beside it; `UPDATE_SNAPSHOTS=1` writes them anew, for reading before commit.
#[test]
fn bad_files_are_refused_with_these_words() {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut differing = Vec::new();
    for path in yaml_files("tests/bad") {
        let said = match load_path(&path) {
            Err(said) => said,
            Ok(_) => {
                differing.push(format!("{} loads", path.display()));
                continue;
            }
        };
        let beside = path.with_extension("txt");
        if update {
            fs::write(&beside, &said).unwrap();
        }
        let want = fs::read_to_string(&beside).unwrap_or_default();
        if said != want {
            differing.push(format!("{}:\n--- said\n{said}--- wanted\n{want}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
