//! Builds every case in a sandbox of its own, has it measured there, and removes it again; several at a time. Each
//! step is a process of this very program, for a sandbox is entered by a process as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{RwLock, Semaphore, watch};

use super::cases::Case;
use super::ground::Ground;
use super::speed::{self, Speed};
use super::{Comparison, Outcome, Row};
use crate::apply;
use crate::error::{Context, Error, Kind, Result};
use crate::host::lab::Say;
use crate::host::libvirt::{Acceleration, accelerator};
use crate::host::service;
use crate::topology::GuestKind;

/// Hidden verb that measures: `netloom __measure LAB [STATE [again]]`, inside the lab's sandbox.
pub const VERB: &str = "__measure";
/// Its last word when it measures for a second time.
pub const AGAIN: &str = "again";

/// Seconds to wait for guests to become ready: namespaces, VMs.
const READY: [&str; 2] = ["60", "300"];
/// How long a step may take, with namespaces and with VMs as guests: many times what it takes.
const LIMIT: [Duration; 2] = [Duration::from_secs(240), Duration::from_secs(900)];

/// What is said of a case that the kernel cannot build for want of VLANs.
pub const WITHOUT_VLANS: &str = "needs VLANs: not measured on this kernel";

/// How a comparison is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What guests are.
    pub guests: GuestKind,
    /// Cases under way at a time.
    pub jobs: usize,
    /// Whether speed is measured after the contract.
    pub speed: bool,
}

/// However many processors there are.
const MOST_JOBS: usize = 32;
/// What a lab with its two VMs takes, in MiB (measured under emulation: 310 for each QEMU, and what serves them).
const LAB_OF_VMS: u64 = 768;

/// How many labs are best under way at a time on this machine: most of the time of one is waiting, and VMs need room.
/// Emulated ones wait for little but the processors: ten labs on two of those took 132 s two at a time and 191 s four at a
/// time.
#[must_use]
pub fn usual_jobs(guests: GuestKind) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match guests {
        GuestKind::Namespace => (4 * processors).min(MOST_JOBS),
        GuestKind::Vm => {
            let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
            let acceleration = accelerator().acceleration;
            jobs_with_vms(processors, acceleration, available_mib(&meminfo))
        }
    }
}

fn jobs_with_vms(processors: usize, acceleration: Acceleration, available_mib: Option<u64>) -> usize {
    // A quarter stays with everything else.
    let room = available_mib
        .map_or(usize::MAX, |mib| usize::try_from(mib / 4 * 3 / LAB_OF_VMS).unwrap_or(usize::MAX));
    let labs = match acceleration {
        Acceleration::Kvm => 2 * processors,
        Acceleration::Tcg => processors,
    };
    labs.min(room).clamp(1, MOST_JOBS)
}

/// `MemAvailable` of /proc/meminfo (proc(5); in KiB there), in MiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Builds and measures the cases; rows come in their order.
///
/// # Errors
/// Exit 130 when interrupted, exit 4 when nothing can be built at all. Nothing is left in any case; what goes wrong with
/// one case is its row's outcome.
pub async fn run(
    cases: &[Case],
    options: Options,
    say: &Say,
    interrupt: &watch::Receiver<bool>,
) -> Result<Comparison> {
    let began = Instant::now();
    if options.speed {
        speed::check()?;
    }
    let ground = Ground::new(options.guests, say)?;
    let rows = Crew::new(&ground, options, interrupt)?.rows(cases, say).await;
    if *interrupt.borrow() {
        return Err(Error::new(Kind::Interrupted, "interrupted"));
    }
    let guests = guests_word(options.guests).to_owned();
    Ok(Comparison { guests, rows, seconds: began.elapsed().as_secs_f64() })
}

/// How a kind of guest is called on the command line and in documents.
pub(super) fn guests_word(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Namespace => "namespace",
        GuestKind::Vm => "vm",
    }
}

