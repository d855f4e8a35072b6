//! What was measured, kept in `target/bench/figures.json`. A part that is measured again takes the place of its old
//! figures; the others stay, each with the date, the commit and the load it was measured under.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::measure::{Sample, median};

/// One thing measured several times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The part of the benchmark it belongs to.
    pub(crate) part: String,
    /// What was done.
    pub(crate) work: String,
    /// Who did it; `netloom`, or an alternative.
    pub(crate) who: String,
    /// How large the lab was; 0 where that says nothing.
    pub(crate) n: usize,
    /// `s`, `MB`.
    pub(crate) unit: String,
    /// In the order they were measured.
    pub(crate) values: Vec<f64>,
}

impl Figure {
    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }
    pub(crate) fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }
    pub(crate) fn max(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }
}

/// When and how a part was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Occasion {
    pub(crate) date: String,
    pub(crate) commit: String,
    /// Load averages before and after: what else the machine had to do.
    pub(crate) load: [f64; 2],
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

/// Everything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Store {
    pub(crate) machine: String,
    pub(crate) occasions: BTreeMap<String, Occasion>,
    pub(crate) figures: Vec<Figure>,
    /// Processes that kept the machine busy.
    #[serde(skip)]
    pub(crate) busy: usize,
    #[serde(skip)]
    file: PathBuf,
}

impl Store {
    /// What earlier runs left, or nothing: on a machine that is left alone, or one that so many processes keep busy.
    pub(crate) fn open(directory: &Path, busy: usize) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let file = match busy {
            0 => directory.join("figures.json"),
            busy => directory.join(format!("figures-busy-{busy}.json")),
        };
        let mut store: Self = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(_) => Self::default(),
        };
        store.machine = machine()?;
        store.file = file;
        store.busy = busy;
        Ok(store)
    }

    /// Starts a part anew.
    pub(crate) fn begin(&mut self, part: &str) -> Result<()> {
        self.figures.retain(|figure| figure.part != part);
        let commit = std::env::var("NETLOOM_BENCH_COMMIT").unwrap_or_default();
        let occasion =
            Occasion { date: said("date", &["+%F %R"])?, commit, load: [load()?; 2], missing: Vec::new() };
        self.occasions.insert(part.to_owned(), occasion);
        Ok(())
    }

    /// Adds one value.
    pub(crate) fn add(&mut self, key: (&str, &str, &str, usize), unit: &str, value: f64) {
        let (part, work, who, n) = key;
        println!("  {part}: {work}, {who}, N={n}: {value:.4} {unit}");
        let found = self
            .figures
            .iter_mut()
            .find(|f| f.part == part && f.work == work && f.who == who && f.n == n && f.unit == unit);
        if let Some(figure) = found {
            figure.values.push(value);
        } else {
            let [part, work, who, unit] = [part, work, who, unit].map(str::to_owned);
            self.figures.push(Figure { part, work, who, n, unit, values: vec![value] });
        }
    }

    /// Adds a run: its time, and what else is known of it.
    pub(crate) fn add_run(&mut self, key: (&str, &str, &str, usize), sample: &Sample) {
        let (part, work, who, n) = key;
        self.add(key, "s", sample.seconds);
        for (what, unit, value) in
            [("processor time of", "s", sample.processor()), ("memory of", "MB", sample.rss_kb / 1000.0)]
        {
            if value.is_finite() {
                self.add((part, &format!("{what} {work}"), who, n), unit, value);
            }
        }
    }

    /// Notes what could not be measured: never silently.
    pub(crate) fn missing(&mut self, part: &str, why: &str) {
        println!("  {part}: NOT MEASURED: {why}");
        if let Some(occasion) = self.occasions.get_mut(part)
            && !occasion.missing.iter().any(|known| known == why)
        {
            occasion.missing.push(why.to_owned());
        }
    }

    /// Writes what there is.
    pub(crate) fn save(&mut self, part: &str) -> Result<()> {
        if let Some(occasion) = self.occasions.get_mut(part) {
            occasion.load[1] = load()?;
        }
        fs::write(&self.file, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }
}

/// The load average of the last minute.
fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn machine() -> Result<String> {
    let field = |file: &str, key: &str, separator: char| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split(separator).nth(1).unwrap_or_default().trim().trim_matches('"').to_owned()
    };
    let cores = std::thread::available_parallelism()?;
    let kilobytes = field("/proc/meminfo", "MemTotal", ':');
    let kilobytes: f64 = kilobytes.trim_end_matches(" kB").parse()?;
    Ok(format!(
        "{}, {cores} cores, {:.0} GiB, Linux {}, {}",
        field("/proc/cpuinfo", "model name", ':'),
        kilobytes / 1024.0 / 1024.0,
        said("uname", &["-r"])?,
        field("/etc/os-release", "PRETTY_NAME", '='),
    ))
}
