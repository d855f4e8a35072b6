//! No space left where labs are recorded, and a reboot, which leaves the records alone.

use std::fs;
use std::process::Command;

use crate::extent;
use crate::faults::{Deed, Stage};
use crate::host::PlayedHost;
use crate::labs::{CASES, assert_alike, look_alike};

/// Fills what is left on a file system but for so many KiB.
fn fill(host: &PlayedHost, directory: &str, left: usize) {
    host.shell(&format!(
        "dd if=/dev/zero of={directory}/filler bs=4k 2>/dev/null || true
         truncate -s -{}K {directory}/filler",
        left.max(1)
    ));
    if left == 0 {
        host.shell(&format!("dd if=/dev/zero of={directory}/rest bs=4k 2>/dev/null || true"));
    }
}

fn empty(host: &PlayedHost, directory: &str) {
    host.shell(&format!("rm -f {directory}/filler {directory}/rest"));
}

/// With little space for the state of labs `up` succeeds, or says what is wrong and leaves nothing; a lab that is up
/// survives a change that finds none; and `down` needs none.
#[test]
#[ignore = "slow"]
fn a_full_state_directory() {
    let case = CASES[0];
    let stage = Stage::new(case, Deed::Up);
    let host = &stage.host;
    let state = host.state.display().to_string();
    host.shell(&format!("mount -t tmpfs -o size=4m tmpfs {state}"));
    let bare = host.look();
    let (mut failed, mut last) = (0, 1);
    for left in (0..).step_by(extent::of(20, 4)) {
        fill(host, &state, left);
        let up = host.up(&stage.old);
        last = up.code;
        if up.code == 0 {
            host.ok(&["plan", "--check", case.lab]);
            // Not a byte more: a change fails and the lab stays, `down` works.
            host.settle();
            let alike = look_alike(host);
            host.shell(&format!("dd if=/dev/zero of={state}/rest bs=4k 2>/dev/null || true"));
            let change = host.up(&stage.new);
            change.said(3, &["cannot write", "No space left", "Hint: make space"]);
            host.shell(&format!("rm -f {state}/rest"));
            case.assert_works(host, "after a change that found no space");
            assert_alike(host, &alike, "after a change that found no space");
            host.shell(&format!("dd if=/dev/zero of={state}/rest bs=4k 2>/dev/null || true"));
            host.ok(&["down", case.lab]);
        } else {
            failed += 1;
            assert!([3, 4].contains(&up.code), "{left} KiB: {up:?}");
            assert!(up.stderr.contains("No space left") && !up.stderr.contains("panicked"), "{left}: {up:?}");
        }
        host.assert_same(&bare, &format!("{left} KiB: {up:?}"));
        empty(host, &state);
        let left_over = host.shell(&format!("ls -A {state}"));
        assert_eq!(left_over, "", "{left} KiB: {up:?}");
        if last == 0 {
            break;
        }
    }
    assert!(failed > 0 && last == 0);
    println!("a full state directory: {failed} failures until there was space enough");
    host.shell(&format!("umount {state}"));
}

/// `/run` is full: the values of kernel settings cannot be recorded, so they are not touched.
#[test]
fn a_full_run_directory() {
    let case = CASES[0];
    let stage = Stage::new(case, Deed::Up);
    let host = &stage.host;
    host.shell("mount -o remount,size=1m /run");
    let untouched = host.look();
    fill(host, "/run", 0);
    let bare = host.look();
    let up = host.up(&stage.old);
    up.said(3, &["cannot write /run/netloom", "No space left"]);
    host.assert_same(&bare, &format!("{up:?}"));
    host.assert_gone();
    empty(host, "/run");
    host.up(&stage.old).said(0, &[]);
    fill(host, "/run", 0);
    host.ok(&["down", case.lab]);
    empty(host, "/run");
    host.assert_same(&untouched, "after `down` with a full /run");
    host.assert_gone();
}

fn copy_records(from: &PlayedHost, to: &PlayedHost) {
    fs::create_dir_all(&to.state).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.state.join("labs")).arg(&to.state).status();
    assert!(copied.unwrap().success());
}

/// A reboot: everything the kernel had is gone, the records of labs are there.
#[test]
fn a_reboot() {
    for case in CASES.iter().take(extent::of(1, 3)) {
        let before = Stage::new(case, Deed::Up);
        before.host.up(&before.old).said(0, &[]);
        let after = Stage::new(case, Deed::Up);
        let host = &after.host;
        copy_records(&before.host, host);
        let status = host.json(&["status", "--json", case.lab]);
        assert!(!status["drift"].as_array().unwrap().is_empty(), "{status}");
        let runs = status["guests"].as_array().unwrap().iter().any(|guest| guest["running"] == true);
        assert!(!runs, "{status}");
        assert_eq!(host.json(&["list", "--json"])[0]["lab"], case.lab);
        assert_eq!(host.run(&["plan", "--check", case.lab]).code, 1);
        // One is brought down as it is found, the next brought up again.
        host.ok(&["down", case.lab]);
        host.assert_same(&after.bare, "`down` after a reboot");
        host.assert_gone();
        copy_records(&before.host, host);
        host.up(&after.old).said(0, &[]);
        host.ok(&["plan", "--check", case.lab]);
        case.assert_works(host, "`up` after a reboot");
        host.ok(&["down", "--all"]);
        host.assert_same(&after.bare, "`down` after `up` after a reboot");
        host.assert_gone();
        before.host.ok(&["down", case.lab]);
    }
}

/// A host on which nobody ever made a namespace has its directory, and the mount on it, only as long as a lab does.
#[test]
fn the_directory_of_namespaces_goes_again() {
    let host = PlayedHost::new();
    let file = host.file(
        "small.yaml",
        "{ lab: small, networks: { n: { mode: internal } }, guests: { a: { nics: [{ network: n, address: 10.9.0.1/24 }] } } }",
    );
    host.shell(
        "umount /run/netns/isp; rm /run/netns/isp; umount /run/netns; umount /run/netns 2>/dev/null || true",
    );
    let look = || host.shell("find /run | sort; cat /proc/self/mountinfo | cut -d ' ' -f 5 | sort");
    for remove in [false, true] {
        if remove {
            host.shell("rmdir /run/netns");
        }
        let before = look();
        host.up(&file).said(0, &[]);
        assert_ne!(look(), before);
        host.ok(&["down", "small"]);
        assert_eq!(look(), before);
    }
    assert!(!fs::exists(host.state.join("labs")).unwrap());
}

/// A netloom was killed while it wrote what labs share.
#[test]
fn what_was_half_written_goes_with_the_last_lab() {
    let case = CASES[0];
    let stage = Stage::new(case, Deed::Up);
    let host = &stage.host;
    host.shell("mkdir -m 711 /run/netloom && touch /run/netloom/sysctls.new /run/netloom/netns.new");
    host.up(&stage.old).said(0, &[]);
    host.ok(&["down", case.lab]);
    host.assert_same(&stage.bare, "after `down`");
    host.shell("mkdir -m 711 /run/netloom && touch /run/netloom/sysctls.new");
    host.ok(&["down", case.lab]);
    host.assert_same(&stage.bare, "after `down` of nothing");
    host.assert_gone();
}
