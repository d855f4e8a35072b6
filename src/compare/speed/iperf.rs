//! Throughput by iperf3: one server for one test, one client, both gone afterwards.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::{PORT, Throughput};
use crate::error::{Context, Error, Result};
use crate::host::netns;
use crate::probe::{Executed, Vantage};

/// How long is sent, in whole seconds (iperf3 knows no other).
const SECONDS: u32 = 1;
/// How long a client waits for its connection, in milliseconds.
const CONNECT: u32 = 2000;
/// How long a test may take that has begun: it ends by itself, unless what it sends is lost.
const LIMIT: Duration = Duration::from_secs(20);
/// A server without a client ends after this many seconds, also when nobody is left to end it.
const IDLE: u32 = 40;
/// Between two attempts: the server may not listen yet.
const PAUSE: Duration = Duration::from_millis(100);
/// Where a server inside a VM leaves its process id.
const PID_FILE: &str = "/tmp/netloom-iperf3.pid";

/// How long attempts go on with namespaces, and with a VM that starts its programs slowly.
const PATIENCE: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(25)];

/// Sends from one vantage to another, where `there` leads.
///
/// # Errors
/// When nothing could be sent, with what iperf3 says about it.
pub(super) async fn send((from, to): (&Vantage, &Vantage), there: SocketAddr) -> Result<Throughput> {
    let patience = PATIENCE[usize::from([from, to].iter().any(|at| matches!(at, Vantage::Exec(_))))];
    let serve = server(to);
    let serving = command(to, &serve, patience + LIMIT);
    let sending = attempts(from, client(there), patience);
    tokio::pin!(serving, sending);
    let mut ended = None;
    let sent = loop {
        tokio::select! {
            sent = &mut sending => break sent,
            done = &mut serving, if ended.is_none() => ended = Some(done),
        }
    };
    if let Vantage::Exec(guest) = to
        && ended.is_none()
    {
        let script = format!("[ -s {PID_FILE} ] && kill -9 $(cat {PID_FILE}); rm -f {PID_FILE}");
        let _ = guest.exec(&["sh".into(), "-c".into(), script], LIMIT).await;
    }
    sent.map_err(|error| match ended {
        Some(Err(why)) => error.caused_by(format!("the server: {why}")),
        Some(Ok(done)) if done.status != 0 => error.caused_by(format!("the server: {}", done.stderr.trim())),
        _ => error,
    })
}

/// Handles one client and ends. Where it cannot be ended as a child it leaves its process id.
fn server(at: &Vantage) -> Vec<String> {
    let (port, idle) = (PORT.to_string(), IDLE.to_string());
    let mut argv = vec!["iperf3", "-s", "-1", "-p", &port, "--idle-timeout", &idle];
    if matches!(at, Vantage::Exec(_)) {
        argv.extend(["-I", PID_FILE]);
    }
    argv.into_iter().map(str::to_owned).collect()
}

fn client(there: SocketAddr) -> Vec<String> {
    let (address, port) = (there.ip().to_string(), there.port().to_string());
    let (seconds, connect) = (SECONDS.to_string(), CONNECT.to_string());
    ["iperf3", "-c", &address, "-p", &port, "-J", "-t", &seconds, "--connect-timeout", &connect]
        .map(str::to_owned)
        .into()
}

/// Until one succeeds, or patience ends.
async fn attempts(from: &Vantage, argv: Vec<String>, patience: Duration) -> Result<Throughput> {
    let began = Instant::now();
    loop {
        let tried = match command(from, &argv, LIMIT).await {
            Ok(done) => read(&done),
            Err(error) => return Err(error),
        };
        if tried.is_ok() || began.elapsed() >= patience {
            return tried;
        }
        sleep(PAUSE).await;
    }
}

