//! One call of a run is spoiled, by a library of C that is put before the program and knows nothing of netloom
//! (`shim.c`): it is refused, or the program is killed or interrupted at it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::rig::{Ended, Rig};

/// Which call is spoiled, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spoil {
    /// Number of the call among those of `classes`, from 1; 0 for none.
    pub(crate) at: usize,
    /// As `SPOIL_HOW` of `shim.c`.
    pub(crate) how: String,
    /// Letters of `shim.c`; all by default.
    pub(crate) classes: &'static str,
    /// With a signal: as many calls later once more.
    pub(crate) again: usize,
}

/// How a run ended, and each call of it that counts.
#[derive(Debug)]
pub(crate) struct Spoiled {
    pub(crate) ended: Ended,
    pub(crate) calls: Vec<String>,
}

impl Spoiled {
    /// What the call was that was spoiled; `None` when the run ended before it.
    pub(crate) fn what(&self, spoil: &Spoil) -> Option<&str> {
        let number = format!("{} ", spoil.at);
        self.calls.iter().find(|call| call.starts_with(&number)).map(String::as_str)
    }
}

fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = crate::rig::repository().join("tests/reliability/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spoil-{}.so", std::process::id()));
        let compiler = ["-O2", "-shared", "-fPIC", "-o"];
        let built = Command::new("cc").args(compiler).arg(&library).arg(source).arg("-ldl").status().unwrap();
        assert!(built.success(), "the shim does not compile");
        library
    })
}

/// Runs netloom with one call of it spoiled.
pub(crate) fn run(rig: &Rig, args: &[&str], spoil: &Spoil) -> Spoiled {
    let (count, log) = (rig.work.join("count"), rig.work.join("calls"));
    fs::write(&count, [0; 16]).unwrap();
    fs::write(&log, "").unwrap();
    let mut words = vec![
        "env".to_owned(),
        format!("LD_PRELOAD={}", library().display()),
        format!("SPOIL_COUNT={}", count.display()),
        format!("SPOIL_LOG={}", log.display()),
        format!("SPOIL_CLASS={}", spoil.classes),
        format!("SPOIL_AT={}", spoil.at),
        format!("SPOIL_HOW={}", spoil.how),
        format!("SPOIL_AGAIN={}", spoil.again),
        env!("CARGO_BIN_EXE_netloom").to_owned(),
    ];
    words.extend(args.iter().map(ToString::to_string));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = rig.patient(120, &words).output().unwrap().into();
    let calls = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    Spoiled { ended, calls }
}
