//! Round-trip times: by `ping`, which namespaces and VMs have alike, or by connections that are refused, where a port
//! forward is in between that takes no ICMP.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
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
/// Unanswered connections after which no more are tried.
const GIVE_UP: u32 = 2;

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

/// Asks from a namespace for connections to a port where nobody listens: what comes back is the refusal of the far
/// kernel, without any program's delay. Whether it is the far end that refuses, the caller must know.
///
/// # Errors
/// When nothing came back.
pub(super) async fn refusals(place: &Place, to: SocketAddr) -> Result<Rtt> {
    let place = place.clone();
    let asked = tokio::task::spawn_blocking(move || netns::within(&place, move || knock(to)));
    let times = asked.await.context(|| "cannot wait for refusals".into())??;
    let times = times.context(|| format!("cannot connect to {to}"))?;
    summed_up("tcp", times).ok_or_else(|| Error::failed(format!("no connection to {to} was answered")))
}

fn knock(to: SocketAddr) -> io::Result<Vec<Duration>> {
    let (mut times, mut silent) = (Vec::new(), 0);
    for number in 0..=PROBES {
        let began = Instant::now();
        let answer = TcpStream::connect_timeout(&to, PATIENCE);
        let took = began.elapsed();
        match answer.map(drop).map_err(|e| (e.kind(), e)) {
            Ok(()) | Err((ErrorKind::ConnectionRefused, _)) if number == 0 => {}
            Ok(()) | Err((ErrorKind::ConnectionRefused, _)) => times.push(took),
            Err((ErrorKind::TimedOut, _)) if silent < GIVE_UP => silent += 1,
            Err((ErrorKind::TimedOut, _)) => break,
            Err((_, e)) => return Err(e),
        }
        std::thread::sleep(INTERVAL.saturating_sub(took));
    }
    Ok(times)
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
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

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
        let rtt = summed_up("tcp", times).unwrap();
        assert_eq!((rtt.min_us, rtt.median_us, rtt.p95_us, rtt.answered), (1, 15, 29, 30));
        assert_eq!(summed_up("tcp", Vec::new()), None);
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_silence_is_none() {
        // Nobody listens there any more.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let rtt = refusals(&Place::Host, closed).await.unwrap();
        assert_eq!((rtt.answered, rtt.by.as_str()), (PROBES, "tcp"));
        assert!(rtt.min_us <= rtt.median_us && rtt.median_us <= rtt.p95_us, "{rtt:?}");
        // A queue that is full drops what else asks.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let to = full.local_addr().unwrap().as_socket().unwrap();
        let _waiting = TcpStream::connect(to).unwrap();
        let error = refusals(&Place::Host, to).await.unwrap_err();
        assert!(error.message().starts_with("no connection to 127.0.0.1:"), "{error}");
    }
}