/// Those who work on the ground: so many steps at a time.
pub(super) struct Crew<'a> {
    ground: &'a Ground,
    program: PathBuf,
    options: Options,
    interrupt: &'a watch::Receiver<bool>,
    room: Semaphore,
    /// Held by many that build, measure and remove, or by one that measures speed.
    quiet: RwLock<()>,
}

/// How a step ended.
struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

/// One lab to build, measure and remove.
pub(super) struct Job {
    /// What it shows.
    pub(super) case: Case,
    /// Its name.
    pub(super) lab: String,
    /// Its file.
    pub(super) text: String,
    /// Arguments of the step that builds it, to which the file's path is added.
    pub(super) up: Vec<String>,
    /// Arguments of the step that measures it and prints a row as JSON.
    pub(super) measure: Vec<String>,
    /// Whether it shows what netloom makes, so that whatever is not as promised is looked at twice.
    pub(super) ours: bool,
}

impl Job {
    fn of(case: &Case, options: Options) -> Self {
        let lab = case.lab();
        let guests = guests_word(options.guests);
        let ready = READY[usize::from(options.guests == GuestKind::Vm)];
        let up = ["--quiet", "up", "--sandbox", "--json", "--guests", guests, "--timeout", ready];
        let measure = [VERB, &lab, &case.index.to_string()].map(str::to_owned).into();
        let text = if options.speed { case.example_for_speed() } else { case.example() };
        Self { case: *case, text, up: up.map(str::to_owned).into(), measure, lab, ours: true }
    }
}

impl<'a> Crew<'a> {
    pub(super) fn new(
        ground: &'a Ground,
        options: Options,
        interrupt: &'a watch::Receiver<bool>,
    ) -> Result<Self> {
        let (program, room) = (service::own_program()?, Semaphore::new(options.jobs.max(1)));
        Ok(Self { ground, program, options, interrupt, room, quiet: RwLock::new(()) })
    }

    /// The rows of the cases, in their order.
    pub(super) async fn rows(&self, cases: &[Case], say: &Say) -> Vec<Row> {
        let rows = cases.iter().map(|case| self.row(Job::of(case, self.options), say));
        rows.collect::<FuturesOrdered<_>>().collect().await
    }

    /// The row of one lab.
    pub(super) async fn row(&self, job: Job, say: &Say) -> Row {
        let _permit = self.room.acquire().await;
        let began = Instant::now();
        let mut row = job.case.row();
        if *self.interrupt.borrow() {
            return row;
        }
        match self.measure(&job, say).await {
            Ok(measured) => row = measured,
            Err(outcome) => row.outcome = outcome,
        }
        guests_word(self.options.guests).clone_into(&mut row.guests);
        row.seconds = began.elapsed().as_secs_f64();
        say(&progress(&row));
        row
    }

    async fn measure(&self, job: &Job, say: &Say) -> Result<Row, Outcome> {
        let lab = &job.lab;
        let file = self.ground.files().join(format!("{lab}.yaml"));
        let busy = self.quiet.read().await;
        let mut measured = self.up_and_measure(job, &file).await;
        drop(busy);
        if job.ours
            && !*self.interrupt.borrow()
            && let Some(why) = worth_another_look(&measured)
        {
            // Emulated machines among several, or a busy host, can be too late, to come up or with an answer. By
            // themselves they are not.
            let _alone = self.quiet.write().await;
            say(&format!("{}: {why}; once more, with nothing else at work", job.case.row().name()));
            measured = self.look_again(job, &file, measured.is_ok()).await;
            if let Ok(row) = &mut measured {
                row.first_look = Some(why);
            }
        }
        if let Ok(row) = &mut measured
            && self.options.speed
        {
            let _alone = self.quiet.write().await;
            row.speed = self.speed(&job.case, lab).await;
            say(&speed::progress(row));
        }
        let _busy = self.quiet.read().await;
        // Also after a failure: whatever it left.
        let down = self.step(&["--quiet", "down", lab], false).await;
        match (&measured, down) {
            (Ok(_), Ok(ended)) if ended.code != Some(0) => Err(Outcome::Failed(ended.reason("down"))),
            (Ok(_), Err(e)) => Err(Outcome::Failed(e.to_string())),
            _ => measured,
        }
    }

