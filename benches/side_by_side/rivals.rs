//! Who builds the same fabric: netloom, and what people would use instead.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::labs::{LAB, Shape};
use crate::measure::{Conversation, Sample, Tools};
use crate::world;

/// One of them, with the lab of a given shape and size.
pub(crate) trait Rival {
    /// How it is called in the tables.
    fn name(&self) -> &'static str;
    /// Builds it.
    fn up(&mut self, tools: &Tools, shape: Shape, n: usize) -> Result<Sample>;
    /// Removes it; returns as soon as the program does, whatever the kernel still has to do.
    fn down(&mut self, tools: &Tools, shape: Shape, n: usize) -> Result<Sample>;
    /// Why it takes no part in labs like this.
    fn declines(&self, shape: Shape, n: usize) -> Option<String>;
}

/// Writes a file into the world's memory.
pub(crate) fn write(name: &str, text: &str) -> Result<String> {
    let path = Path::new(world::WORK).join(name);
    fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

pub(crate) struct Netloom;

impl Rival for Netloom {
    fn name(&self) -> &'static str {
        "netloom"
    }
    fn up(&mut self, tools: &Tools, shape: Shape, n: usize) -> Result<Sample> {
        let file = write("lab.yaml", &shape.yaml(n))?;
        tools.netloom(&["up", "--guests", "namespace", &file])
    }
    fn down(&mut self, tools: &Tools, _: Shape, _: usize) -> Result<Sample> {
        tools.netloom(&["down", LAB])
    }
    fn declines(&self, _: Shape, _: usize) -> Option<String> {
        None
    }
}

/// The floor, which removes links all at once or a few at a time.
pub(crate) struct Raw {
    pub(crate) name: &'static str,
    pub(crate) how: &'static str,
}

impl Rival for Raw {
    fn name(&self) -> &'static str {
        self.name
    }
    fn up(&mut self, tools: &Tools, shape: Shape, n: usize) -> Result<Sample> {
        let n = n.to_string();
        let words = if self.how == "one" { vec!["create", &n, "one"] } else { vec!["create", &n] };
        tools.floor(&arguments(&words, shape))
    }
    fn down(&mut self, tools: &Tools, shape: Shape, n: usize) -> Result<Sample> {
        tools.floor(&arguments(&["delete", &n.to_string(), self.how], shape))
    }
    fn declines(&self, shape: Shape, _: usize) -> Option<String> {
        let builds = shape == Shape::Linear || (shape == Shape::Fabric && self.how != "one");
        fabrics_only(self.name(), !builds)
    }
}

fn arguments<'a>(words: &[&'a str], shape: Shape) -> Vec<&'a str> {
    let mut words = words.to_vec();
    if shape == Shape::Linear {
        words.push("linear");
    }
    words
}

fn fabrics_only(name: &str, declines: bool) -> Option<String> {
    declines.then(|| format!("{name} does not build labs of this shape here"))
}

/// `ip -batch`: one file for the namespaces, one for the links, one for each namespace.
pub(crate) struct IpBatch;

impl Rival for IpBatch {
    fn name(&self) -> &'static str {
        "ip -batch"
    }
    fn up(&mut self, tools: &Tools, _: Shape, n: usize) -> Result<Sample> {
        let [mut names, mut links, mut ends, mut script] = [const { String::new() }; 4];
        script.push_str("set -e\nip -batch /run/bench/names\nip -batch /run/bench/links\n");
        for i in 0..n {
            let net = format!("10.{}.{}", i >> 8, i & 255);
            writeln!(names, "netns add pf-n{i}")?;
            writeln!(links, "link add pf-b{i} group 20550 up type bridge\naddr add {net}.1/24 dev pf-b{i}")?;
            writeln!(
                ends,
                "link add pf-v{i} group 20550 up master pf-b{i} type veth peer name eth0 netns pf-n{i}"
            )?;
            let inner = format!("addr add {net}.2/24 dev eth0\nlink set eth0 up\nlink set lo up\n");
            write(&format!("inner{i}"), &inner)?;
            writeln!(script, "ip -n pf-n{i} -batch /run/bench/inner{i}")?;
        }
        links.push_str(&ends);
        write("names", &names)?;
        write("links", &links)?;
        let script = write("script", &script)?;
        tools.timed(&["sh", &script])
    }
    fn down(&mut self, tools: &Tools, _: Shape, _: usize) -> Result<Sample> {
        tools.timed(&["sh", "-ec", "ip link delete group 20550; ip -all netns delete"])
    }
    fn declines(&self, shape: Shape, _: usize) -> Option<String> {
        fabrics_only(self.name(), shape != Shape::Fabric)
    }
}

/// A program in Python that says a line when the lab is up and removes it when its input ends.
pub(crate) struct Script {
    name: &'static str,
    file: &'static str,
    shape: Shape,
    most: usize,
    running: Option<Conversation>,
}

impl Script {
    /// mininet's `linear,N` on Linux bridges.
    pub(crate) fn mininet() -> Self {
        Self { name: "mininet", file: "mininet_linear.py", shape: Shape::Linear, most: 200, running: None }
    }
    /// The floor's objects by pyroute2.
    pub(crate) fn pyroute2() -> Self {
        Self { name: "pyroute2", file: "pyroute2_fabric.py", shape: Shape::Fabric, most: 500, running: None }
    }
    /// Whether its package is there.
    pub(crate) fn present(&self, tools: &Tools) -> bool {
        let probe = Command::new("/usr/bin/python3").arg(self.path(tools)).arg("--probe").output();
        probe.is_ok_and(|output| output.status.success())
    }
    fn path(&self, tools: &Tools) -> std::path::PathBuf {
        tools.benches.join("rivals").join(self.file)
    }
}

impl Rival for Script {
    fn name(&self) -> &'static str {
        self.name
    }
    fn up(&mut self, tools: &Tools, _: Shape, n: usize) -> Result<Sample> {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(self.path(tools)).arg(n.to_string());
        let mut conversation = Conversation::start(&mut command)?;
        let seconds = conversation.line()?;
        self.running = Some(conversation);
        Ok(Sample::time_alone(seconds))
    }
    fn down(&mut self, _: &Tools, _: Shape, _: usize) -> Result<Sample> {
        let begun = std::time::Instant::now();
        self.running.take().ok_or("it is not up")?.finish()?;
        Ok(Sample::time_alone(begun.elapsed().as_secs_f64()))
    }
    fn declines(&self, shape: Shape, n: usize) -> Option<String> {
        if shape != self.shape {
            return fabrics_only(self.name, true);
        }
        (n > self.most).then(|| format!("{} beyond N={}, where it takes minutes", self.name, self.most))
    }
}
