//! Loads a lab's file and prints the checked model, or every mistake.
#![allow(missing_docs)]

use std::path::Path;
use std::time::Instant;

use netloom::topology::{LoadError, LoadOptions, load_file};

fn main() {
    let Some(path) = std::env::args().nth(1) else {
        println!("usage: load FILE [--time]");
        return;
    };
    let start = Instant::now();
    let result = load_file(Path::new(&path), &LoadOptions::default());
    if std::env::args().any(|arg| arg == "--time") {
        println!("{:.3} s, {}", start.elapsed().as_secs_f64(), if result.is_ok() { "good" } else { "bad" });
        return;
    }
    match result {
        Ok(topology) => println!("{topology:#?}"),
        Err(LoadError::Mistakes(diagnostics)) => print!("{}", diagnostics.render(true)),
        Err(LoadError::File(error)) => print!("{}", error.report()),
    }
}
