//! Guests whose daemon has gone: a QEMU outlives the libvirtd that started it, and belongs to the next one.

use std::fs;
use std::path::Path;

use super::xml;

/// Where the system daemon keeps what it knows of each running domain, as XML, and its process id.
const RUNNING: &str = "/run/libvirt/qemu";

/// Names of domains with the mark of `lab` that run under a system daemon, by what the daemon has left there.
pub(crate) fn stranded(lab: &str) -> Vec<String> {
    find(Path::new(RUNNING), Path::new("/proc"), lab)
}

fn find(running: &Path, processes: &Path, lab: &str) -> Vec<String> {
    let entries = fs::read_dir(running).into_iter().flatten().flatten();
    let files =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "xml"));
    let mut names: Vec<String> = files
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let ours = text.contains(&format!("{}\"", xml::NAMESPACE))
                && xml::read_mark(&text).is_some_and(|mark| mark.lab == lab);
            ours && is_emulator(processes, &file.with_extension("pid"))
        })
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Whether a file names a process that is a QEMU: its number may be another's by now.
fn is_emulator(processes: &Path, file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap_or_default();
    let Ok(pid) = pid.trim().parse::<u32>() else { return false };
    let command = fs::read(processes.join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(program).rsplit('/').next().is_some_and(|name| name.starts_with("qemu-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_stranded_while_its_emulator_runs() {
        let scratch = std::env::temp_dir().join(format!("netloom-stranded-{}", std::process::id()));
        let domain = |name: &str, namespace: &str, lab: &str, pid: &str| {
            let mark = format!("<n:object xmlns:n=\"{namespace}\" lab=\"{lab}\" guest=\"a\" digest=\"\"/>");
            let text = format!(
                "<domstatus><domain><name>{name}</name><metadata>{mark}</metadata></domain></domstatus>"
            );
            fs::write(scratch.join(name).with_extension("xml"), text).unwrap();
            fs::write(scratch.join(name).with_extension("pid"), pid).unwrap();
        };
        for (pid, command) in [("7", "/usr/bin/qemu-system-x86_64\0-S"), ("8", "/usr/bin/sleep\0qemu-")] {
            fs::create_dir_all(scratch.join(pid)).unwrap();
            fs::write(scratch.join(pid).join("cmdline"), command).unwrap();
        }
        domain("lab-a", xml::NAMESPACE, "lab", "7\n");
        domain("lab-b", xml::NAMESPACE, "lab", "8");
        domain("lab-c", xml::NAMESPACE, "lab", "9");
        domain("lab-d", xml::NAMESPACE, "other", "7");
        domain("lab-e", "https://netloom.dev/ns/10", "lab", "7");
        assert_eq!(find(&scratch, &scratch, "lab"), ["lab-a"]);
        assert_eq!(find(&scratch.join("none"), &scratch, "lab"), Vec::<String>::new());
        fs::remove_dir_all(scratch).unwrap();
    }
}
