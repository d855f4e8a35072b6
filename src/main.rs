//! Parse, run, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((verb, rest)) if verb == "__libvirt" => match netloom::host::libvirt::worker_main(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprint!("{}", error.report());
                ExitCode::from(error.kind.exit_code())
            }
        },
        _ => ExitCode::SUCCESS,
    }
}
