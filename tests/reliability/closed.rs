//! Closed: what others wrote, be it a file, a link in the state directory, a disk image, a process or a guest's word, leads
//! netloom nowhere, costs it little, and steers nobody's terminal.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::extent;
use crate::host::PlayedHost;
use crate::rig::{Ended, Rig, eventually};

/// A network with a DHCP server and two guests of which one wants a lease.
const LAB: &str = "
lab: closed
networks:
  lan: { mode: nat, subnet: 10.76.0.0/24 }
guests:
  a: { nics: [{ network: lan, address: 10.76.0.10/24 }], serve: [tcp/80] }
  b: { nics: [{ network: lan }] }
";

/// Most address space of one netloom, in bytes: far below the 1 GiB that hostile input may cost. And most seconds of a
/// processor, in a test build.
const LIMITS: [&str; 3] = ["prlimit", "--as=536870912", "--cpu=30"];

/// Runs netloom with an end to its memory; fails when it takes long, or ends by a signal.
#[track_caller]
fn bounded(rig: &Rig, args: &[&str]) -> Ended {
    let words = [&LIMITS[..], &[env!("CARGO_BIN_EXE_netloom")], args].concat();
    let ended = Ended::from(rig.patient(300, &words).output().unwrap());
    assert!(ended.code <= 4, "netloom {args:?}: {ended:?}");
    ended
}

/// Neither stream may steer a terminal.
#[track_caller]
fn assert_plain(ended: &Ended) {
    let all = format!("{}{}", ended.stdout, ended.stderr);
    let odd = all.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(odd, None, "{ended:?}");
}

#[test]
fn files_that_are_none_are_refused_in_bounded_time_and_memory() {
    let rig = Rig::new();
    let path = |name: &str| rig.work.join(name).display().to_string();
    let hole = fs::File::create(path("hole.yaml")).unwrap();
    hole.set_len(1 << 30).unwrap();
    let made = Command::new("mkfifo").arg(path("fifo.yaml")).status().unwrap();
    assert!(made.success());
    symlink("/dev/zero", path("zero.yaml")).unwrap();
    symlink(path("loop.yaml"), path("loop.yaml")).unwrap();
    fs::create_dir(path("directory.yaml")).unwrap();
    // As large as a file may be (an eighth of it in the short form), of whatever costs most: brackets, keys, mistakes,
    // anchors, one line, quotes, no text.
    let size = extent::of(1 << 20, 8 << 20);
    let mib8 = |piece: &str| piece.repeat(size / piece.len());
    let bomb: String =
        (1..40).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let texts = [
        ("brackets", mib8("[")),
        ("braces", mib8("{a: ")),
        ("deep", (0..4000).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("mistakes", mib8("- x\n")),
        ("unknown keys", (0..size / 12).map(|n| format!("k{n}: v\n")).collect()),
        ("duplicates", mib8("lab: x\n")),
        (
            "guests",
            format!(
                "lab: x\nguests:\n{}",
                (0..size / 48)
                    .map(|n| format!("  g{n}: {{ nics: [{{ network: no }}] }}\n"))
                    .collect::<String>()
            ),
        ),
        ("one line", mib8("a")),
        ("quoted", format!("lab: \"{}", mib8("\\x41"))),
        ("block", format!("lab: |\n{}", mib8("  text\n"))),
        ("comments", mib8("# x\n")),
        ("anchors", mib8("- &a x\n")),
        ("bomb", format!("a0: &a0 x\n{bomb}")),
        (
            "flow bomb",
            format!("lab: x\nguests: {{ a: &a {{ nics: [{}] }} }}\n", vec!["*a"; 100_000].join(",")),
        ),
        ("tags", mib8("- !!str x\n")),
    ];
    for (name, text) in &texts {
        fs::write(path(&format!("{name}.yaml")), &text.as_bytes()[..text.len().min(size)]).unwrap();
    }
    fs::write(path("no text.yaml"), vec![0xff; size]).unwrap();
    fs::write(path("utf-16.yaml"), [b'l', 0, b'a', 0, b'b', 0].repeat(1 << 20)).unwrap();
    let files = fs::read_dir(&rig.work).unwrap().flatten();
    let mut count = 0;
    for file in files {
        let file = file.path().display().to_string();
        let large = fs::metadata(&file).is_ok_and(|found| found.is_file() && found.len() > 100_000);
        let verbs = [&["validate"][..], &["plan", "--json"], &["up"]];
        for verb in &verbs[..if large { 1 } else { 3 }] {
            let ended = bounded(&rig, &[*verb, &[&file]].concat());
            assert_eq!(ended.code, 2, "{file}: {}", ended.stderr.chars().take(400).collect::<String>());
            assert_plain(&ended);
            count += 1;
        }
    }
    assert!(count > texts.len() + 12, "{count}");
    assert_eq!(fs::read_dir(&rig.state).unwrap().count(), 0, "refused before anything was made");
}

/// Verbs that only look at files, or only look, as an ordinary user without a home: none asks for a privilege, sends the
/// kernel a change, or writes a file.
#[test]
fn verbs_that_change_nothing_need_nothing() {
    let rig = Rig::ordinary();
    let file = rig.file("lab.yaml", LAB);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let trace = rig.work.join("trace").display().to_string();
    let program = rig.work.parent().unwrap().join("netloom").display().to_string();
    let verbs: [&[&str]; 10] = [
        &["validate", &file],
        &["plan", &file],
        &["plan", "--json", "--guests", "namespace", &file],
        &["schema"],
        &["modes"],
        &["modes", "show", "nat"],
        &["completions", "bash"],
        &["list", "--json"],
        &["status"],
        &["image", "list"],
    ];
    let before = listing(&rig.state);
    for verb in verbs {
        let watch = [
            "strace",
            "-f",
            "-qq",
            "-o",
            &trace,
            "-e",
            "trace=%file,%network,%process,mount,setns,unshare,setuid,setresuid,capset,kill,ioctl",
        ];
        let ended = Ended::from(rig.other(&[&watch[..], &[&program], verb].concat()).output().unwrap());
        assert_eq!(ended.code, 0, "{verb:?}: {ended:?}");
        let calls = fs::read_to_string(&trace).unwrap();
        assert!(calls.contains("execve("), "{verb:?} was not watched: {calls}");
        for call in calls.lines() {
            assert!(!changes(call), "{verb:?}: {call}");
        }
    }
    assert_eq!(listing(&rig.state), before);
}

/// Whether a traced call changes anything outside of its process, or tries to.
fn changes(call: &str) -> bool {
    let name = call.split_once(' ').map_or(call, |(_, rest)| rest.trim_start());
    let one_of = |names: &[&str]| names.iter().any(|known| name.starts_with(&format!("{known}(")));
    // A request to the kernel's networking that is no dump (`NLM_F_DUMP` is what only looks).
    let netlink = name.starts_with("send")
        && name.contains("nlmsg_type")
        && !["NLM_F_DUMP", "|0x300"].iter().any(|dump| name.contains(dump));
    let written =
        name.starts_with("open") && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| name.contains(flag));
    let null = name.contains("\"/dev/null\"") || name.contains("\"/dev/tty\"");
    netlink
        || (written && !null)
        || one_of(&[
            "mount",
            "umount2",
            "setns",
            "unshare",
            "setuid",
            "setresuid",
            "capset",
            "mkdir",
            "mkdirat",
        ])
        || one_of(&[
            "unlink",
            "unlinkat",
            "rename",
            "renameat",
            "renameat2",
            "symlink",
            "symlinkat",
            "mknodat",
            "chmod",
        ])
        || one_of(&["fchmodat", "chown", "fchownat", "truncate", "kill", "tkill"])
}

