//! Whether guests run on the CPU itself (KVM) or are emulated (TCG).

use std::fs;
use std::io::ErrorKind;

use serde::Serialize;

use super::Connection;

/// How a guest's CPU is provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// By the CPU's virtualisation extensions, through the kernel.
    Kvm,
    /// By QEMU's emulator, several times slower.
    Tcg,
}

/// The choice and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accelerator {
    /// The choice.
    pub acceleration: Acceleration,
    /// What it rests on, for `doctor` and `status`.
    pub reason: String,
    /// What would bring KVM, where something would.
    pub mend: Option<String>,
}

impl Accelerator {
    /// Why this one: one clause for people.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.reason
    }
}

/// What this process itself can use. The device alone proves nothing: a host that is a guest itself may have a
/// `/dev/kvm` on which ordinary guests hang; so the CPU must name its extension, too.
#[must_use]
pub fn accelerator() -> Accelerator {
    decide(&cpuinfo(), &open_kvm(), false)
}

/// What guests of a connection can use. A system daemon opens the device with its own rights, not with ours.
#[must_use]
pub fn accelerator_for(connection: &Connection) -> Accelerator {
    decide(&cpuinfo(), &open_kvm(), matches!(connection, Connection::Daemon(_)))
}

fn cpuinfo() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

fn open_kvm() -> Result<(), ErrorKind> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").map(|_| ()).map_err(|e| e.kind())
}

/// The flag of the CPU's virtualisation extension, from the text of `/proc/cpuinfo`.
fn extension(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    ["vmx", "svm"].into_iter().find(|flag| has(flag))
}

fn decide(cpuinfo: &str, device: &Result<(), ErrorKind>, opened_by_daemon: bool) -> Accelerator {
    let emulated = |reason: &str, mend: Option<&str>| Accelerator {
        acceleration: Acceleration::Tcg,
        reason: reason.to_owned(),
        mend: mend.map(str::to_owned),
    };
    let Some(flag) = extension(cpuinfo) else {
        return emulated(
            "the CPU offers no virtualisation extension (neither vmx nor svm in /proc/cpuinfo)",
            Some(
                "switch VT-x or AMD-V on in the firmware, or nested virtualisation where this host is a VM itself",
            ),
        );
    };
    match device {
        Ok(()) => Accelerator {
            acceleration: Acceleration::Kvm,
            reason: format!("the CPU has {flag} and /dev/kvm opens"),
            mend: None,
        },
        Err(ErrorKind::PermissionDenied) if opened_by_daemon => Accelerator {
            acceleration: Acceleration::Kvm,
            reason: format!("the CPU has {flag} and the libvirt daemon opens /dev/kvm"),
            mend: None,
        },
        Err(ErrorKind::NotFound) => {
            let module = if flag == "vmx" { "kvm_intel" } else { "kvm_amd" };
            emulated("there is no /dev/kvm", Some(&format!("sudo modprobe {module}")))
        }
        Err(ErrorKind::PermissionDenied) => emulated(
            "/dev/kvm is closed to this user",
            Some("sudo usermod -aG kvm \"$USER\", then log in again"),
        ),
        Err(other) => emulated(&format!("/dev/kvm does not open ({other})"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_alone_is_no_proof() {
        let plain = decide("flags\t\t: fpu sse2 hypervisor\n", &Ok(()), false);
        assert_eq!(plain.acceleration, Acceleration::Tcg);
        let kvm = decide("flags\t\t: fpu svm sse2\n", &Ok(()), false);
        assert_eq!(kvm.acceleration, Acceleration::Kvm);
    }

    #[test]
    fn a_flag_counts_only_as_a_whole_word() {
        assert_eq!(extension("flags : svm_lock xvmx\n"), None);
        assert_eq!(extension("model name : svm\nflags : fpu vmx\n"), Some("vmx"));
        assert_eq!(extension("model name : svm\nflags : fpu\n"), None);
    }

    #[test]
    fn a_closed_device_matters_to_us_and_not_to_a_daemon() {
        let closed = Err(ErrorKind::PermissionDenied);
        let ours = decide("flags : vmx\n", &closed, false);
        assert_eq!(ours.acceleration, Acceleration::Tcg);
        assert!(ours.mend.is_some_and(|mend| mend.contains("kvm")));
        assert_eq!(decide("flags : vmx\n", &closed, true).acceleration, Acceleration::Kvm);
        let missing = decide("flags : svm\n", &Err(ErrorKind::NotFound), true);
        assert_eq!(missing.mend.as_deref(), Some("sudo modprobe kvm_amd"));
    }
}
