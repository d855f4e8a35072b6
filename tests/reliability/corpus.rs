//! The fuzzers' corpus, and a fixed number of changes to it at random, through the functions that `fuzz/` drives for hours:
//! no panic, and no input that takes long.

use std::fs;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use crate::extent;
use crate::rig::repository;

/// What one input may take. The fuzzers ask for a second; a test build on a busy machine is some thirty times slower.
const LONG: Duration = Duration::from_secs(30);

/// A target: its name, its function, how many changed inputs it is given in the short form and in the full one.
type Target = (&'static str, fn(&[u8]), u32, u32);

const TARGETS: [Target; 3] = [
    ("front_end", netloom::fuzz::front_end, 3_000, 100_000),
    ("inventory", netloom::fuzz::inventory, 10_000, 1_000_000),
    ("image", netloom::fuzz::image, 30_000, 3_000_000),
];

#[test]
fn front_end() {
    replay(TARGETS[0]);
}

#[test]
fn inventory() {
    replay(TARGETS[1]);
}

#[test]
fn image() {
    replay(TARGETS[2]);
}

fn replay((name, target, short, long): Target) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 10, "the corpus of {name} has {} files", corpus.len());
    for input in &corpus {
        give(name, target, input, "as it is in the corpus");
    }
    let seed = extent::seed();
    let mut dice = extent::dice(seed);
    for _ in 0..extent::of(short, long) {
        let input = changed(&corpus, &mut dice);
        give(name, target, &input, &format!("NETLOOM_SEED={seed}"));
    }
}

fn give(name: &str, target: fn(&[u8]), input: &[u8], how: &str) {
    let began = Instant::now();
    let done = catch_unwind(|| target(input));
    let (took, shown) = (began.elapsed(), String::from_utf8_lossy(input));
    assert!(done.is_ok(), "{name} panics, {how}: {shown:?}");
    assert!(took < LONG, "{name} takes {took:?}, {how}: {shown:?}");
}

/// Every input of a target, in the order of their names: the corpus, and for the language the files of other tests.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut places = vec![format!("fuzz/corpus/{name}")];
    if name == "front_end" {
        places.extend(["topologies", "tests/good"].map(str::to_owned));
    }
    let files = places.iter().flat_map(|place| fs::read_dir(repository().join(place)).unwrap());
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// An input of the corpus after a few changes: bytes and pieces lost, doubled, exchanged, or taken from another input.
fn changed(corpus: &[Vec<u8>], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = dice.choice(corpus).cloned().unwrap_or_default();
    for _ in 0..dice.usize(1..6) {
        let start = dice.usize(0..=input.len());
        let end = (start + dice.usize(0..40)).min(input.len());
        match dice.u8(0..5) {
            0 => drop(input.drain(start..end)),
            1 => {
                let piece = input[start..end].to_vec();
                let at = dice.usize(0..=input.len());
                input.splice(at..at, piece);
            }
            2 => input[start..end].iter_mut().take(4).for_each(|byte| *byte = dice.u8(..)),
            3 => input[start..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << dice.u8(0..8)),
            _ => {
                let other = dice.choice(corpus).map_or(&[][..], Vec::as_slice);
                let from = dice.usize(0..=other.len());
                let to = (from + dice.usize(0..80)).min(other.len());
                input.splice(start..end, other[from..to].iter().copied());
            }
        }
    }
    input
}
