//! The process that runs libvirt's library for netloom; not for people. It is a program of its own, so that `netloom` need not
//! load libvirt and the sixty libraries under it for verbs, supervisors and labs that have nothing to do with VMs.

use std::process::ExitCode;

use netloom::host::libvirt::worker_main;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match worker_main(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", error.report());
            ExitCode::from(error.kind.exit_code())
        }
    }
}
