//! Probes from inside a guest, by a shell script that makes do with what guests have: `ping`, and bash, `nc` or
//! `socat`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::model::{Exec, Executed};
use super::outcome::{Outcome, Patience, Question, Silence};
use super::socket::DATAGRAM;
use crate::topology::Protocol;

/// What the guest agent itself may take.
const OVERHEAD: Duration = Duration::from_secs(10);

/// A guest takes this much longer than a probe of our own: programs must start there, perhaps under emulation.
const SLOWNESS: u32 = 2;

/// The least that a probe which is not answered waits, for the same reason.
const LEAST: Duration = Duration::from_secs(3);

/// Arguments: protocol, address, port, seconds, the UDP datagram in octal escapes. Prints `@up` for a connection and
/// `@answer` before what was answered; `@lacks` names what the guest has not.
const SCRIPT: &str = r#"
LC_ALL=C; export LC_ALL
have() { command -v "$1" >/dev/null 2>&1; }
case $1 in
icmp)
  have ping || { echo "@lacks ping"; exit 0; }
  end=$4
  while [ "$end" -gt 0 ]; do
    if out=$(ping -c 1 -W 2 "$2" 2>&1); then echo "@answer"; echo "$out"; exit 0; fi
    case $out in
    *[Uu]nreachable*|*[Ff]iltered*|*rohibited*|*ermission*) break ;;
    esac
    end=$((end - 2))
  done
  echo "$out" ;;
tcp)
  if have bash; then
    timeout "$4" bash -c 'exec 3<>"/dev/tcp/$0/$1" || exit 1; echo "@up"; IFS= read -r -t 2 line <&3 && { echo "@answer"; echo "$line"; }' "$2" "$3" 2>&1
  elif have socat; then
    case $2 in *:*) to="TCP6:[$2]:$3" ;; *) to="TCP4:$2:$3" ;; esac
    out=$(timeout "$4" socat -t 2 - "$to" </dev/null 2>&1); status=$?
    case $out in
    *socat*E*) ;;
    "") [ $status -eq 0 ] && echo "@up" ;;
    *) echo "@up"; echo "@answer" ;;
    esac
    echo "$out"
  elif have nc; then
    out=$(timeout "$4" nc -w "$4" "$2" "$3" </dev/null 2>&1); status=$?
    case $out in
    nc:*|*"can't connect"*) ;;
    "") [ $status -eq 0 ] && echo "@up" ;;
    *) echo "@up"; echo "@answer" ;;
    esac
    echo "$out"
  else
    echo "@lacks bash, socat or nc"
  fi ;;
udp)
  n=3
  while [ $n -gt 0 ]; do
    n=$((n - 1))
    if have bash; then
      out=$(bash -c 'exec 3<>"/dev/udp/$0/$1" || exit 1; printf "$2" >&3; timeout 1 dd bs=2048 count=1 2>/dev/null <&3 | tr -d "\000"' "$2" "$3" "$5" 2>&1)
    elif have socat; then
      case $2 in *:*) to="UDP6:[$2]:$3" ;; *) to="UDP4:$2:$3" ;; esac
      out=$(printf "$5" | timeout 2 socat -t 1 - "$to" 2>&1 | tr -d '\000')
    elif have nc && nc -h 2>&1 | grep -q -e '-[a-zA-Z]*u'; then
      out=$(printf "$5" | timeout 2 nc -u -w 1 "$2" "$3" 2>&1 | tr -d '\000')
    else
      echo "@lacks bash, socat or an nc that knows UDP"; exit 0
    fi
    case $out in
    "") ;;
    *[Rr]efused*|*unreachable*|*ermi*|*" route "*) break ;;
    *) echo "@answer"; echo "$out"; exit 0 ;;
    esac
  done
  echo "$out" ;;
esac
exit 0
"#;

