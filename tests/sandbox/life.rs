//! How sandboxes begin and end.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netloom::sandbox;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::Case;
use crate::rig::{Rig, eventually, namespace, namespaces, text};

pub(crate) const ALL: &[Case] = &[
    ("two_sandboxes_do_not_meet", two_sandboxes_do_not_meet),
    ("the_host_is_as_before", the_host_is_as_before),
    ("a_killed_keeper_takes_everything_along", a_killed_keeper_takes_everything_along),
    ("a_keeper_ends_on_sigterm_only", a_keeper_ends_on_sigterm_only),
    ("an_interrupted_create_leaves_nothing", an_interrupted_create_leaves_nothing),
    ("ctrl_c_during_create_is_answered", ctrl_c_during_create_is_answered),
    ("a_second_sandbox_is_refused", a_second_sandbox_is_refused),
    ("a_reused_process_id_is_not_taken_for_a_keeper", a_reused_process_id_is_not_taken_for_a_keeper),
    ("forbidden_user_namespaces_are_explained", forbidden_user_namespaces_are_explained),
    ("a_missing_dnsmasq_is_explained", a_missing_dnsmasq_is_explained),
    ("descriptors_of_the_caller_are_not_kept", descriptors_of_the_caller_are_not_kept),
];

fn two_sandboxes_do_not_meet() {
    let rig = Rig::unprivileged("two");
    let makers: Vec<_> =
        ["one", "two"].map(|lab| rig.command(&["__create", lab]).spawn().unwrap()).into_iter().collect();
    for mut maker in makers {
        assert!(maker.wait().unwrap().success());
    }
    rig.run("one", &["ip", "link", "add", "br0", "type", "bridge"]);
    assert!(!rig.inside("two", &["ip", "link", "show", "br0"]).status.success());
    let info = ["one", "two"].map(|lab| rig.info(lab).unwrap());
    // Found by their processes alone, too.
    for (lab, info) in ["one", "two"].iter().zip(&info) {
        assert_eq!(sandbox::find(&rig.state.join("labs").join(lab)).as_ref(), Some(info));
    }
    rig.stop("one");
    assert!(!sandbox::alive(&info[0]) && sandbox::alive(&info[1]));
    rig.run("two", &["ping", "-n", "-c1", "-W2", "198.51.100.10"]);
    rig.stop("two");
    rig.stop("two");
    assert_eq!(rig.left(), Vec::<String>::new());
}

fn the_host_is_as_before() {
    let look = || {
        let mut seen = String::new();
        for command in
            ["ip -d link", "ip addr show scope global", "ip route", "ip netns", "cat /proc/self/mountinfo"]
        {
            let words: Vec<&str> = command.split(' ').collect();
            let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
            // Lifetimes tick.
            seen.extend(
                String::from_utf8(output.stdout)
                    .unwrap()
                    .lines()
                    .filter(|l| !l.contains("valid_lft"))
                    .map(|l| format!("{l}\n")),
            );
        }
        seen + &fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap()
    };
    let before = look();
    let rig = Rig::new("untouched");
    rig.create("one");
    assert_eq!(look(), before);
    rig.stop("one");
    assert_eq!(look(), before);
}

fn a_killed_keeper_takes_everything_along() {
    let rig = Rig::unprivileged("killed");
    let info = rig.create("one");
    let spaces = ["net", "mnt", "pid", "user"].map(|kind| (kind, namespace(info.pid, kind)));
    rig.run("one", &["sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &"]);
    assert!(rig.processes().len() >= 5, "keeper, three servers, sleep: {:?}", rig.processes());
    kill(Pid::from_raw(info.pid), Signal::SIGKILL).unwrap();
    assert_eq!(rig.left(), Vec::<String>::new());
    eventually("the keeper is gone", || !sandbox::alive(&info));
    for (kind, number) in spaces {
        eventually(&format!("{kind} namespace {number} is gone"), || !namespaces(kind).contains(&number));
    }
    // The lab's next sandbox is not hindered by the dead one's record.
    let next = rig.create("one");
    assert_ne!(next, info);
    rig.stop("one");
}

fn a_keeper_ends_on_sigterm_only() {
    let rig = Rig::new("signalled");
    let info = rig.create("one");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGPIPE] {
        kill(Pid::from_raw(info.pid), signal).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    rig.run("one", &["true"]);
    kill(Pid::from_raw(info.pid), Signal::SIGTERM).unwrap();
    assert_eq!(rig.left(), Vec::<String>::new());
}

fn an_interrupted_create_leaves_nothing() {
    let rig = Rig::unprivileged("interrupted");
    let mut finished = 0;
    for step in 0..25 {
        let mut maker = rig.command(&["__create", "one"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step * 8));
        let _ = maker.kill();
        maker.wait().unwrap();
        // Either it had come to the end and recorded a sandbox that works, or nothing is left.
        eventually("it is either ready or gone", || {
            rig.processes().is_empty() || rig.info("one").is_some_and(|info| sandbox::alive(&info))
        });
        if rig.info("one").is_some_and(|info| sandbox::alive(&info)) {
            std::thread::sleep(Duration::from_millis(20)); // an unfinished one would end now
            if rig.info("one").is_some_and(|info| sandbox::alive(&info)) {
                rig.run("one", &["true"]);
                finished += 1;
                rig.stop("one");
            }
        }
        assert_eq!(rig.left(), Vec::<String>::new(), "killed after {} ms", step * 8);
    }
    assert!(finished < 25, "no attempt was interrupted");
}

