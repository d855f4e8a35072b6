#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_lab_that_is_let_go_a_moment_later_is_waited_for_and_no_other() {
    let state = std::env::temp_dir().join(format!("netloom-lock-{}", std::process::id()));
    let lab = LabDir::new(&state, "held");
    let held = lab.lock().unwrap();
    let error = lab.lock().unwrap_err().to_string();
    assert!(error.contains("is held by another netloom"), "{error}");
    let dying = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(60));
        drop(held);
    });
    drop(lab.lock().unwrap());
    dying.join().unwrap();
    fs::remove_dir_all(&state).unwrap();
}
