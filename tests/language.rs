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
