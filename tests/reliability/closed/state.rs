//! What a lab keeps on disk, when somebody else has been at it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{LAB, assert_plain, bounded_inside};
use crate::extent;
use crate::host::PlayedHost;
use crate::rig::{Rig, eventually};

/// What a lab leaves on disk is its owner's alone, and serves all the same: the guest has its lease.
#[test]
fn the_files_of_a_lab_are_private() {
    let host = PlayedHost::new();
    let file = host.file("closed.yaml", LAB);
    host.up(&file).said(0, &[]);
    let leased = host.sh("closed/b", "ip -4 -o address show dev eth0");
    assert!(leased.contains("10.76.0."), "{leased}");
    let open: Vec<String> =
        found(&host.state).into_iter().filter(|(mode, _)| mode & 0o077 != 0).map(|(_, p)| p).collect();
    assert_eq!(open, Vec::<String>::new(), "files that others may open");
    let seen = fs::read_dir(host.state.join("labs/closed/services")).unwrap().count();
    assert!(seen >= 2, "{seen} services");
    // An ordinary user's own eyes: nothing can be listed or read.
    for path in ["labs", "labs/closed"] {
        let looked = Command::new("ls").arg(host.state.join(path)).uid(65517).gid(65517).output().unwrap();
        assert!(!looked.status.success(), "{looked:?}");
    }
    for path in ["netloom.yaml", "lab.json", "holder", "lock"] {
        let path = host.state.join("labs/closed").join(path);
        assert!(path.exists(), "{}", path.display());
        let looked = Command::new("cat").arg(&path).uid(65517).gid(65517).output().unwrap();
        assert!(!looked.status.success(), "{}", path.display());
    }
    // The lease is renewed by a server that reads its own files again.
    host.shell("for process in /proc/[0-9]*; do if tr '\\0' '\\n' <$process/environ 2>/dev/null | grep -q '^NETLOOM_MARK=.*dnsmasq' && \
        grep -q dnsmasq $process/comm; then kill ${process#/proc/}; fi; done");
    host.sh("closed/b", "ip -4 address flush dev eth0");
    host.shell("for process in /proc/[0-9]*; do if grep -q busybox $process/comm && tr '\\0' ' ' <$process/cmdline | grep -q udhcpc; then kill -USR1 ${process#/proc/}; fi; done");
    let again = || host.sh("closed/b", "ip -4 -o address show dev eth0").contains("10.76.0.").then_some(());
    eventually("the lease is had again", again, || host.sh("closed/b", "ip address"));
    host.ok(&["down", "closed"]);
    host.assert_gone();
}

/// Files below a directory with their permissions.
fn found(path: &Path) -> Vec<(u32, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap().flatten() {
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        if metadata.is_dir() {
            let closed = metadata.mode() & 0o011 == 0; // for whom its files' own permissions do not matter
            let inside = found(&entry.path()).into_iter();
            all.extend(inside.map(|(mode, path)| (if closed { mode & !0o077 } else { mode }, path)));
        } else {
            all.push((metadata.mode(), entry.path().display().to_string()));
        }
    }
    all
}

/// Something precious, and a look at it.
struct Victim(PathBuf);

