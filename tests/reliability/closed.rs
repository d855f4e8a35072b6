//! Closed: what others wrote, be it a file, a link in the state directory, a disk image, a process or a guest's word, leads
//! netloom nowhere, costs it little, and steers nobody's terminal.

#[path = "closed/images.rs"]
mod images;
#[path = "closed/state.rs"]
mod state;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
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

/// The same on a played host.
#[track_caller]
fn bounded_inside(host: &PlayedHost, args: &[&str]) -> Ended {
    let words = [&[env!("CARGO_BIN_EXE_netloom")], args].concat();
    let ended = Ended::from(host.patient(60, &words).output().unwrap());
    assert_ne!(ended.code, 124, "netloom {args:?} took more than 60 s");
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