fn listing(path: &Path) -> String {
    let seen = Command::new("find").arg(path).args(["-printf", "%p %m %s %T@\n"]).output().unwrap();
    String::from_utf8(seen.stdout).unwrap()
}

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

#[track_caller]
fn bounded_inside(host: &PlayedHost, args: &[&str]) -> Ended {
    let words = [&[env!("CARGO_BIN_EXE_netloom")], args].concat();
    let ended = Ended::from(host.patient(60, &words).output().unwrap());
    assert_ne!(ended.code, 124, "netloom {args:?} took more than 60 s");
    ended
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

/// Links, namespaces and processes of others, with names that would steer a terminal or be taken for options.
#[test]
fn names_from_elsewhere_are_shown_and_not_obeyed() {
    let host = PlayedHost::new();
    let file = host.file("closed.yaml", LAB);
    host.up(&file).said(0, &[]);
    // Set by netlink's own means where `ip` is picky; the alias is free text to it.
    host.shell("ip link add odd0 type bridge && ip link set dev odd0 alias \"$(printf 'netloom:\\033[2J\\302\\233x:bridge:y')\"");
    host.shell("ip link add odd1 type bridge && ip link set dev odd1 alias \"$(printf 'netloom:closed:bridge:\\033]0;x\\007')\"");
    host.shell("ip netns add \"$(printf 'netloom.\\033[31mx.y')\"; ip netns add netloom.--all.x; ip netns add netloom.a");
    host.shell("env NETLOOM_MARK='netloom:--all:service:x d' sleep 1000 >/dev/null 2>&1 & env NETLOOM_MARK=\"$(printf 'netloom:\\033[5mx:service:y d')\" sleep 1000 >/dev/null 2>&1 & \
        env NETLOOM_MARK='netloom:../../work:service:y d' sleep 1000 >/dev/null 2>&1 &");
    for verb in [
        &["list"][..],
        &["list", "--json"],
        &["status"],
        &["status", "closed"],
        &["plan", "closed"],
        &["doctor"],
    ] {
        let ended = bounded_inside(&host, verb);
        assert_plain(&ended);
        if verb[0] == "list" {
            assert!(ended.stdout.contains("closed"), "{ended:?}");
        }
    }
    let ended = bounded_inside(&host, &["down", "--all"]);
    assert_plain(&ended);
    let left = host.shell("ip -o link show odd0; ip netns list; pgrep -cx sleep");
    assert!(left.contains("odd0") && left.contains("netloom.--all.x"), "{left}");
}

/// Where a DHCP client calls itself what it likes.
#[test]
fn a_guests_own_name_reaches_no_terminal() {
    let host = PlayedHost::new();
    let file = host.file("closed.yaml", LAB);
    host.up(&file).said(0, &[]);
    host.sh("closed/b", "busybox udhcpc -f -q -n -t 3 -T 2 -i eth0 -s /bin/true -x \"hostname:$(printf 'a\\033[2Jb')\" -x 0x3d:ff00 >/dev/null 2>&1 || true");
    for verb in [
        &["status", "closed"][..],
        &["status", "--json", "closed"],
        &["plan", "closed"],
        &["up", "--guests", "namespace", &file],
    ] {
        assert_plain(&host.run(verb));
    }
    host.ok(&["down", "closed"]);
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

/// A process of an ordinary user that says it keeps a lab of root's: root does not go where it is.
#[test]
fn a_sandbox_of_somebody_else_is_not_taken_for_ones_own() {
    let rig = Rig::new();
    let other = rig.work.join("other");
    fs::create_dir(&other).unwrap();
    for directory in [rig.state.parent().unwrap(), &rig.work, &other] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // Run by a shell, a script of this name gives the very command line of a keeper.
    fs::write(other.join("__sandbox-init"), "echo ready; while :; do sleep 1; done\n").unwrap();
    let claimed = rig.state.join("labs/prod");
    let mut child = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "--net",
            "--ipc",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "__sandbox-init",
        ])
        .arg(&claimed)
        .current_dir(&other)
        .uid(65517)
        .gid(65517)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    let listed = rig.run(&["list", "--json"]);
    let exec = rig.run(&["exec", "prod/host", "--", "true"]);
    let down = rig.run(&["down", "prod"]);
    let lives = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    let _ = child.wait();
    assert!(!listed.stdout.contains("prod"), "{listed:?}");
    exec.said(2, &["there is no lab `prod`"]);
    down.said(0, &["there is no lab `prod`"]);
    assert!(lives, "somebody else's process was ended");
}

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

