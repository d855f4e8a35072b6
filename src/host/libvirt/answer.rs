//! libvirt's errors as ours: what could not be done, why, and what mends it.

use virt::error::{Error as VirtError, ErrorNumber};

use crate::error::{Error, Kind};

/// How QEMU and libvirt's library are installed.
pub(super) const INSTALL: &str = "Debian, Ubuntu: sudo apt install qemu-system-x86 libvirt-daemon-driver-qemu; \
    Fedora: sudo dnf install qemu-kvm libvirt-daemon-driver-qemu; \
    Arch: sudo pacman -S qemu-base libvirt";

/// `what` could not be done because of `cause`.
pub(super) fn wrap(what: impl Into<String>, cause: &VirtError) -> Error {
    let text = cause.message();
    let known = known(cause.code(), text);
    let kind = known.map_or(Kind::Failed, |(kind, _)| kind);
    let error = Error::new(kind, what).caused_by(text);
    match known {
        Some((_, hint)) => error.hint(hint),
        None => error,
    }
}

/// Whether the domain is simply not there.
pub(super) fn is_gone(error: &VirtError) -> bool {
    error.code() == ErrorNumber::NoDomain
}

/// Mends of failures that hosts are known to have, by code and by the parts of libvirt's and QEMU's messages that
/// name the cause.
fn known(code: ErrorNumber, text: &str) -> Option<(Kind, &'static str)> {
    let says = |part: &str| text.contains(part);
    Some(match code {
        ErrorNumber::NoConnect if says("no connection driver") => (Kind::Host, INSTALL),
        ErrorNumber::AuthFailed | ErrorNumber::AuthUnavailable | ErrorNumber::AuthCancelled => (
            Kind::Host,
            "sudo usermod -aG libvirt \"$USER\", then log in again; or use `--sandbox`, which needs no daemon",
        ),
        _ if says("virtlogd-sock") => (Kind::Host, "start virtlogd: sudo systemctl start virtlogd.socket"),
        _ if says("libvirt-sock") || says("virtqemud-sock") => (
            Kind::Host,
            "start the daemon (sudo systemctl start libvirtd, or virtqemud.socket), or leave --connect away",
        ),
        _ if says("KVM kernel module") || says("/dev/kvm") => {
            (Kind::Host, "let QEMU open /dev/kvm: sudo usermod -aG kvm \"$USER\", then log in again")
        }
        _ if says("/dev/net/tun") => {
            (Kind::Host, "sudo modprobe tun; sudo chmod 0666 /dev/net/tun (the default on distributions)")
        }
        _ if says("Cannot find suitable emulator")
            || says("could not find capabilities")
            || says("any emulator to serve") =>
        {
            (Kind::Host, INSTALL)
        }
        _ if says("Cannot access storage file") || says("Could not open") && says("Permission denied") => (
            Kind::Host,
            "the daemon's QEMU runs as another user and must reach the file: keep labs outside of home directories \
             (NETLOOM_STATE_DIR), or use `--sandbox`",
        ),
        _ if says("Cannot allocate memory") || says("cannot set up guest memory") => {
            (Kind::Host, "give the guest less `memory:`, or stop something that uses the host's")
        }
        _ => return None,
    })
}