/// Whether a process keeps back the signals that would end it, and not all signals, as one does that is being started.
fn listens(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let has = |signal: Signal| blocked & 1 << (signal as u64 - 1) != 0;
    has(Signal::SIGINT) && has(Signal::SIGTERM) && !has(Signal::SIGUSR1)
}

fn ctrl_c_during_create_is_answered() {
    let rig = Rig::unprivileged("ctrl-c");
    let mut answered = 0;
    for step in 0..20 {
        let mut maker = rig.command(&["__create", "one"]).stderr(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(maker.id()).unwrap());
        // However long it takes to get there; from then on it answers at any moment.
        let began = Instant::now();
        while !listens(pid) && maker.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not listen");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(step * 5));
        if maker.try_wait().unwrap().is_none() {
            kill(pid, Signal::SIGINT).unwrap();
        }
        let status = maker.wait().unwrap();
        match status.code() {
            Some(0) => rig.stop("one"),
            Some(130) => answered += 1,
            // After it has done its work.
            _ if rig.info("one").is_some_and(|info| sandbox::alive(&info)) => rig.stop("one"),
            _ => panic!("interrupted {} ms after it listens: {status}", step * 5),
        }
        assert_eq!(rig.left(), Vec::<String>::new(), "{} ms after it listens: {status}", step * 5);
    }
    assert!(answered > 0, "no attempt was answered");
}

fn a_second_sandbox_is_refused() {
    let rig = Rig::new("second");
    let info = rig.create("one");
    let output = rig.command(&["__create", "one"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        text(&output).contains(&format!("has a sandbox already, process {}", info.pid)),
        "{}",
        text(&output)
    );
    assert!(sandbox::alive(&info));
    // With the record lost it is found all the same.
    fs::remove_file(rig.state.join("labs/one/lab.json")).unwrap();
    assert_eq!(rig.command(&["__create", "one"]).output().unwrap().status.code(), Some(4));
    sandbox::stop(&info).unwrap();
    assert_eq!(rig.left(), Vec::<String>::new());
}

fn a_reused_process_id_is_not_taken_for_a_keeper() {
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(sleeper.id()).unwrap();
    let info = netloom::host::labdir::SandboxInfo { pid, started: 1 };
    assert!(!sandbox::alive(&info));
    sandbox::stop(&info).unwrap();
    assert!(sleeper.try_wait().unwrap().is_none(), "a stranger was killed");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

fn forbidden_user_namespaces_are_explained() {
    let rig = Rig::unprivileged("forbidden");
    // In a user namespace with room for one more, an ordinary user of that one plays the ordinary user of a host that
    // forbids them.
    let nested = |command: &str| {
        let script = format!(
            "echo 1 > /proc/sys/user/max_user_namespaces; \
             exec unshare -U --map-user=1000 --map-group=1000 {command}"
        );
        let program = rig.command(&["unshare", "-Ur", "sh", "-c", &script]);
        let mut words: Vec<_> = program.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
        // As the rig's user, but another program than this one.
        let own = words.iter().position(|word| word == "unshare").unwrap();
        if own > 0 {
            words.remove(own - 1);
        }
        let (program, arguments) = match own {
            0 => (words[0].clone(), &words[1..]),
            _ => ("setpriv".to_owned(), &words[..]),
        };
        Command::new(program).args(arguments).env("NETLOOM_STATE_DIR", &rig.state).output().unwrap()
    };
    // The simulation forbids, and only that.
    let control = nested("sh -c 'id -u; unshare -U true'");
    assert!(text(&control).contains("1000"), "{}", text(&control));
    assert!(text(&control).contains("unshare failed"), "{}", text(&control));
    let program = rig.program();
    let output = nested(&format!("{} __create one", program.display()));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("cannot make a user namespace"), "{said}");
    for mend in [
        "kernel.apparmor_restrict_unprivileged_userns=0",
        "kernel.unprivileged_userns_clone=1",
        "user.max_user_namespaces=15000",
    ] {
        assert!(said.contains(&format!("sudo sysctl {mend}")), "{said}");
    }
    assert_eq!(rig.left(), Vec::<String>::new());
}

fn a_missing_dnsmasq_is_explained() {
    let rig = Rig::new("dnsmasq");
    // An empty directory in the place of each that has the program, for this process and its children only.
    let hide = "for d in $(echo $PATH | tr : ' ') /usr/sbin /sbin; do \
                if [ -e $d/dnsmasq ]; then mount -t tmpfs none $d; fi; done; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", hide, "sh"]).arg(rig.program()).args(["__create", "one"]);
    let output = command.env("NETLOOM_STATE_DIR", &rig.state).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("dnsmasq is not installed") && said.contains("apt install dnsmasq-base"), "{said}");
    assert_eq!(rig.left(), Vec::<String>::new());
}

fn descriptors_of_the_caller_are_not_kept() {
    let rig = Rig::new("descriptors");
    let create = rig.command(&["__create", "one"]);
    // A shell that leaves the writing end of a pipe open as descriptor 9, as `flock` users do.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 9>&1; exec \"$@\" >/dev/null", "sh"])
        .arg(create.get_program())
        .args(["__create", "one"]);
    command.env("NETLOOM_STATE_DIR", &rig.state).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = Vec::new();
    // Ends only when nobody holds the pipe any more, the sandbox included.
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || pipe.read_to_end(&mut said));
    assert!(child.wait().unwrap().success());
    eventually("the pipe is closed while the sandbox lives", || reader.is_finished());
    let info = rig.info("one").unwrap();
    assert!(sandbox::alive(&info));
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", info.pid)).unwrap().to_str(), Some("/"));
    rig.stop("one");
}
