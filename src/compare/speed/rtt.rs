//! Round-trip times: by `ping`, which namespaces and VMs have alike, or by datagrams to a guest's answering service,
//! where a port forward is in between that takes no ICMP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::Rtt;
use crate::error::{Context, Error, Result};
use crate::host::netns;
use crate::resource::Place;

/// Probes that count.
const PROBES: u32 = 30;
/// From one to the next. An ordinary user's ping may not be faster than 2 ms.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Unanswered datagrams in a row after which no more are sent.
const GIVE_UP: u32 = 3;

/// The command that measures it by ICMP.
pub(super) fn ping(address: IpAddr) -> Vec<String> {
    let interval = INTERVAL.as_secs_f32().to_string();
    let (count, patience) = ((PROBES + 1).to_string(), PATIENCE.as_secs().to_string());
    ["ping", "-n", "-c", &count, "-i", &interval, "-W", &patience, &address.to_string()]
        .map(str::to_owned)
        .into()
}

/// What it printed: the time of each reply but the first.
///
/// # Errors
/// When nothing was answered.
pub(super) fn read_ping(printed: &str, complaint: &str) -> Result<Rtt> {
    let replies = printed.lines().filter(|line| line.contains(" bytes from ") && !line.contains("DUP!"));
    let times = replies.filter_map(|line| {
        let sequence: u32 = after(line, "seq=")?.parse().ok()?;
        let milliseconds: f64 = after(line, "time=")?.parse().ok()?;
        (sequence > 1).then(|| Duration::try_from_secs_f64(milliseconds / 1000.0).ok())?
    });
    summed_up("icmp", times.collect()).ok_or_else(|| {
        let why = complaint.lines().chain(printed.lines().rev()).find(|line| !line.trim().is_empty());
        Error::failed(format!("no echo was answered: {}", why.unwrap_or("ping said nothing").trim()))
    })
}

/// The word after `key`.
fn after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_once(key)?.1.split_ascii_whitespace().next()
}

/// Asks a service that answers each datagram, from a namespace, and waits for each answer before it asks again.
///
/// # Errors
/// When nothing was answered.
pub(super) async fn datagrams(place: &Place, to: SocketAddr) -> Result<Rtt> {
    let place = place.clone();
    let asked = tokio::task::spawn_blocking(move || netns::within(&place, move || exchange(to)));
    let times = asked.await.context(|| "cannot wait for datagrams".into())??;
    let times = times.context(|| format!("cannot send datagrams to {to}"))?;
    summed_up("udp", times).ok_or_else(|| Error::failed(format!("no datagram to {to} was answered")))
}

fn exchange(to: SocketAddr) -> io::Result<Vec<Duration>> {
    let mut socket = open(to)?;
    let (mut times, mut silent) = (Vec::new(), 0);
    for number in 0..=PROBES {
        let mut answer = [0; 512];
        let began = Instant::now();
        let heard = socket.send(b"netloom rtt").and_then(|_| socket.recv(&mut answer));
        let took = began.elapsed();
        match heard {
            Ok(_) if number > 0 => times.push(took),
            Ok(_) => {}
            Err(_) => {
                silent += 1;
                if silent == GIVE_UP {
                    break;
                }
                // A late answer must not be taken for that to the next question.
                socket = open(to)?;
            }
        }
        std::thread::sleep(INTERVAL.saturating_sub(took));
    }
    Ok(times)
}

fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn summed_up(by: &str, mut times: Vec<Duration>) -> Option<Rtt> {
    times.sort_unstable();
    let rank = |percent: usize| {
        // The nearest rank: the smallest time that so many per cent do not exceed.
        let position = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(position).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    };
    Some(Rtt {
        by: by.to_owned(),
        sent: PROBES,
        answered: u32::try_from(times.len()).ok()?,
        min_us: rank(0)?,
        median_us: rank(50)?,
        p95_us: rank(95)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(times: &[(u32, &str)]) -> String {
        let mut out = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n".to_owned();
        for (sequence, time) in times {
            out += &format!("64 bytes from 10.0.0.1: icmp_seq={sequence} ttl=64 time={time} ms\n");
        }
        out + "\n--- 10.0.0.1 ping statistics ---\nrtt min/avg/max/mdev = 0.011/0.033/0.119/0.042 ms\n"
    }

    #[test]
    fn pings_times_are_read_without_the_first() {
        let text = printed(&[(1, "250"), (2, "0.045"), (3, "1.2"), (5, "0.019"), (6, "0.046")]);
        let rtt = read_ping(&text, "").unwrap();
        let wanted =
            Rtt { by: "icmp".into(), sent: 30, answered: 4, min_us: 19, median_us: 45, p95_us: 1200 };
        assert_eq!(rtt, wanted);
    }

    #[test]
    fn only_the_first_answered_is_no_figure() {
        let error =
            read_ping(&printed(&[(1, "0.5")]), "ping: sendmsg: Operation not permitted\n").unwrap_err();
        assert_eq!(error.message(), "no echo was answered: ping: sendmsg: Operation not permitted");
        assert!(read_ping("", "").is_err());
    }

    #[test]
    fn the_ranks_are_the_nearest() {
        let times = (1..=30).rev().map(Duration::from_micros).collect();
        let rtt = summed_up("udp", times).unwrap();
        assert_eq!((rtt.min_us, rtt.median_us, rtt.p95_us, rtt.answered), (1, 15, 29, 30));
        assert_eq!(summed_up("udp", Vec::new()), None);
    }

    #[tokio::test]
    async fn datagrams_are_timed_and_silence_is_no_figure() {
        let delay = Duration::from_millis(3);
        let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            for _ in 0..=PROBES {
                let mut buffer = [0; 64];
                let (length, client) = echo.recv_from(&mut buffer).unwrap();
                std::thread::sleep(delay);
                echo.send_to(&buffer[..length], client).unwrap();
            }
        });
        let rtt = datagrams(&Place::Host, to).await.unwrap();
        assert_eq!((rtt.answered, rtt.by.as_str()), (PROBES, "udp"));
        assert!(u128::from(rtt.min_us) >= delay.as_micros() && rtt.min_us <= rtt.median_us, "{rtt:?}");
        // The server is gone, and the kernel says so.
        let error = datagrams(&Place::Host, to).await.unwrap_err();
        assert!(error.message().starts_with("no datagram to 127.0.0.1:"), "{error}");
    }
}
