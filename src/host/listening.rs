//! Ports of this host on which programs listen.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::resource::HostPort;
use crate::topology::Protocol;

/// `TCP_LISTEN` of the kernel's `enum` of socket states (include/net/tcp_states.h), as /proc shows it.
const LISTENING: &str = "0A";
/// `TCP_CLOSE`: how /proc shows a UDP socket that is bound and has no peer.
const UNCONNECTED: &str = "07";

/// What listens on the host, of every user. A table that this kernel does not have is empty. A socket on every IPv6
/// address is listed for both families: unless its program says otherwise it is asked over IPv4, too.
///
/// The host is the calling thread's network namespace.
#[must_use]
pub fn ports() -> Vec<HostPort> {
    let tables = [
        ("tcp", Protocol::Tcp, false),
        ("tcp6", Protocol::Tcp, true),
        ("udp", Protocol::Udp, false),
        ("udp6", Protocol::Udp, true),
    ];
    let of = |(file, protocol, six)| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        read(&text, protocol, six)
    };
    tables.into_iter().flat_map(of).collect()
}

/// The sockets of one of these tables (proc(5)): addresses are words in the byte order of this machine, ports numbers.
fn read(table: &str, protocol: Protocol, six: bool) -> Vec<HostPort> {
    let waits = if protocol == Protocol::Udp { UNCONNECTED } else { LISTENING };
    let mut out = Vec::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some((ip, port)) = local.split_once(':') else { continue };
        let (Some(ip), Ok(port)) = (address(ip), u16::from_str_radix(port, 16)) else { continue };
        if state != waits {
            continue;
        }
        let ip = ip.to_canonical();
        let one = |six| HostPort {
            protocol,
            six,
            address: Some(ip).filter(|ip| !ip.is_unspecified()),
            ports: (port, port),
        };
        if six && ip.is_unspecified() {
            out.push(one(false));
        }
        out.push(one(ip.is_ipv6()));
    }
    out
}

fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn what_listens_here_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let open: Vec<String> = ports().iter().map(ToString::to_string).collect();
        assert!(open.contains(&format!("tcp/{} on 127.0.0.1", tcp.local_addr().unwrap().port())), "{open:?}");
        assert!(open.contains(&format!("udp/{} on ::1", udp.local_addr().unwrap().port())), "{open:?}");
        assert!(!open.iter().any(|port| port.starts_with("tcp/1 ")), "{open:?}");
    }

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";

    fn words(lines: &str, protocol: Protocol, six: bool) -> Vec<String> {
        read(&format!("{HEAD}{lines}"), protocol, six).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sockets_that_wait_are_found() {
        let tcp = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0\n\
                   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0\n\
                   2: 0A0200C0:0016 010200C0:8235 01 00000000:00000000 00:00000000 00000000  0\n";
        assert_eq!(
            words(tcp, Protocol::Tcp, false),
            ["tcp/3306 on 127.0.0.1", "tcp/8080 on every IPv4 address"]
        );
        let six = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0\n\
                   1: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0:0 0:0 0\n\
                   2: 0000000000000000FFFF00000A0200C0:0051 00000000000000000000000000000000:0000 0A 0:0 0:0 0\n";
        let both = ["tcp/80 on every IPv4 address", "tcp/80 on every IPv6 address"];
        assert_eq!(
            words(six, Protocol::Tcp, true),
            [both[0], both[1], "tcp/631 on ::1", "tcp/81 on 192.0.2.10"]
        );
        let udp = "  12: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000  0\n\
                   13: 0A0200C0:9C40 010200C0:0035 01 00000000:00000000 00:00000000 00000000  0\n";
        assert_eq!(words(udp, Protocol::Udp, false), ["udp/53 on every IPv4 address"]);
        assert!(
            words("", Protocol::Tcp, true).is_empty()
                && words("  0: nonsense\n", Protocol::Udp, false).is_empty()
        );
    }
}
