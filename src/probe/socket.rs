//! Probes from a network namespace. A socket belongs for good to the namespace it was made in, so only its making
//! needs a thread that has entered; asking is ordinary asynchronous I/O and ends when it is dropped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4RecvErr, Ipv6RecvErr},
};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::icmp;
use super::outcome::{Outcome, Patience, Question, Silence, unreachable};
use crate::host::netns;
use crate::resource::Place;
use crate::topology::Protocol;

/// Pause before asking again after a refusal.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a source without a route is given to get one.
const ROUTE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a server that nobody knows may take to greet; many wait for the client to speak first.
const GREETING: Duration = Duration::from_millis(300);

/// How long an accepted connection may stay mute when a line must come, at least: a guest under emulation is slow. A third
/// of a longer patience, for to ask a slow guest again makes it slower.
const LINE: Duration = Duration::from_secs(2);

/// A datagram that netloom's own services answer like any other, and a name server as what it is: a query for the
/// root's name servers.
pub(super) const DATAGRAM: [u8; 17] = [0x6e, 0x6c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Asks until there is an answer or patience ends.
pub(super) async fn ask(place: &Place, question: Question, patience: Patience) -> Outcome {
    let began = Instant::now();
    loop {
        let left = patience.whole.saturating_sub(began.elapsed());
        let outcome = match question.service.protocol {
            Protocol::Icmp => icmp::attempt(place, question, left).await,
            Protocol::Tcp => tcp(place, question, left).await,
            Protocol::Udp => udp(place, question, left).await,
        };
        let Outcome::Silent(silence) = &outcome else { return outcome };
        let whole = if *silence == Silence::NoRoute { ROUTE_PATIENCE } else { patience.whole };
        let over = began.elapsed() + PAUSE >= whole;
        if over || !patience.insist || silence.proves_nothing() {
            return outcome;
        }
        sleep(PAUSE).await;
    }
}

/// A socket made inside a namespace, not blocking, that keeps ICMP errors for [`offender`].
pub(super) async fn open(
    place: &Place,
    address: IpAddr,
    kind: Type,
    protocol: SocketProtocol,
) -> Result<Socket, Silence> {
    let place = place.clone();
    let made = tokio::task::spawn_blocking(move || {
        netns::within(&place, move || -> io::Result<Socket> {
            let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, kind, Some(protocol))?;
            socket.set_nonblocking(true)?;
            // A raw socket would be told of everybody's errors; it reads the messages themselves.
            match (kind == Type::RAW, address.is_ipv4()) {
                (true, _) => {}
                (false, true) => setsockopt(&socket, Ipv4RecvErr, &true)?,
                (false, false) => setsockopt(&socket, Ipv6RecvErr, &true)?,
            }
            Ok(socket)
        })
    });
    match made.await {
        Ok(Ok(Ok(socket))) => Ok(socket),
        Ok(Ok(Err(e))) => Err(Silence::Unable(format!("cannot make a socket: {e}"))),
        Ok(Err(e)) => Err(Silence::Unable(e.to_string())),
        Err(e) => Err(Silence::Unable(e.to_string())),
    }
}

async fn tcp(place: &Place, question: Question, left: Duration) -> Outcome {
    let socket = match open(place, question.address, Type::STREAM, SocketProtocol::TCP).await {
        Ok(socket) => socket,
        Err(silence) => return Outcome::Silent(silence),
    };
    let watch = socket.try_clone(); // tokio closes its own when the connection fails
    let to = SocketAddr::new(question.address, question.service.port);
    let began = Instant::now();
    match timeout(left, TcpSocket::from_std_stream(socket.into()).connect(to)).await {
        Err(_) => Outcome::Silent(Silence::TimedOut),
        Ok(Err(e)) => Outcome::Silent(match watch {
            Ok(watch) => classify(&e, offender(&watch)),
            Err(_) => classify(&e, None),
        }),
        Ok(Ok(stream)) => {
            let rtt = began.elapsed();
            match (
                read_line(stream, if question.line { LINE.max(left / 3) } else { GREETING }).await,
                question.line,
            ) {
                (None, true) => Outcome::Silent(Silence::Mute),
                (line, _) => Outcome::Answered { line, rtt: Some(rtt) },
            }
        }
    }
}

