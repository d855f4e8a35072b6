//! Probes from inside a guest, by a shell script that makes do with what guests have: `ping`, and bash, `nc` or
//! `socat`.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use super::model::{Exec, Executed};
use super::outcome::{Outcome, Patience, Question, Silence};
use super::socket::DATAGRAM;
use crate::topology::Protocol;

/// What the guest agent itself may take, and a guest under emulation on a busy machine to start so many programs.
const OVERHEAD: Duration = Duration::from_secs(90);

/// A guest takes this much longer than a probe of our own: programs must start there, perhaps under emulation.
const SLOWNESS: u32 = 2;

/// The least that a probe which is not answered waits, for the same reason.
const LEAST: Duration = Duration::from_secs(3);

/// Longest attempt at one question: what is insisted on is asked again, and meanwhile the others of its batch get their
/// outcomes.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Questions asked at a time by one command, and commands at a time in a guest. A command of its own for each question
/// costs a guest more than the question. More at a time would take the time from each other, and a slow one would look
/// like a blocked one.
const BATCH: usize = 8;
const COMMANDS: usize = 1;

/// How long a batch waits for others to join it: those that are asked together come within a moment.
const GATHERING: Duration = Duration::from_millis(5);

/// Arguments: the UDP datagram in octal escapes, then for each question protocol, address, port and seconds. All are
/// asked at once; each prints `@question` and its number, then, in one piece, `@up` for a connection and `@answer` before
/// what was answered; `@lacks` names what the guest has not.
const SCRIPT: &str = r#"
LC_ALL=C; export LC_ALL
have() { command -v "$1" >/dev/null 2>&1; }
datagram=$1; shift
# socat ends with this, which ends with the first answer or when its time is over, counted from when it asked; between
# pipes socat would wait for a second answer. Whatever else is said in it would be taken for one.
# busybox's timeout looks after its program once a second, and would hold what it has besides the standard streams till then.
once='exec 9>&2 2>/dev/null; printf "$datagram"; timeout "$wait" dd bs=2048 count=1 >&9 9>&-; exit 0'
export datagram once
tcp= udp=
if have bash; then tcp=bash udp=bash
elif have socat; then tcp=socat udp=socat
elif have nc; then
  tcp=nc
  nc -h 2>&1 | grep -q -e '-[a-zA-Z]*u' && udp=nc
fi
ask() {
case $1 in
icmp)
  have ping || { echo "@lacks ping"; return; }
  end=$4
  while [ "$end" -gt 0 ]; do
    if out=$(ping -c 1 -W 2 "$2" 2>&1); then echo "@answer"; echo "$out"; return; fi
    case $out in
    *[Uu]nreachable*|*[Ff]iltered*|*rohibited*|*ermission*) break ;;
    esac
    end=$((end - 2))
  done
  echo "$out" ;;
tcp)
  case $tcp in
  bash)
    timeout "$4" bash -c 'exec 3<>"/dev/tcp/$0/$1" || exit 1; echo "@up"; IFS= read -r -t "$2" line <&3 && { echo "@answer"; echo "$line"; }' "$2" "$3" "$4" 2>&1 ;;
  socat)
    case $2 in *:*) to="TCP6:[$2]:$3" ;; *) to="TCP4:$2:$3" ;; esac
    out=$(timeout "$4" socat -t "$4" - "$to" </dev/null 2>&1); status=$?
    case $out in
    *socat*E*) ;;
    "") [ $status -eq 0 ] && echo "@up" ;;
    *) echo "@up"; echo "@answer" ;;
    esac
    echo "$out" ;;
  nc)
    out=$(timeout "$4" nc -w "$4" "$2" "$3" </dev/null 2>&1); status=$?
    case $out in
    nc:*|*"can't connect"*) ;;
    "") [ $status -eq 0 ] && echo "@up" ;;
    *) echo "@up"; echo "@answer" ;;
    esac
    echo "$out" ;;
  *) echo "@lacks bash, socat or nc" ;;
  esac ;;
udp)
  n=3; wait=1
  while [ $n -gt 0 ]; do
    n=$((n - 1))
    case $udp in
    bash)
      out=$(bash -c 'exec 3<>"/dev/udp/$0/$1" || exit 1; printf "$2" >&3; timeout "$3" dd bs=2048 count=1 2>/dev/null <&3 | tr -d "\000"' "$2" "$3" "$datagram" "$wait" 2>&1) ;;
    socat)
      case $2 in *:*) to="UDP6:[$2]:$3" ;; *) to="UDP4:$2:$3" ;; esac
      out=$(export wait; timeout $((wait + 9)) socat -t 0 "$to" SYSTEM:'eval $once' 2>&1 | tr -d '\000') ;;
    nc)
      out=$(printf "$datagram" | timeout $((wait + 9)) nc -u -w "$wait" "$2" "$3" 2>&1 | tr -d '\000') ;;
    *) echo "@lacks bash, socat or an nc that knows UDP"; return ;;
    esac
    case $out in
    "") ;;
    *[Rr]efused*|*unreachable*|*ermi*|*" route "*) break ;;
    *) echo "@answer"; echo "$out"; return ;;
    esac
    wait=$((wait + $4 / 5))
  done
  echo "$out" ;;