/// A lab is brought up without a shell being started by anyone: netloom runs programs with words, not lines. (The one
/// script of ours, udhcpc's hook, is run by the kernel.)
#[test]
fn no_shell_is_started_with_a_users_words() {
    let host = PlayedHost::new();
    let file = host.file(
        "closed.yaml",
        &LAB.replace("lab: closed", "lab: marked-word").replace("  b:", "  marked-guest:"),
    );
    let trace = host.work.join("trace");
    let trace = trace.display().to_string();
    let up = host.command(&["up", "--guests", "namespace", &file]);
    let words: Vec<String> = std::iter::once("strace".to_owned())
        .chain(["-f", "-qq", "-s", "4000", "-e", "trace=execve", "-o", &trace].map(str::to_owned))
        .chain(std::iter::once(up.get_program().to_string_lossy().into_owned()))
        .chain(up.get_args().map(|word| word.to_string_lossy().into_owned()))
        .collect();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env("NETLOOM_STATE_DIR", &host.state)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // strace follows the services, too, and would wait for them: they end with `down`.
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let up = || host.run(&["plan", "--check", "marked-word"]);
    eventually("the lab is up", || (up().code == 0).then_some(()), || up().stderr);
    let calls = fs::read_to_string(&trace).unwrap();
    host.ok(&["down", "marked-word"]);
    let _ = child.wait();
    assert!(calls.contains("dnsmasq") && calls.contains("udhcpc"), "{calls}");
    let shells =
        ["sh", "bash", "dash", "busybox\", [\"sh", "perl", "python3", "env"].map(|name| format!("/{name}\""));
    let started = calls
        .lines()
        .find(|call| call.contains("execve(") && shells.iter().any(|shell| call.contains(shell.as_str())));
    assert_eq!(started, None, "a shell");
    // The hook is a script of ours: all it is told on its command line is which event it is.
    let events = ["\"bound\"]", "\"renew\"]", "\"deconfig\"]", "\"leasefail\"]", "\"nak\"]"];
    let mut hooks = calls.lines().filter(|call| call.contains("execve(") && call.contains("/hook\", ["));
    assert!(hooks.all(|call| events.iter().any(|event| call.contains(event))), "{calls}");
}
