//! Echo probes over a raw socket, or over a datagram one where raw ones are not allowed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Protocol as SocketProtocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::outcome::{Outcome, Question, Silence, unreachable};
use super::socket::{classify, offender, open, spacing};
use crate::resource::Place;

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const ECHO_HEADER: usize = 8;

/// A raw socket hears every ICMP message of its namespace: probes tell theirs by this number.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// Sends echo requests at even spacing for `left` and waits for a reply to any.
pub(super) async fn attempt(place: &Place, question: Question, left: Duration) -> Outcome {
    let address = question.address;
    let protocol = if address.is_ipv4() { SocketProtocol::ICMPV4 } else { SocketProtocol::ICMPV6 };
    let (socket, raw) = match open(place, address, Type::RAW, protocol).await {
        Ok(socket) => (socket, true),
        Err(_) => match open(place, address, Type::DGRAM, protocol).await {
            Ok(socket) => (socket, false),
            Err(silence) => return Outcome::Silent(silence),
        },
    };
    let own = std::process::id().to_be_bytes();
    let echo = Echo {
        address,
        raw,
        id: u16::from_be_bytes([own[2], own[3]]) ^ NEXT.fetch_add(1, Ordering::Relaxed).rotate_left(5),
    };
    echo.exchange(socket, left).await.unwrap_or_else(Outcome::Silent)
}

struct Echo {
    address: IpAddr,
    raw: bool,
    id: u16,
}

impl Echo {
    async fn exchange(&self, socket: Socket, left: Duration) -> Result<Outcome, Silence> {
        let unable = |e: io::Error| Silence::Unable(e.to_string());
        let watch = socket.try_clone().map_err(unable)?;
        // Any datagram socket will do for tokio's: it only sends, receives and waits.
        let socket = UdpSocket::from_std(socket.into()).map_err(unable)?;
        let (interval, began) = (spacing(left), Instant::now());
        let to = SocketAddr::new(self.address, 0);
        let mut sent = Vec::new();
        loop {
            let sequence = u16::try_from(sent.len()).unwrap_or(u16::MAX);
            sent.push(Instant::now());
            let packet = self.request(sequence);
            socket.send_to(&packet, to).await.map_err(|e| classify(&e, offender(&watch)))?;
            let wait = interval.min(left.saturating_sub(began.elapsed()));
            match timeout(wait, self.receive(&socket, &watch)).await {
                Ok(Ok(sequence)) => {
                    let rtt = sent.get(usize::from(sequence)).map(Instant::elapsed);
                    return Ok(Outcome::Answered { line: None, rtt });
                }
                Ok(Err(silence)) => return Err(silence),
                Err(_) if began.elapsed() >= left => return Err(Silence::TimedOut),
                Err(_) => {}
            }
        }
    }

    fn request(&self, sequence: u16) -> Vec<u8> {
        let mut packet = vec![if self.address.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
        packet.extend(self.id.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(*b"netloom probe");
        if self.address.is_ipv4() {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        } // the kernel fills in ICMPv6's, which covers the addresses
        packet
    }

    /// Waits for the reply's sequence number, or an error message about our request.
    async fn receive(&self, socket: &UdpSocket, watch: &Socket) -> Result<u16, Silence> {
        loop {
            let mut buffer = [0; 2048];
            let (n, from) = socket.recv_from(&mut buffer).await.map_err(|e| classify(&e, offender(watch)))?;
            let from = from.ip();
            match self.read(&buffer[..n], from) {
                Some(Heard::Reply(sequence)) => return Ok(sequence),
                Some(Heard::Error(why)) => return Err(Silence::Rejected { by: Some(from), why }),
                None => {}
            }
        }
    }

    /// What a received message means for this probe.
    fn read(&self, bytes: &[u8], from: IpAddr) -> Option<Heard> {
        let v4 = self.address.is_ipv4();
        // A raw IPv4 socket gets the IP header too, an IPv6 one does not.
        let message = if v4 && self.raw { after_v4_header(bytes)?.1 } else { bytes };
        let (&kind, &code) = (message.first()?, message.get(1)?);
        if kind == if v4 { 0 } else { 129 } {
            let ours = from == self.address && (!self.raw || number(message, 4)? == self.id);
            return ours.then_some(Heard::Reply(number(message, 6)?));
        }
        let error = if v4 { matches!(kind, 3 | 11) } else { matches!(kind, 1..=3) };
        if !error {
            return None;
        }
        let about = message.get(ECHO_HEADER..)?;
        let (to, echo) = if v4 { after_v4_header(about)? } else { after_v6_header(about)? };
        let request = if v4 { 8 } else { 128 };
        let ours = to == self.address && echo.first() == Some(&request) && number(echo, 4)? == self.id;
        ours.then(|| Heard::Error(unreachable(v4, kind, code)))
    }
}

enum Heard {
    Reply(u16),
    Error(&'static str),
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Destination and payload of an IPv4 packet.
fn after_v4_header(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    let to: [u8; 4] = packet.get(V4_HEADER - 4..V4_HEADER)?.try_into().ok()?;
    Some((Ipv4Addr::from(to).into(), packet.get(length.max(V4_HEADER)..)?))
}

/// Destination and payload of an IPv6 packet; our requests have no extension headers.
fn after_v6_header(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let to: [u8; 16] = packet.get(V6_HEADER - 16..V6_HEADER)?.try_into().ok()?;
    Some((Ipv6Addr::from(to).into(), packet.get(V6_HEADER..)?))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
