//! A private network namespace that plays the host, so that a lab needs no change to the real one and no privilege.
//!
//! A sandbox is one process, the keeper: process 1 of its own pid, network and mount namespaces (inside a user
//! namespace when an ordinary user asks). It lives until [`stop`]; when it ends, for whatever reason, the kernel ends
//! every process inside and takes the namespaces with all links apart. So nothing can remain of a sandbox, and there
//! is nothing to clean up but the lab's directory.

mod create;
mod enter;
mod interrupts;
mod keeper;
mod mounts;
mod process;
mod refusal;
mod report;
pub mod world;

pub use create::create;
pub use enter::{enter, inside, inside_of};
pub use interrupts::Interrupts;
pub(crate) use keeper::close_inherited;
pub use keeper::{init_main, keeper_main};
pub use process::{Held, alive, find, hold, keeps, list, stop};

/// Hidden verb that makes the namespaces: `netloom __keeper LABDIR`.
pub const KEEPER_VERB: &str = "__keeper";
/// Hidden verb of process 1 inside: `netloom __sandbox-init LABDIR`.
pub const INIT_VERB: &str = "__sandbox-init";
/// Hidden verb of the servers of the stand-ins: `netloom __serve LABEL SERVICE…`.
pub const SERVE_VERB: &str = "__serve";
/// Set for every command that runs inside.
pub const INSIDE: &str = "NETLOOM_INSIDE";
/// Name of the sandbox's log in the lab's directory.
pub const LOG: &str = "sandbox.log";

/// `PATH` with the directories of system programs added, which an ordinary user's often lacks.
pub(crate) fn search_path() -> std::ffi::OsString {
    let given = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<std::path::PathBuf> = std::env::split_paths(&given).collect();
    for system in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !directories.iter().any(|known| known.as_os_str() == system) {
            directories.push(system.into());
        }
    }
    std::env::join_paths(directories).unwrap_or(given)
}
