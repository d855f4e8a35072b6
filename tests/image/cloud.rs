//! Cloud images of the distribution's own making, each built once for all runs of all tests.

use std::path::PathBuf;
use std::process::Command;

fn made(name: &str, arguments: &[&str]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !path.is_file() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cloud-image.sh");
        assert!(Command::new(script).args(arguments).arg(&path).status().unwrap().success());
    }
    path
}

/// With everything that a guest needs.
pub(crate) fn cloud_image() -> PathBuf {
    made("cloud.qcow2", &[])
}

/// The same, without a guest agent.
#[allow(dead_code, reason = "shared by two test programs")]
pub(crate) fn cloud_image_without_agent() -> PathBuf {
    made("cloud-without-agent.qcow2", &["--without-agent", cloud_image().to_str().unwrap()])
}