/// Runs a command where a vantage is. In a namespace it is a child of this process, which ends with the future.
pub(super) async fn command(at: &Vantage, argv: &[String], limit: Duration) -> Result<Executed> {
    let place = match at {
        Vantage::Exec(guest) => return guest.exec(argv, limit).await,
        Vantage::Netns(place) => place,
    };
    let (program, arguments) = argv.split_first().ok_or_else(|| Error::input("no command to run"))?;
    let failed = || format!("cannot run `{program}`");
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let runtime = tokio::runtime::Handle::current();
    let child = netns::within(place, move || {
        let _inside = runtime.enter();
        command.spawn()
    })?;
    let ended = timeout(limit, child.context(failed)?.wait_with_output()).await;
    let output = ended.context(|| format!("`{program}` was not done in {} s", limit.as_secs()))?;
    let output = output.context(failed)?;
    Ok(Executed {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What of iperf3's JSON is read: `iperf3 -J` of version 3.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    end: End,
    error: Option<String>,
}

#[derive(Deserialize, Default)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    seconds: f64,
    bytes: u64,
    bits_per_second: f64,
    retransmits: Option<u64>,
}

/// What a client's report says.
///
/// # Errors
/// When it is one about a failure, or none at all.
fn read(done: &Executed) -> Result<Throughput> {
    let said = || {
        let line = done.stderr.lines().chain(done.stdout.lines()).find(|line| !line.trim().is_empty());
        line.map_or_else(|| format!("it said nothing, exit status {}", done.status), str::to_owned)
    };
    let report: Report = serde_json::from_str(&done.stdout)
        .map_err(|_| Error::failed(format!("iperf3 gave no report: {}", said())))?;
    if let Some(error) = report.error {
        return Err(Error::failed(format!("iperf3: {error}")));
    }
    match report.end.sum_received {
        Some(received) if received.bytes > 0 && received.bits_per_second >= 1.0 => Ok(Throughput {
            // A figure of at most 2^53 is whole as a float.
            bits_per_second: received.bits_per_second as u64,
            bytes: received.bytes,
            seconds: received.seconds,
            retransmits: report.end.sum_sent.and_then(|sent| sent.retransmits),
        }),
        _ => Err(Error::failed("iperf3: nothing arrived")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Place;

    /// The end of a report of iperf3 3.12, on a slow link: the sender had more in its buffers than arrived.
    const REPORT: &str = r#"{"start":{"version":"iperf 3.12"},"intervals":[],"end":{"streams":[],
        "sum_sent":{"start":0,"end":1.000064,"seconds":1.000064,"bytes":13107200,"bits_per_second":104850889.5,
            "retransmits":7,"sender":true},
        "sum_received":{"start":0,"end":1.000581,"seconds":1.000581,"bytes":12058624,"bits_per_second":96412976.3,
            "sender":true},
        "cpu_utilization_percent":{"host_total":1.2,"remote_total":0.4},"sender_tcp_congestion":"cubic"}}"#;

    fn done(status: i32, stdout: &str, stderr: &str) -> Executed {
        Executed { status, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn what_arrived_counts_not_what_was_sent() {
        let wanted = Throughput {
            bits_per_second: 96_412_976,
            bytes: 12_058_624,
            seconds: 1.000_581,
            retransmits: Some(7),
        };
        assert_eq!(read(&done(0, REPORT, "")).unwrap(), wanted);
    }

    #[test]
    fn a_failure_is_no_figure() {
        let refused = r#"{"start":{},"intervals":[],"end":{},
            "error":"unable to connect to server: Connection refused"}"#;
        let nothing = REPORT.replace("\"bytes\":12058624", "\"bytes\":0");
        for (done, words) in [
            (done(1, refused, ""), "iperf3: unable to connect to server: Connection refused"),
            (done(127, "", "sh: iperf3: not found\n"), "iperf3 gave no report: sh: iperf3: not found"),
            (done(1, "", ""), "iperf3 gave no report: it said nothing, exit status 1"),
            (done(0, &nothing, ""), "iperf3: nothing arrived"),
            (done(0, "{}", ""), "iperf3: nothing arrived"),
        ] {
            assert_eq!(read(&done).unwrap_err().message(), words);
        }
    }

    #[tokio::test]
    async fn a_child_does_not_outlive_its_future() {
        // A number that nobody else sleeps for.
        let argv = ["sleep".to_owned(), format!("9{}", std::process::id())];
        let here = Vantage::Netns(Place::Host);
        let error = command(&here, &argv, Duration::from_millis(200)).await.unwrap_err();
        assert!(error.to_string().contains("not done in 0 s"), "{error}");
        let alive = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            processes.into_iter().any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{}\0", argv[1]).into_bytes()
            })
        };
        let began = Instant::now();
        while alive() {
            assert!(began.elapsed() < Duration::from_secs(5), "it still sleeps");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
