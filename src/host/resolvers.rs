//! Where the host asks for names.

use std::fs;
use std::net::IpAddr;

/// Lists of resolvers. Where the first one names a stub on the loopback alone (systemd-resolved, a dnsmasq of
/// NetworkManager's), the stub's owner keeps what it asks itself in one of the others.
const LISTS: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// The list for who cannot reach the host's loopback; the usual one where none is better.
pub(crate) fn file() -> &'static str {
    let useful = |list: &&str| fs::read_to_string(list).is_ok_and(|text| leads_beyond(&text));
    LISTS.into_iter().find(useful).unwrap_or(LISTS[0])
}

/// Whether a list (resolv.conf(5)) names a resolver that is not on the loopback.
fn leads_beyond(text: &str) -> bool {
    let server = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        // A link-local address has its link behind a percent sign.
        words.next()?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).any(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolvers_elsewhere_lead_beyond() {
        assert!(leads_beyond(
            "# by hand\nsearch lan\nnameserver 127.0.0.1\nnameserver\t192.0.2.1 # router\n"
        ));
        assert!(leads_beyond("nameserver fe80::1%eth0\n"));
        for text in
            ["", "nameserver 127.0.0.53\noptions edns0\n", "nameserver ::1\n", "#nameserver 192.0.2.1\n"]
        {
            assert!(!leads_beyond(text), "{text}");
        }
    }
}
