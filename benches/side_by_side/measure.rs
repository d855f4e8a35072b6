//! Runs a program and takes its time, from exec to exit, with its memory; and keeps the figures.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde::Deserialize;

use crate::Result;
use crate::world;

/// One run of a program.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Sample {
    /// Seconds from exec to exit.
    pub(crate) seconds: f64,
    /// The most memory that it, or a process it waited for, had resident.
    pub(crate) rss_kb: f64,
    /// Seconds of processor time in user space.
    pub(crate) user: f64,
    /// And in the kernel, on its behalf.
    pub(crate) system: f64,
}

impl Sample {
    /// Of a program that only its time is known of.
    pub(crate) fn time_alone(seconds: f64) -> Self {
        Self { seconds, rss_kb: f64::NAN, user: f64::NAN, system: f64::NAN }
    }
    /// Processor time, which says more than the clock where others want the processors as well.
    pub(crate) fn processor(&self) -> f64 {
        self.user + self.system
    }
}

/// What another program had to wait meanwhile, at worst, in seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Held {
    pub(crate) add: f64,
    pub(crate) delete: f64,
}

/// Processes that want a processor all the time, until this is dropped.
#[derive(Debug)]
pub(crate) struct Load(Vec<Child>);

impl Load {
    pub(crate) fn start(count: usize) -> Result<Self> {
        let mut load = Self(Vec::new());
        for _ in 0..count {
            load.0.push(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The programs that measuring takes.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The program that is measured.
    pub(crate) netloom: PathBuf,
    /// The floor, and the stopwatch.
    pub(crate) floor: PathBuf,
    /// The repository's `benches/`.
    pub(crate) benches: PathBuf,
}

impl Tools {
    /// Builds the floor.
    pub(crate) fn new(netloom: PathBuf) -> Result<Self> {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        let floor = Path::new(world::WORK).join("floor");
        let built = Command::new("gcc")
            .args(["-O2", "-Wall", "-o"])
            .arg(&floor)
            .arg(benches.join("floor/floor.c"))
            .status()
            .map_err(|error| format!("gcc: {error}"))?;
        if !built.success() {
            return Err("gcc could not build benches/floor/floor.c".into());
        }
        Ok(Self { netloom, floor, benches })
    }

    /// Runs a command to its end; an exit code other than `wanted` is an error, with what it said.
    pub(crate) fn timed(&self, command: &[&str]) -> Result<Sample> {
        let [times, out, err] = ["times", "out", "err"].map(|name| Path::new(world::WORK).join(name));
        let status = Command::new(&self.floor)
            .arg("run")
            .arg(&times)
            .args(command)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .status()?;
        if !status.success() {
            let said = fs::read_to_string(&err)? + &fs::read_to_string(&out)?;
            let lines: Vec<&str> = said.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            return Err(format!("`{}`: {status}\n{tail}", command.join(" ")).into());
        }
        Ok(serde_json::from_str(&fs::read_to_string(&times)?)?)
    }

    /// Runs netloom.
    pub(crate) fn netloom(&self, arguments: &[&str]) -> Result<Sample> {
        let program = self.netloom.to_string_lossy().into_owned();
        self.timed(&[&[program.as_str()], arguments].concat())
    }

    /// Runs the floor.
    pub(crate) fn floor(&self, arguments: &[&str]) -> Result<Sample> {
        let program = self.floor.to_string_lossy().into_owned();
        self.timed(&[&[program.as_str()], arguments].concat())
    }

    /// Waits until everything that was removed before is gone; says how long that took.
    pub(crate) fn settle(&self) -> Result<f64> {
        let seconds = self.floor(&["settle"])?.seconds;
        let (links, names) = world::objects()?;
        if links + names > 0 {
            return Err(format!("{links} links and {names} namespaces are still there").into());
        }
        Ok(seconds)
    }

    /// Does something while another program, in a namespace of its own, adds and removes a link again and again.
    pub(crate) fn held<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Held)> {
        let mut other = Conversation::start(Command::new(&self.floor).arg("hold"))?;
        other.line()?;
        let done = work()?;
        let said = other.finish()?;
        Ok((done, serde_json::from_str(said.trim())?))
    }
}

/// A process that is spoken with through its standard input and output.
#[derive(Debug)]
pub(crate) struct Conversation {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    started: Instant,
}

impl Conversation {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let err = File::create(Path::new(world::WORK).join("err"))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(err).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = BufReader::new(output.ok_or("no output")?);
        Ok(Self { child, input, output, started })
    }

    /// Waits for its next line; seconds since the start.
    pub(crate) fn line(&mut self) -> Result<f64> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            self.child.wait()?;
            let said = fs::read_to_string(Path::new(world::WORK).join("err"))?;
            return Err(format!("ended too early: {said}").into());
        }
        Ok(self.started.elapsed().as_secs_f64())
    }

    /// Ends its input and waits until it is gone; what it said last.
    pub(crate) fn finish(mut self) -> Result<String> {
        drop(self.input.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest)?;
        let status = self.child.wait()?;
        if status.success() { Ok(rest) } else { Err(format!("ended with {status}: {rest}").into()) }
    }
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}
