//! What VM guests run on: the CPU, libvirt, memory.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::finding::{Finding, Mend};
use super::host::Host;
use crate::host::libvirt::{Acceleration, WORKER, accelerator};

/// What two guests and a firewall need, in MiB (each about 200 MiB resident).
const MEMORY_WANTED: u64 = 1024;

/// Where distributions put libvirt's drivers.
const DRIVERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver",
    "/usr/lib64/libvirt/connection-driver",
    "/usr/lib/libvirt/connection-driver",
    "/usr/local/lib/libvirt/connection-driver",
];
/// Sockets of the daemon: the one for everything, and the modular one for QEMU.
const SOCKETS: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    vec![kvm(), worker(host), driver(host), daemon(host), memory(host)]
}

fn kvm() -> Finding {
    let (name, need) =
        ("kvm", "VM guests at full speed (without it they are emulated, several times slower)");
    let found = accelerator();
    match found.acceleration {
        Acceleration::Kvm => Finding::ok(name, need, found.reason),
        Acceleration::Tcg => {
            let mend = found.mend.as_deref().map(Mend::everywhere).unwrap_or_default();
            Finding::warning(name, need, format!("{}: VM guests are emulated", found.reason), mend)
        }
    }
}

/// The program that loads libvirt's library: a copy of `netloom` alone lacks it.
fn worker(host: &Host) -> Finding {
    let need = "VM guests";
    match host.program.as_ref().map(|own| own.with_file_name(WORKER)).filter(|path| path.is_file()) {
        Some(path) => Finding::ok(WORKER, need, path.display().to_string()),
        None => Finding::missing(
            WORKER,
            need,
            format!("no {WORKER} beside netloom"),
            Mend::everywhere("cargo build --release    (makes both programs: keep them in one directory)"),
        ),
    }
}

fn driver(host: &Host) -> Finding {
    let (name, need) = ("libvirt-qemu-driver", "VM guests without a libvirt daemon");
    let file = "libvirt_driver_qemu.so";
    match DRIVERS.iter().map(|directory| format!("{directory}/{file}")).find(|path| host.at(path).exists()) {
        Some(path) => Finding::ok(name, need, path),
        None => Finding::missing(
            name,
            need,
            format!("no {file} in libvirt's driver directory"),
            Mend::packages("libvirt-daemon-driver-qemu", "libvirt-daemon-driver-qemu", "libvirt"),
        ),
    }
}

/// A daemon is welcome (virt-manager then shows the guests) but never needed.
fn daemon(host: &Host) -> Finding {
    let (name, need) = ("libvirt-daemon", "guests that virt-manager and virsh show");
    let present: Vec<&str> = SOCKETS.into_iter().filter(|socket| host.at(socket).exists()).collect();
    let mut refused = None;
    for socket in &present {
        match answers(host, socket) {
            Ok(()) => return Finding::ok(name, need, format!("answers at {socket}")),
            Err(e) => refused = Some((*socket, e)),
        }
    }
    match refused {
        None => Finding::ok(name, need, "none runs; netloom uses libvirt's embedded driver"),
        Some((socket, e)) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            let detail = format!("{socket} is closed to this user; netloom uses libvirt's embedded driver");
            let mend = "sudo usermod -aG libvirt \"$USER\"    (then log in anew)";
            Finding::warning(name, need, detail, Mend::everywhere(mend))
        }
        Some((socket, e)) => {
            let detail = format!("nobody answers at {socket} ({e}); netloom uses libvirt's embedded driver");
            Finding::warning(
                name,
                need,
                detail,
                Mend::everywhere("sudo systemctl restart libvirtd.service    (or virtqemud.socket)"),
            )
        }
    }
}

fn answers(host: &Host, socket: &str) -> std::io::Result<()> {
    let stream = UnixStream::connect(host.at(socket))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))
}

fn memory(host: &Host) -> Finding {
    let (name, need) = ("memory", "VM guests, about 200 MiB each");
    let available = host.read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    match available.map(|kib| kib / 1024) {
        None => Finding::warning(name, need, "/proc/meminfo says nothing of MemAvailable", Mend::default()),
        Some(mib) if mib < MEMORY_WANTED => {
            let detail = format!("{mib} MiB are available, {MEMORY_WANTED} MiB are comfortable");
            let mend = "end something, or build the lab with `netloom up --guests namespace`";
            Finding::warning(name, need, detail, Mend::everywhere(mend))
        }
        Some(mib) => Finding::ok(name, need, format!("{mib} MiB available")),
    }
}
