//! Parse, run, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|verb| verb.to_str()) {
        Some(netloom::sandbox::KEEPER_VERB) => netloom::sandbox::keeper_main(&args[1..]).into(),
        Some(netloom::sandbox::INIT_VERB) => netloom::sandbox::init_main(&args[1..]).into(),
        _ => ExitCode::SUCCESS,
    }
}