    /// A failure is the reason of every figure that is missing, and changes nothing else.
    async fn speed(&self, case: &Case, lab: &str) -> Vec<Speed> {
        let ended = self.done(speed::VERB, &[speed::VERB, lab, &case.index.to_string()]).await;
        let read = ended.and_then(|ended| {
            serde_json::from_slice(&ended.stdout).map_err(|e| Outcome::Failed(format!("not understood: {e}")))
        });
        read.unwrap_or_else(|outcome| match outcome {
            Outcome::Lacking(why) | Outcome::Failed(why) => speed::unmeasured(case, &why),
            Outcome::Measured => Vec::new(),
        })
    }

    async fn up_and_measure(&self, job: &Job, file: &Path) -> Result<Row, Outcome> {
        self.build(job, file).await?;
        self.ask(job, &[]).await
    }

    async fn build(&self, job: &Job, file: &Path) -> Result<(), Outcome> {
        fs::write(file, &job.text)
            .map_err(|e| Outcome::Failed(format!("cannot write {}: {e}", file.display())))?;
        let path = file.display().to_string();
        let up: Vec<&str> = job.up.iter().map(String::as_str).chain([path.as_str()]).collect();
        self.done("up", &up).await.map(drop)
    }

    /// Measures once more, with more patience; builds anew what could not be, without anything that is left of it.
    async fn look_again(&self, job: &Job, file: &Path, is_up: bool) -> Result<Row, Outcome> {
        if !is_up {
            let _ = self.step(&["--quiet", "down", &job.lab], false).await;
            self.build(job, file).await?;
        }
        self.ask(job, &[AGAIN]).await
    }

    /// Measures a lab that is up.
    async fn ask(&self, job: &Job, more: &[&str]) -> Result<Row, Outcome> {
        let measure: Vec<&str> = job.measure.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let ended = self.done(VERB, &measure).await?;
        serde_json::from_slice(&ended.stdout)
            .map_err(|e| Outcome::Failed(format!("the measurement is not understood: {e}")))
    }

    /// A step that must succeed.
    async fn done(&self, verb: &str, arguments: &[&str]) -> Result<Ended, Outcome> {
        let ended = self.step(arguments, true).await.map_err(|e| Outcome::Failed(e.to_string()))?;
        match ended.code {
            Some(0) => Ok(ended),
            Some(code) if code == i32::from(Kind::Host.exit_code()) => Err(ended.lacking(verb)),
            _ => Err(Outcome::Failed(ended.reason(verb))),
        }
    }

    /// Runs this program to its end. An interruption is passed on, for it to roll back.
    async fn step(&self, arguments: &[&str], interruptible: bool) -> Result<Ended> {
        let failed = || format!("cannot run `netloom {}`", arguments.join(" "));
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("NETLOOM_STATE_DIR", &self.ground.state)
            // Where no file has the name of a lab.
            .current_dir(&self.ground.state)
            // A key press at the terminal is for us; what follows from it is passed on.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        // Not the child's own handles: it is waited for in two places.
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read = async { tokio::join!(read_all(stdout), read_all(stderr)) };
        tokio::pin!(read);
        let mut interrupt = self.interrupt.clone();
        let limit = LIMIT[usize::from(self.options.guests == GuestKind::Vm)];
        let signal = tokio::select! {
            both = &mut read => return ended(&mut child, both).await.context(failed),
            () = apply::stopped(&mut interrupt), if interruptible => Signal::SIGINT,
            // What it leaves is taken away by `down`, or with the sandbox.
            () = tokio::time::sleep(limit) => Signal::SIGKILL,
        };
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let both = read.await;
        let ended = ended(&mut child, both).await.context(failed)?;
        if signal == Signal::SIGKILL {
            return Err(Error::failed(failed()).caused_by(format!("not done in {} s", limit.as_secs())));
        }
        Ok(ended)
    }
}