impl Victim {
    fn new(rig: &Rig) -> Self {
        let path = rig.work.join("victim");
        for name in ["", "closed", "services", "guests", "rulesets", "closed/services"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        for name in
            ["file", "lock", "leases", "closed/lab.json", "closed/file", "services/file", "rulesets/file"]
        {
            fs::write(path.join(name), "{\"precious\": true}").unwrap();
        }
        Self(path)
    }

    fn look(&self) -> String {
        let script = "cd \"$0\" && find . -printf '%p %m %s %T@\\n' | sort && cat file lock closed/*";
        let seen =
            Command::new("sh").args(["-c", script]).arg(&self.0).stderr(Stdio::null()).output().unwrap();
        String::from_utf8(seen.stdout).unwrap()
    }
}

/// Each file and directory of a lab in turn becomes a link to something precious, a FIFO, a directory, or a hole of a
/// terabyte. Every verb then ends soon, and nothing outside of the lab's directory is changed; once the odd thing is
/// gone, so is the lab. (A few of them in the short form.)
#[test]
#[ignore = "slow"]
fn links_in_the_state_directory_are_not_followed() {
    let host = PlayedHost::new();
    let file = host.file("closed.yaml", LAB);
    let victim = Victim::new(&host);
    let precious = victim.look();
    let before = host.look();
    let lab = host.state.join("labs/closed");
    host.up(&file).said(0, &[]);
    let mut parts: Vec<PathBuf> = found(&lab).into_iter().map(|(_, path)| path.into()).collect();
    parts.extend(["services", "rulesets"].map(|name| lab.join(name)));
    parts.push(lab.clone());
    parts.push(host.state.join("labs"));
    host.ok(&["down", "closed"]);
    assert!(parts.len() > 15, "{parts:?}");
    let seed = extent::seed();
    eprintln!("NETLOOM_SEED={seed}");
    extent::dice(seed).shuffle(&mut parts);
    parts.truncate(extent::of(4, usize::MAX));
    for (index, part) in parts.iter().enumerate() {
        let odd = ["link", "fifo", "hole", "directory", "dangling"][index % 5];
        let (odd, other) =
            if part.extension().is_some() || part.is_file() { (odd, "link") } else { ("link", "fifo") };
        for odd in [odd, other] {
            host.up(&file).said(0, &[]);
            let what = format!("{} as {odd}", part.display());
            let aside = part.with_file_name("aside");
            fs::rename(part, host.work.join("aside")).or_else(|_| fs::rename(part, &aside)).unwrap();
            replace(part, odd, &victim.0);
            for verb in [
                &["status", "closed"][..],
                &["plan", &file],
                &["list"],
                &["up", "--guests", "namespace", &file],
                &["down", "closed"],
            ] {
                eprintln!("{what}: {verb:?}");
                let ended = bounded_inside(&host, verb);
                assert!(ended.code <= 4, "{what}: {verb:?}: {ended:?}");
                assert_eq!(victim.look(), precious, "{what}: {verb:?}: {ended:?}");
            }
            // Whatever was refused, is done once the odd thing is out of the way.
            let _ = fs::remove_file(part).or_else(|_| fs::remove_dir(part));
            host.ok(&["down", "closed"]);
            let _ = fs::remove_dir_all(host.state.join("labs"));
            let _ = fs::remove_dir_all(host.work.join("aside"));
            let _ = fs::remove_file(host.work.join("aside"));
            let _ = fs::remove_dir_all(aside);
            host.assert_same(&before, &what);
        }
    }
    assert_eq!(victim.look(), precious);
}

fn replace(part: &Path, odd: &str, victim: &Path) {
    match odd {
        "link" if part.extension().is_some() => symlink(victim.join("file"), part).unwrap(),
        "link" => symlink(victim, part).unwrap(),
        "dangling" => symlink(victim.join("none"), part).unwrap(),
        "fifo" => assert!(Command::new("mkfifo").arg(part).status().unwrap().success()),
        "hole" => fs::File::create(part).unwrap().set_len(1 << 40).unwrap(),
        _ => fs::create_dir(part).unwrap(),
    }
}

/// Records in a lab's directory that say something else than netloom wrote.
#[test]
fn hostile_records_mislead_nobody() {
    let host = PlayedHost::new();
    let file = host.file("closed.yaml", LAB);
    let before = host.look();
    let texts = [
        "",
        "null",
        "[]",
        "{",
        "\u{0}",
        "{\"sandbox\":{\"pid\":1,\"started\":0}}",
        "{\"connect\":\"test:///default\\u001b[2J\"}",
        "{\"file_directory\":\"../../..\",\"guests\":\"\\u001b[2J\"}",
        "{\"place\":{\"netns\":\"../../victim\"},\"argv\":[],\"files\":{}}",
        "{\"place\":\"host\",\"argv\":[\"/bin/sh\",\"-c\",\"touch /run/obeyed\"],\"files\":{\"../../../../escaped\":\"x\"}}",
        "{\"script\":\"flush ruleset\",\"listing\":\"x\"}",
    ];
    for (index, text) in texts.iter().enumerate() {
        host.up(&file).said(0, &[]);
        let records: Vec<PathBuf> = found(&host.state.join("labs/closed"))
            .into_iter()
            .map(|(_, path)| PathBuf::from(path))
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        assert!(records.len() >= 6, "{records:?}");
        for record in &records {
            // One in a few is deep instead, which a parser that calls itself would not survive.
            let deep = "[".repeat(1 << 20);
            fs::write(record, if index == 3 { deep.as_str() } else { text }).unwrap();
        }
        for verb in [&["status", "closed"][..], &["plan", &file], &["list"]] {
            assert_plain(&bounded_inside(&host, verb));
        }
        let mut down = bounded_inside(&host, &["down", "closed"]);
        assert_plain(&down);
        if text.contains("connect") {
            // Guests may be on that libvirt: that it cannot be asked is said, and the lab kept until it can.
            down.said(2, &["test:///default"]);
            fs::remove_file(host.state.join("labs/closed/lab.json")).unwrap();
            down = bounded_inside(&host, &["down", "closed"]);
        }
        assert_eq!(down.code, 0, "{text}: {down:?}");
        host.assert_same(&before, text);
        host.assert_gone();
        assert!(!Path::new("/run/obeyed").exists());
    }
}