esac
}
number=0
while [ $# -ge 4 ]; do
  ( said=$(ask "$1" "$2" "$3" "$4" 2>&1); printf '@question %s\n%s\n' "$number" "$said" ) &
  number=$((number + 1)); shift 4
done
wait
exit 0
"#;

/// A guest, and the questions that wait to be asked from it.
pub(super) struct Room {
    waiting: Mutex<Vec<Job>>,
    turn: Semaphore,
}

struct Job {
    question: Question,
    seconds: u128,
    /// Takes when it was asked, and what came of it.
    done: oneshot::Sender<(Instant, Outcome)>,
}

impl Default for Room {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: Semaphore::new(COMMANDS) }
    }
}

/// Asks until there is an answer or patience ends, which begins when the question is first asked.
pub(super) async fn ask(
    room: &Arc<Room>,
    guest: &Arc<dyn Exec>,
    question: Question,
    patience: Patience,
) -> Outcome {
    let whole = if patience.insist { patience.whole * SLOWNESS } else { patience.whole.max(LEAST) };
    let mut began = None;
    loop {
        let left = whole.saturating_sub(began.map_or(Duration::ZERO, |began: Instant| began.elapsed()));
        let left = if patience.insist { left.min(ATTEMPT) } else { left };
        let (asked, outcome) = room.attempt(guest, question, left).await;
        let began = *began.get_or_insert(asked);
        let Outcome::Silent(silence) = &outcome else { return outcome };
        let over = began.elapsed() + Duration::from_millis(500) >= whole;
        if over || !patience.insist || matches!(silence, Silence::Lacking(_) | Silence::NoRoute) {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Room {
    /// Asks once, together with others that wait.
    async fn attempt(
        self: &Arc<Self>,
        guest: &Arc<dyn Exec>,
        question: Question,
        left: Duration,
    ) -> (Instant, Outcome) {
        let (done, outcome) = oneshot::channel();
        let seconds = left.as_millis().div_ceil(1000).max(1);
        self.waiting().push(Job { question, seconds, done });
        // Not by this task, which may be given up while others wait for the same command.
        let (room, guest) = (Arc::clone(self), Arc::clone(guest));
        tokio::spawn(async move { room.run(guest.as_ref()).await });
        outcome.await.unwrap_or_else(|_| {
            (Instant::now(), Outcome::Silent(Silence::Unable("the probe was given up".to_owned())))
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what waits, when it is its turn; nothing, when another one has asked it.
    async fn run(&self, guest: &dyn Exec) {
        tokio::time::sleep(GATHERING).await;
        let Ok(_permit) = self.turn.acquire().await else { return };
        let jobs: Vec<Job> = {
            let mut waiting = self.waiting();
            waiting.retain(|job| !job.done.is_closed());
            let count = waiting.len().min(BATCH);
            waiting.drain(..count).collect()
        };
        if jobs.is_empty() {
            return;
        }
        let began = Instant::now();
        let longest = jobs.iter().map(|job| job.seconds).max().unwrap_or_default();
        let limit = Duration::from_secs(u64::try_from(longest).unwrap_or_default()) + OVERHEAD;
        let done = guest.exec(&arguments(&jobs), limit).await.map_err(|e| e.to_string());
        for (number, job) in jobs.into_iter().enumerate() {
            let outcome = match &done {
                Ok(done) => match part(&done.stdout, number) {
                    Some(said) => read(&said, job.question),
                    None => Outcome::Silent(Silence::Unable(lost(done))),
                },
                Err(e) => Outcome::Silent(Silence::Unable(e.clone())),
            };
            let _ = job.done.send((began, outcome));
        }
    }
}

fn arguments(jobs: &[Job]) -> Vec<String> {
    let octal: String = DATAGRAM.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let mut argv: Vec<String> = ["sh", "-c", SCRIPT, "probe", &octal].map(str::to_owned).into();
    for Job { question, seconds, .. } in jobs {
        let protocol = match question.service.protocol {
            Protocol::Icmp => "icmp",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let port = question.service.port.to_string();
        argv.extend([protocol.to_owned(), question.address.to_string(), port, seconds.to_string()]);
    }
    argv
}

/// What was said to a question.
fn part(output: &str, number: usize) -> Option<String> {
    let head = format!("@question {number}");
    let mut lines = output.lines().skip_while(|line| *line != head);
    lines.next()?;
    Some(
        lines
            .take_while(|line| !line.starts_with("@question "))
            .fold(String::new(), |said, line| said + line + "\n"),
    )
}

fn lost(done: &Executed) -> String {
    let why = done.stderr.lines().next().unwrap_or("nothing was said");
    format!("the guest's shell did not ask it (status {}: {why})", done.status)
}

/// What the script's output means.
fn read(all: &str, question: Question) -> Outcome {
    if let Some(what) = all.lines().find_map(|line| line.strip_prefix("@lacks ")) {
        return Outcome::Silent(Silence::Lacking(what.to_owned()));
    }
    let mut lines = all.lines().skip_while(|line| *line != "@answer");
    if lines.next().is_some() {
        let (line, rtt) = match question.service.protocol {
            Protocol::Icmp => (None, ping_time(all)),
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
    Outcome::Silent(complaint(all))
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

    #[test]
    fn a_connection_without_the_servers_line_is_no_answer() {
        let mute = read("@up\n", question(Protocol::Tcp));
        assert_eq!(mute, Outcome::Silent(Silence::Mute));
        let answer = read("@up\n@answer\nlab/web tcp/80\n", question(Protocol::Tcp));
        assert_eq!(answer, Outcome::Answered { line: Some("lab/web tcp/80".into()), rtt: None });
    }

    #[test]
    fn pings_words_are_understood() {
        let text = "PING 10.0.0.1\n64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.250 ms\n";
        let answer = read(&format!("@answer\n{text}"), question(Protocol::Icmp));
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
