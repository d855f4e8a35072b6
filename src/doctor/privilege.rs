//! Root, or the namespaces that let an ordinary user have a sandbox.

use super::finding::{Finding, Mend};
use super::host::Host;

const NEED: &str = "labs on this host (root) or in a sandbox (user namespaces)";

/// Settings that close user namespaces to ordinary users: the file, the value that closes them, the mend.
/// Kernel: `user.max_user_namespaces`; Debian's and Ubuntu's own patches: the two others.
const CLOSED_BY: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    vec![privilege(host), tun(host)]
}

fn privilege(host: &Host) -> Finding {
    let name = "privilege";
    let closed = CLOSED_BY.iter().find(|(file, value, _)| host.read(file).as_deref() == Some(value));
    match closed {
        _ if host.is_root => Finding::ok(name, NEED, "root: labs on the host and in sandboxes"),
        None => Finding::ok(
            name,
            NEED,
            "ordinary user with user namespaces: labs with `--sandbox`; on the host, use sudo",
        ),
        Some((file, value, mend)) => Finding::missing(
            name,
            NEED,
            format!("ordinary user, and user namespaces are closed ({file} is {value})"),
            Mend::everywhere(&format!("{mend}    (or run netloom as root)")),
        ),
    }
}

/// The device that taps are made with: it has to be there and, for ordinary users, open to them.
fn tun(host: &Host) -> Finding {
    let (name, need) = ("/dev/net/tun", "NICs of VM guests");
    let device = host.at(name);
    match std::fs::OpenOptions::new().read(true).write(true).open(&device) {
        Ok(_) => Finding::ok(name, need, "can be opened"),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            let detail = "exists, but this user may not open it (distributions give it mode 0666)";
            Finding::missing(name, need, detail, Mend::everywhere("sudo chmod 0666 /dev/net/tun"))
        }
        Err(e) => {
            let mend = "sudo modprobe tun";
            Finding::missing(name, need, format!("cannot be opened: {e}"), Mend::everywhere(mend))
        }
    }
}
