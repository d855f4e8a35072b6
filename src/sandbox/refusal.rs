//! Why the kernel refuses namespaces, and what mends it.

use std::fs;

use nix::errno::Errno;

use crate::error::Error;

fn setting(path: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok()
}

/// The error for a refused namespace. `what` completes "cannot …".
pub(super) fn error(what: &str, cause: impl std::fmt::Display) -> Error {
    let error = Error::host(format!("cannot {what}, which a sandbox is made of")).caused_by(cause);
    error.hint(mend(setting))
}

/// The mend that fits the settings of this kernel; all of them where none stands out.
fn mend(setting: impl Fn(&str) -> Option<i64>) -> String {
    if setting("user/max_user_namespaces") == Some(0) {
        return "user namespaces are switched off: `sudo sysctl user.max_user_namespaces=15000`, and a file in \
                /etc/sysctl.d to keep it"
            .into();
    }
    if setting("kernel/unprivileged_userns_clone") == Some(0) {
        return "ordinary users may not make user namespaces (Debian, Arch's hardened kernel): \
                `sudo sysctl kernel.unprivileged_userns_clone=1`, and a file in /etc/sysctl.d to keep it; or run as root"
            .into();
    }
    if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return "AppArmor restricts user namespaces (Ubuntu since 23.10): \
                `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, and a file in /etc/sysctl.d to keep it; \
                or run as root"
            .into();
    }
    "run as root, or let users make namespaces: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` \
     (Ubuntu), `sudo sysctl kernel.unprivileged_userns_clone=1` (Debian, Arch), \
     `sudo sysctl user.max_user_namespaces=15000` (Fedora); a container must be a privileged one"
        .into()
}

/// The error for a refused `unshare` of a user namespace.
pub(super) fn user_namespace(cause: Errno) -> Error {
    match cause {
        Errno::ENOSPC | Errno::EUSERS => error("make a user namespace", "the limit on namespaces is reached"),
        _ => error("make a user namespace", cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mend_names_the_setting_that_forbids() {
        let only = |name: &'static str, value| move |path: &str| (path == name).then_some(value);
        assert!(mend(only("user/max_user_namespaces", 0)).contains("sysctl user.max_user_namespaces=15000"));
        let ubuntu = mend(only("kernel/apparmor_restrict_unprivileged_userns", 1));
        assert!(ubuntu.contains("sysctl kernel.apparmor_restrict_unprivileged_userns=0"));
        let debian = mend(only("kernel/unprivileged_userns_clone", 0));
        assert!(debian.contains("sysctl kernel.unprivileged_userns_clone=1"));
        assert!(mend(|_| None).contains("run as root"));
    }
}
