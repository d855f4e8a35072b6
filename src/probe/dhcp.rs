//! Who hands out addresses on a link: a DHCPDISCOVER (RFC 2131) and whose DHCPOFFERs come back. Nothing is taken: the
//! client's hardware address is made up, and no offer is accepted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::error::{Context, Result};
use crate::host::netns;
use crate::resource::Place;

/// The server's and the client's port.
const PORTS: (u16, u16) = (67, 68);
/// Bytes before the options: the fixed part, then the magic cookie.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Options: message type, server identifier, end.
const MESSAGE_TYPE: u8 = 53;
const SERVER_ID: u8 = 54;
const PARAMETERS: u8 = 55;
const END: u8 = 255;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;

/// Pause between two asks.
const SPACING: Duration = Duration::from_millis(400);
/// How long to wait for a second server after the first has answered.
const RIVALS: Duration = Duration::from_millis(120);

/// Servers that offer a lease on a link of a namespace, in the order of their answers; asks for `patience` until there
/// is one.
///
/// # Errors
/// When the link does not exist or the question cannot be sent.
pub(crate) async fn servers(place: &Place, link: &str, patience: Duration) -> Result<Vec<Ipv4Addr>> {
    let failed = || format!("cannot ask for a lease on `{link}`");
    let device = link.to_owned();
    let socket = netns::within(place, move || open(&device))?.context(failed)?;
    let socket = UdpSocket::from_std(socket.into()).context(failed)?;
    let began = Instant::now();
    let id = client(link, began);
    let mut found: Vec<Ipv4Addr> = Vec::new();
    let mut sent = None::<Instant>;
    let mut until = began + patience;
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        if found.is_empty() && sent.is_none_or(|at| at.elapsed() >= SPACING) {
            sent = Some(Instant::now());
            let to = SocketAddr::from((Ipv4Addr::BROADCAST, PORTS.0));
            socket.send_to(&discover(id), to).await.context(failed)?;
        }
        let wait = SPACING.min(until.saturating_duration_since(Instant::now()));
        let Ok(received) = timeout(wait, socket.recv_from(&mut buffer)).await else { continue };
        let (length, _) = received.context(failed)?;
        if let Some(server) = offer(&buffer[..length], id)
            && !found.contains(&server)
        {
            found.push(server);
            until = until.min(Instant::now() + RIVALS);
        }
    }
    Ok(found)
}

/// A transaction id, which also ends a made-up, locally administered hardware address.
fn client(link: &str, now: Instant) -> u32 {
    use std::hash::BuildHasher;
    let hash = std::collections::hash_map::RandomState::new().hash_one((link, now, std::process::id()));
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(1)
}

fn open(link: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Beside the guest's own client, whose port it is.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(link.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORTS.1)).into())?;
    Ok(socket)
}

fn hardware(id: u32) -> [u8; 6] {
    let [a, b, c, d] = id.to_be_bytes();
    [0x02, 0x6e, a, b, c, d]
}

fn discover(id: u32) -> Vec<u8> {
    let mut packet = vec![0; FIXED];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]); // a request, over Ethernet, six bytes of address, no hops
    packet[4..8].copy_from_slice(&id.to_be_bytes());
    packet[10] = 0x80; // answer by broadcast: nobody here has the offered address
    packet[28..34].copy_from_slice(&hardware(id));
    packet.extend(COOKIE);
    packet.extend([MESSAGE_TYPE, 1, DISCOVER, PARAMETERS, 2, 1, 3, END]);
    packet
}

/// The server of an offer to us.
fn offer(packet: &[u8], id: u32) -> Option<Ipv4Addr> {
    let ours = packet.first() == Some(&2)
        && packet.get(4..8)? == id.to_be_bytes()
        && packet.get(28..34)? == hardware(id)
        && packet.get(FIXED..FIXED + 4)? == COOKIE;
    if !ours {
        return None;
    }
    let (mut rest, mut kind, mut server) = (packet.get(FIXED + 4..)?, None, None);
    loop {
        match *rest {
            [0, ref more @ ..] => rest = more,
            [END, ..] | [] => break,
            [option, length, ref more @ ..] => {
                let value = more.get(..usize::from(length))?;
                match (option, value) {
                    (MESSAGE_TYPE, [value]) => kind = Some(*value),
                    (SERVER_ID, [a, b, c, d]) => server = Some(Ipv4Addr::new(*a, *b, *c, *d)),
                    _ => {}
                }
                rest = more.get(usize::from(length)..)?;
            }
            [_] => break,
        }
    }
    server.filter(|_| kind == Some(OFFER))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An offer as a server would write it, field by field (RFC 2131, figure 1).
    fn reply(id: u32, options: &[u8]) -> Vec<u8> {
        let mut packet = discover(id)[..FIXED + 4].to_vec();
        packet[0] = 2;
        packet.extend(options);
        packet
    }

    #[test]
    fn only_an_offer_to_us_counts() {
        let good = reply(7, &[0, 53, 1, 2, 54, 4, 10, 0, 0, 1, 255]);
        assert_eq!(offer(&good, 7), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(offer(&good, 8), None);
        assert_eq!(offer(&reply(7, &[53, 1, 5, 54, 4, 10, 0, 0, 1, 255]), 7), None, "an acknowledgement");
        assert_eq!(offer(&reply(7, &[53, 1, 2, 54, 4, 10]), 7), None, "cut off");
        assert_eq!(offer(&discover(7), 7), None);
    }
}