/// Asks until there is an answer or patience ends.
pub(super) async fn ask(guest: &dyn Exec, question: Question, patience: Patience) -> Outcome {
    let began = Instant::now();
    let whole = if patience.insist { patience.whole * SLOWNESS } else { patience.whole.max(LEAST) };
    loop {
        let left = whole.saturating_sub(began.elapsed());
        let outcome = attempt(guest, question, left).await;
        let Outcome::Silent(silence) = &outcome else { return outcome };
        let over = began.elapsed() + Duration::from_millis(500) >= whole;
        if over || !patience.insist || matches!(silence, Silence::Lacking(_) | Silence::NoRoute) {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn attempt(guest: &dyn Exec, question: Question, left: Duration) -> Outcome {
    let seconds = left.as_millis().div_ceil(1000).max(1);
    let protocol = match question.service.protocol {
        Protocol::Icmp => "icmp",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let octal: String = DATAGRAM.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let argv: Vec<String> = [
        "sh".to_owned(),
        "-c".to_owned(),
        SCRIPT.to_owned(),
        "probe".to_owned(),
        protocol.to_owned(),
        question.address.to_string(),
        question.service.port.to_string(),
        seconds.to_string(),
        octal,
    ]
    .into();
    match guest.exec(&argv, left + OVERHEAD).await {
        Ok(done) => read(&done, question),
        Err(e) => Outcome::Silent(Silence::Unable(e.to_string())),
    }
}

/// What the script's output means.
fn read(done: &Executed, question: Question) -> Outcome {
    let all = format!("{}\n{}", done.stdout, done.stderr);
    if let Some(what) = all.lines().find_map(|line| line.strip_prefix("@lacks ")) {
        return Outcome::Silent(Silence::Lacking(what.to_owned()));
    }
    let mut lines = all.lines().skip_while(|line| *line != "@answer");
    if lines.next().is_some() {
        let (line, rtt) = match question.service.protocol {
            Protocol::Icmp => (None, ping_time(&all)),
            _ => (lines.next().map(|line| line.trim().to_owned()).filter(|line| line.contains('/')), None),
        };
        return Outcome::Answered { line, rtt };
    }
    if all.lines().any(|line| line == "@up") {
        return if question.line {
            Outcome::Silent(Silence::Mute)
        } else {
            Outcome::Answered { line: None, rtt: None }
        };
    }
    Outcome::Silent(complaint(&all))
}

/// `time=0.123 ms`, as every ping prints it.
fn ping_time(text: &str) -> Option<Duration> {
    let number = text.split("time=").nth(1)?.split([' ', 'm']).next()?;
    let milliseconds: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

/// What the tools complained about.
fn complaint(text: &str) -> Silence {
    let lower = text.to_lowercase();
    let has = |what: &str| lower.contains(what);
    let by = lower.split("from ").skip(1).find_map(|rest| {
        rest.split([' ', ',']).next().and_then(|word| word.trim_end_matches(':').parse::<IpAddr>().ok())
    });
    if has("refused") {
        return Silence::Refused;
    }
    if by.is_none() && (has("network is unreachable") || has("network unreachable")) {
        return Silence::NoRoute;
    }
    let words = [
        ("filtered", "administratively prohibited"),
        ("prohibited", "administratively prohibited"),
        ("host unreachable", "host unreachable"),
        ("address unreachable", "host unreachable"),
        ("no route to host", "host unreachable"),
        ("port unreachable", "port unreachable"),
        ("net unreachable", "no route to the network"),
        ("no route", "no route to the network"),
        ("unreachable", "unreachable"),
        ("not permitted", "the source's own firewall or routes forbid it"),
        ("permission denied", "administratively prohibited"),
    ];
    match words.into_iter().find(|(word, _)| has(word)) {
        Some((_, why)) => Silence::Rejected { by, why },
        None => Silence::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Service;

    fn question(protocol: Protocol) -> Question {
        Question {
            address: [10, 0, 0, 1].into(),
            service: Service { protocol, port: 80 },
            line: protocol == Protocol::Tcp,
        }
    }

    fn output(stdout: &str) -> Executed {
        Executed { status: 0, stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn a_connection_without_the_servers_line_is_no_answer() {
        let mute = read(&output("@up\n"), question(Protocol::Tcp));
        assert_eq!(mute, Outcome::Silent(Silence::Mute));
        let answer = read(&output("@up\n@answer\nlab/web tcp/80\n"), question(Protocol::Tcp));
        assert_eq!(answer, Outcome::Answered { line: Some("lab/web tcp/80".into()), rtt: None });
    }

    #[test]
    fn pings_words_are_understood() {
        let text = "PING 10.0.0.1\n64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.250 ms\n";
        let answer = read(&output(&format!("@answer\n{text}")), question(Protocol::Icmp));
        assert_eq!(answer, Outcome::Answered { line: None, rtt: Some(Duration::from_micros(250)) });
        let filtered = "From 10.0.0.254 icmp_seq=1 Packet filtered\n";
        let why = "administratively prohibited";
        assert_eq!(complaint(filtered), Silence::Rejected { by: Some([10, 0, 0, 254].into()), why });
        assert_eq!(complaint("ping: connect: Network is unreachable\n"), Silence::NoRoute);
        assert_eq!(complaint("1 packets transmitted, 0 received, 100% packet loss"), Silence::TimedOut);
        assert_eq!(
            complaint("nc: can't connect to remote host (10.0.0.1): Connection refused"),
            Silence::Refused
        );
    }
}