async fn ended(child: &mut Child, (stdout, stderr): (Vec<u8>, Vec<u8>)) -> std::io::Result<Ended> {
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Ok(Ended { code: child.wait().await?.code(), stdout, stderr })
}

async fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes).await;
    }
    bytes
}

impl Ended {
    /// What a step said when it failed: its error and the causes.
    fn said(&self) -> Vec<String> {
        let strip = |line: &str| {
            let rest = ["Error: ", "error: ", "Caused by: "].iter().find_map(|head| line.strip_prefix(head));
            rest.map(|text| text.trim().to_owned())
        };
        self.stderr.lines().filter_map(strip).collect()
    }

    /// The same as one line.
    fn reason(&self, verb: &str) -> String {
        let said = self.said();
        match (said.is_empty(), self.code) {
            (false, _) => said.join(": "),
            (true, Some(code)) => format!("`{verb}` ended with exit code {code}"),
            (true, None) => format!("`{verb}` was killed"),
        }
    }

    /// What the host lacks, in a few words: the cause that names the kernel, if one does.
    fn lacking(&self, verb: &str) -> Outcome {
        let said = self.said();
        if said.iter().any(|line| line.contains("VLAN")) {
            return Outcome::Lacking(WITHOUT_VLANS.to_owned());
        }
        let kernel = said.iter().find_map(|line| line.split(": ").find(|part| part.contains("this kernel")));
        Outcome::Lacking(kernel.map_or_else(|| self.reason(verb), str::to_owned))
    }
}

/// Why a row is not final yet; `None` when it is: as promised, or nothing that another try changes.
fn worth_another_look(measured: &Result<Row, Outcome>) -> Option<String> {
    match measured {
        Ok(row) => {
            let odd = row.cells.iter().filter(|cell| cell.agreement != super::Agreement::Equal);
            let said = odd.map(|cell| {
                let why = cell.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("{} {} instead of {}{why}", cell.property.words(), cell.measured, cell.promised)
            });
            let said: Vec<String> = said.collect();
            (!said.is_empty()).then(|| said.join(", "))
        }
        Err(Outcome::Failed(why)) => Some(why.clone()),
        Err(_) => None,
    }
}

/// One line about a row that is done.
fn progress(row: &Row) -> String {
    let said = match &row.outcome {
        Outcome::Lacking(why) => why.clone(),
        Outcome::Failed(why) => format!("not measured: {why}"),
        Outcome::Measured => {
            let odd = row.cells.iter().filter(|cell| cell.agreement != super::Agreement::Equal);
            match odd.map(|cell| cell.property.words()).collect::<Vec<_>>().as_slice() {
                [] => format!("{} cells as promised", row.cells.len()),
                some => format!("not as promised: {}", some.join(", ")),
            }
        }
    };
    format!("{}: {said}", row.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_of_vms_find_room_in_memory() {
        let meminfo =
            "MemTotal:       24684088 kB\nMemFree:         1000000 kB\nMemAvailable:    4194304 kB\n";
        assert_eq!(available_mib(meminfo), Some(4096));
        assert_eq!(available_mib(""), None);
        let [kvm, tcg] = [Acceleration::Kvm, Acceleration::Tcg];
        assert_eq!(jobs_with_vms(2, kvm, Some(20_000)), 4);
        assert_eq!(jobs_with_vms(2, tcg, Some(20_000)), 2);
        assert_eq!(jobs_with_vms(8, tcg, Some(4096)), 4);
        assert_eq!(jobs_with_vms(64, kvm, None), MOST_JOBS);
        assert_eq!(jobs_with_vms(2, kvm, Some(500)), 1, "a comparison is never refused");
    }
}
