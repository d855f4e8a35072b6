//! Emulators that libvirt has lost: their worker was killed while it started them, or while it asked QEMU what it can do.

use std::fs;
use std::path::Path;

use super::process::Process;

/// Emulators that were started below an embedded root and are not `known`. Only who holds the root may ask, before it
/// starts any: then nobody else is about to make one of them known.
///
/// One is told by its command line, which libvirt writes: each has a file or a socket in the root's `lib/qemu`. It must be
/// in this process's pid namespace and have its uid, for a root of the same path is another one in a sandbox.
pub(super) fn find(root: &Path, known: &[u32]) -> Vec<Process> {
    let place = format!("{}/lib/qemu/", root.display());
    let of_the_root = |pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_emulator_of(&command, &place) && is_of_this_user(pid)
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| !known.contains(pid) && of_the_root(*pid)).filter_map(Process::of).collect()
}

/// Whether a command line, NUL between its words, is that of a QEMU which names a file below this place.
fn is_emulator_of(command: &[u8], place: &str) -> bool {
    let text = String::from_utf8_lossy(command);
    let mut words = text.split('\0');
    let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    program.starts_with("qemu-") && words.any(|word| word.contains(place))
}

/// Whether a process is in our pid namespace (then `NSpid`, proc_pid_status(5), has one number where we look from) and
/// has our real uid.
fn is_of_this_user(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let uid = nix::unistd::getuid().to_string();
    field("NSpid:").is_some_and(|numbers| numbers.len() == 1)
        && field("Uid:").is_some_and(|uids| uids.first() == Some(&uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_told_by_a_file_below_the_root() {
        let place = "/run/netloom/nlabc/lib/qemu/";
        let is = |words: &[&str]| is_emulator_of(words.join("\0").as_bytes(), place);
        let key = "{\"file\":\"/run/netloom/nlabc/lib/qemu/domain-1-x/master-key.aes\"}";
        assert!(is(&["/usr/bin/qemu-system-x86_64", "-object", key]));
        assert!(is(&[
            "/usr/bin/qemu-system-x86_64",
            "-qmp",
            "unix:/run/netloom/nlabc/lib/qemu/qmp-1/qmp.monitor,server=on"
        ]));
        assert!(!is(&["/usr/bin/qemu-system-x86_64", "-object", "/run/netloom/nlabd/lib/qemu/domain-1-x"]));
        assert!(!is(&["/usr/bin/vi", key]));
        assert!(!is(&[key]));
    }
}