async fn read_line(stream: TcpStream, patience: Duration) -> Option<String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(512));
    let read = timeout(patience, reader.read_until(b'\n', &mut line)).await;
    matches!(read, Ok(Ok(n)) if n > 0).then(|| text(&line))
}

/// An answer as one line of text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().trim().to_owned()
}

async fn udp(place: &Place, question: Question, left: Duration) -> Outcome {
    let attempt = async {
        let socket = open(place, question.address, Type::DGRAM, SocketProtocol::UDP).await?;
        let watch = socket.try_clone().map_err(|e| Silence::Unable(format!("cannot copy a socket: {e}")))?;
        let fail = |e: io::Error| classify(&e, offender(&watch));
        let socket = UdpSocket::from_std(socket.into()).map_err(fail)?;
        let to = SocketAddr::new(question.address, question.service.port);
        socket.connect(to).await.map_err(fail)?;
        let mut interval = spacing(left);
        let mut sends = 0;
        let began = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            let sent = Instant::now();
            socket.send(&DATAGRAM).await.map_err(fail)?;
            sends += 1;
            if sends > 3 {
                interval *= 2; // a slow server has enough to do with those
            }
            let wait = interval.min(left.saturating_sub(began.elapsed()));
            match timeout(wait, socket.recv(&mut buffer)).await {
                Ok(Ok(n)) => {
                    let line = Some(text(&buffer[..n])).filter(|line| line.contains('/'));
                    return Ok(Outcome::Answered { line, rtt: Some(sent.elapsed()) });
                }
                Ok(Err(e)) => return Err(fail(e)),
                Err(_) if began.elapsed() >= left => return Err(Silence::TimedOut),
                Err(_) => {}
            }
        }
    };
    attempt.await.unwrap_or_else(Outcome::Silent)
}

/// Time between two sends: three in a short wait, one a second at most in a long one.
pub(super) fn spacing(whole: Duration) -> Duration {
    (whole / 3).clamp(Duration::from_millis(50), Duration::from_secs(1))
}

/// What an error of a socket call means, given the ICMP error behind it.
pub(super) fn classify(error: &io::Error, offender: Option<(IpAddr, &'static str)>) -> Silence {
    let code = error.raw_os_error().unwrap_or_default();
    match (code, offender) {
        (libc::ECONNREFUSED, None | Some((_, "port unreachable"))) => Silence::Refused,
        (_, Some((by, why))) => Silence::Rejected { by: Some(by), why },
        (libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT, None) => Silence::NoRoute,
        (libc::EHOSTUNREACH, None) => Silence::Rejected { by: None, why: "host unreachable" },
        (libc::EPERM | libc::EACCES, None) => {
            Silence::Rejected { by: None, why: "the source's own firewall or routes forbid it" }
        }
        (libc::ETIMEDOUT, None) => Silence::TimedOut,
        (libc::ECONNRESET, None) => Silence::Refused,
        _ => Silence::Unable(error.to_string()),
    }
}

/// Who sent the ICMP error that a socket has queued, and what it says.
pub(super) fn offender(socket: &Socket) -> Option<(IpAddr, &'static str)> {
    let mut buffer = [0; 512];
    let mut pieces = [io::IoSliceMut::new(&mut buffer)];
    let mut control = vec![0; 512];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags).ok()?;
    message.cmsgs().ok()?.find_map(|item| match item {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) if error.ee_origin == libc::SO_EE_ORIGIN_ICMP => {
            let by = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
            Some((IpAddr::V4(by), unreachable(true, error.ee_type, error.ee_code)))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(from))
            if error.ee_origin == libc::SO_EE_ORIGIN_ICMP6 =>
        {
            let by = Ipv6Addr::from(from.sin6_addr.s6_addr);
            Some((IpAddr::V6(by), unreachable(false, error.ee_type, error.ee_code)))
        }
        _ => None,
    })
}
