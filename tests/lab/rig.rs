//! The netloom program with a state directory of its own, and the eyes that judge it: nothing here asks netloom what
//! is there, but `ip`, `bridge`, `nft` and `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_netloom");

/// The program that runs libvirt's library for it.
const WORKER: &str = env!("CARGO_BIN_EXE_netloom-libvirt");

/// A user that no system has, for runs without privilege.
const ORDINARY: u32 = 65534 - 17;

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Path of a topology that comes with netloom.
pub(crate) fn topology(name: &str) -> String {
    repository().join("topologies").join(name).display().to_string()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Fails unless it ended with this exit code and said each of these.
    #[track_caller]
    pub(crate) fn said(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in: {}", self.stderr);
        }
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A state directory and the commands on it. When dropped it ends every lab and process of its own, whatever failed.
pub(crate) struct Rig {
    /// `NETLOOM_STATE_DIR`.
    pub(crate) state: PathBuf,
    /// Where files of tests are.
    pub(crate) work: PathBuf,
    program: PathBuf,
    before: Vec<String>,
}

impl Rig {
    /// As the calling user, which is root.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = PathBuf::from(format!("/tmp/nllab-{}-{number}", std::process::id()));
        let (state, work) = (home.join("state"), home.join("work"));
        for directory in [&state, &work] {
            fs::create_dir_all(directory).unwrap();
        }
        Self { state, work, program: PROGRAM.into(), before: Vec::new() }
    }

    /// As an ordinary user, with a home directory of its own and a program it may run.
    pub(crate) fn ordinary() -> Self {
        let mut rig = Self::new();
        for directory in [&rig.state, &rig.work] {
            std::os::unix::fs::chown(directory, Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
        rig.program = rig.home().join("netloom");
        fs::copy(PROGRAM, &rig.program).unwrap();
        fs::copy(WORKER, rig.home().join("netloom-libvirt")).unwrap();
        let user = format!("--reuid={ORDINARY}");
        let group = format!("--regid={ORDINARY}");
        let home = format!("HOME={}", rig.work.display());
        // Without /usr/sbin, as ordinary users have it on Debian.
        let words = ["setpriv", &user, &group, "--clear-groups", "env", "-u", "XDG_RUNTIME_DIR", &home];
        rig.before = words.iter().map(ToString::to_string).collect();
        rig.before.push("PATH=/usr/bin:/bin".into());
        rig
    }

    /// The same rig, its commands run through another command, such as `nsenter`.
    pub(crate) fn through(mut self, words: &[&str]) -> Self {
        let mut before: Vec<String> = words.iter().map(ToString::to_string).collect();
        before.append(&mut self.before);
        self.before = before;
        self
    }

    fn home(&self) -> &Path {
        self.state.parent().unwrap()
    }

    /// Its commands see a tun device that its user may open, as distributions have it.
    pub(crate) fn with_tun(self) -> Self {
        let node = self.home().join("tun");
        let made =
            Command::new("mknod").args(["-m", "666", node.to_str().unwrap(), "c", "10", "200"]).status();
        assert!(made.unwrap().success());
        let script = "mount --bind \"$0\" /dev/net/tun && exec \"$@\"";
        let node = node.display().to_string();
        self.through(&["unshare", "--mount", "sh", "-ec", script, &node])
    }

    /// Uses the images of the calling user's cache, and builds the built-in one there if need be.
    pub(crate) fn with_images(self) -> Self {
        self.use_images();
        self
    }

    /// The same, of one that is there already.
    pub(crate) fn use_images(&self) {
        let cache = netloom::host::labdir::state_directory().unwrap().join("images");
        netloom::image::built_in(&cache, &mut |step| eprintln!("{step}")).unwrap();
        std::os::unix::fs::symlink(cache, self.state.join("images")).unwrap();
    }

    /// A command that is not netloom's, in the place where netloom's run.
    pub(crate) fn other(&self, words: &[&str]) -> Command {
        self.patient(300, words)
    }

    /// The same with as many seconds before it is ended.
    pub(crate) fn patient(&self, seconds: u32, words: &[&str]) -> Command {
        let mut all: Vec<&str> = self.before.iter().map(String::as_str).collect();
        all.extend(words);
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", &seconds.to_string()])
            .args(all)
            .env("NETLOOM_STATE_DIR", &self.state)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut words = vec![self.program.to_str().unwrap()];
        words.extend(args);
        self.other(&words)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    /// Standard output of a command of netloom that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "netloom {args:?}: {ended:?}");
        ended.stdout
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Writes a file for netloom; returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.work.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// `up` in a sandbox, with namespace guests; returns what changed, as `VERB KIND NAME`.
    #[track_caller]
    pub(crate) fn up(&self, file: &str) -> Vec<String> {
        changes(&self.json(&["up", "--json", "--sandbox", "--guests", "namespace", file])["changes"])
    }

    /// What a plan says, as `VERB KIND NAME` to its reasons.
    #[track_caller]
    pub(crate) fn plan(&self, file: &str) -> BTreeMap<String, String> {
        let ended = self.run(&["plan", "--json", "--guests", "namespace", file]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let list = ended.json()["changes"].as_array().unwrap().clone();
        list.iter().map(|change| (name(change), change["reasons"].as_array().unwrap())).map(reasons).collect()
    }

    /// A shell script in a lab's guest, or its `host`; must succeed.
    #[track_caller]
    pub(crate) fn sh(&self, guest: &str, script: &str) -> String {
        self.ok(&["exec", guest, "--", "sh", "-ec", script])
    }

    /// Processes of this rig, zombies aside: by what they were started with, not by any record.
    pub(crate) fn processes(&self) -> Vec<String> {
        let needle = format!("{}/", self.home().display());
        let state = format!("NETLOOM_STATE_DIR={}\0", self.state.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let ours = command.contains(&needle) || String::from_utf8_lossy(&environment).contains(&state);
            if ours && !rest.starts_with(['Z', 'X']) {
                found.push(format!("{} {command}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }

    /// Starts netloom and returns while it works.
    pub(crate) fn start(&self, args: &[&str]) -> Started {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Started { child, said, stderr: String::new() }
    }

    /// Process ids of netloom itself, at work on this verb; the one that was called comes first.
    pub(crate) fn running(&self, verb: &str) -> Vec<String> {
        let look = || Some(self.pids_of(verb)).filter(|pids| !pids.is_empty());
        eventually(&format!("`{verb}` runs"), look, || self.processes())
    }

    /// As [`Rig::running`], without waiting for it.
    pub(crate) fn pids_of(&self, verb: &str) -> Vec<String> {
        let called = format!("{} {verb} ", self.program.display());
        let mut pids: Vec<u32> = self
            .processes()
            .iter()
            .filter_map(|process| process.split_once(' '))
            .filter(|(_, command)| command.starts_with(&called))
            .map(|(pid, _)| pid.parse().unwrap())
            .collect();
        pids.sort_unstable();
        pids.iter().map(ToString::to_string).collect()
    }

    /// Fails if anything of any lab is left: a process, or a file that is no image.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        eventually("no process is left", || self.processes().is_empty().then_some(()), || self.processes());
        let mut files: Vec<String> = fs::read_dir(&self.state)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        // What VMs boot, and what libvirt once found out about QEMU, is kept for the next lab.
        files.retain(|name| name != "images" && name != "cache");
        assert_eq!(files, Vec::<String>::new(), "left in the state directory");
    }
}

/// A netloom at work.
pub(crate) struct Started {
    child: Child,
    said: BufReader<ChildStderr>,
    stderr: String,
}

impl Started {
    /// Waits for that many lines of progress; false when it ended before.
    pub(crate) fn lines(&mut self, count: usize) -> bool {
        (0..count).all(|_| self.said.read_line(&mut self.stderr).unwrap() > 0)
    }

    /// The process that leads its group.
    #[allow(dead_code)] // for the reliability tests
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let mut ended = Ended::from(self.child.wait_with_output().unwrap());
        std::io::Read::read_to_string(&mut self.said, &mut self.stderr).unwrap();
        ended.stderr = self.stderr;
        ended
    }
}

/// Sends a signal to processes.
pub(crate) fn signal(name: &str, pids: &[String]) {
    assert!(!pids.is_empty(), "nobody to send {name} to");
    let mut kill = Command::new("kill");
    let _ = kill.args([&format!("-{name}"), "--"]).args(pids).stderr(Stdio::null()).status();
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.command(&["--quiet", "down", "--all"]).output();
        for process in self.processes() {
            let pid = process.split(' ').next().unwrap_or_default().to_owned();
            let _ = Command::new("kill").args(["-9", &pid]).output();
        }
        let _ = fs::remove_dir_all(self.home());
    }
}

fn name(change: &Value) -> String {
    let word = |key: &str| change[key].as_str().unwrap().to_owned();
    format!("{} {} {}", word("action"), word("kind"), word("name"))
}

fn reasons((name, reasons): (String, &Vec<Value>)) -> (String, String) {
    let words: Vec<&str> = reasons.iter().map(|reason| reason.as_str().unwrap()).collect();
    (name, words.join(", "))
}

/// Changes of a JSON document as `VERB KIND NAME`, sorted.
pub(crate) fn changes(list: &Value) -> Vec<String> {
    let mut names: Vec<String> = list.as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}

/// Waits up to 30 s until `look` sees something; `describe` tells what there is instead.
#[track_caller]
pub(crate) fn eventually<T, D: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> Option<T>,
    describe: impl Fn() -> D,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "not in 30 s: {what}; {:?}", describe());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a lab is made of, by the kernel's own numbers: two looks that are equal mean that nothing was made anew.
pub(crate) fn identities(rig: &Rig, lab: &str) -> BTreeMap<String, String> {
    let script = r#"
        ip -j link | jq -r '.[] | "link \(.ifname) \(.ifindex)"'
        for place in /run/netns/*; do
            [ -e "$place" ] || continue
            echo "namespace ${place##*/} $(stat -Lc %i "$place")"
            nsenter --net="$place" ip -j link | jq -r --arg at "${place##*.}" '.[] | "link \($at)/\(.ifname) \(.ifindex)"'
        done
        for process in /proc/[0-9]*; do
            mark=$(tr '\0' '\n' <"$process/environ" 2>/dev/null | sed -n 's/^NETLOOM_MARK=\([^ ]*\).*/\1/p')
            [ -z "$mark" ] || echo "process $mark/$(tr '\0' ' ' <"$process/cmdline" | cut -d ' ' -f 2 | tr -c '[:alnum:]_\n' _) ${process#/proc/}"
            grep -q qemu-system "$process/comm" 2>/dev/null && echo "process qemu/${process#/proc/} ${process#/proc/}" || :
        done
    "#;
    let text = rig.sh(&format!("{lab}/host"), script);
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// What two looks differ in: names only in one, or with another number.
pub(crate) fn differing(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<String> =
        a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name)).cloned().collect();
    names.sort();
    names.dedup();
    names
}
