#![allow(clippy::unwrap_used)]

use super::wait::speaks;
use super::*;
use crate::host::domains::{HypervisorInfo, ObservedDomain};
use async_trait::async_trait;
use std::sync::Mutex;

/// An agent that gives these answers, last one first, and then none; and remembers what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<&'static str>>,
    asked: Mutex<Vec<Value>>,
    running: bool,
}

#[async_trait]
impl Domains for Scripted {
    async fn info(&self) -> Result<HypervisorInfo> {
        Err(Error::failed("not asked here"))
    }
    async fn list(&self) -> Result<Vec<ObservedDomain>> {
        Ok(vec![ObservedDomain {
            name: "d".into(),
            lab: "l".into(),
            guest: "g".into(),
            digest: String::new(),
            running: self.running,
            console: None,
            pid: None,
        }])
    }
    async fn create(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn start(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn agent(&self, _: &str, command: &str, _: Duration) -> Result<String> {
        self.asked.lock().unwrap().push(serde_json::from_str(command).unwrap());
        let answer = self.answers.lock().unwrap().pop();
        answer.map(str::to_owned).ok_or_else(|| Error::failed("the agent is not there"))
    }
}

fn scripted(answers: &[&'static str]) -> Scripted {
    Scripted { answers: Mutex::new(answers.iter().rev().copied().collect()), ..Scripted::default() }
}

#[tokio::test]
async fn a_command_is_awaited_and_its_output_decoded() {
    let agent = scripted(&[
        r#"{"return":{"pid":7}}"#,
        r#"{"return":{"exited":false}}"#,
        r#"{"return":{"exited":true,"exitcode":3,"out-data":"aGkK","err-data":"/w=="}}"#,
    ]);
    let argv = ["sh".to_owned(), "-c".to_owned()];
    let outcome = exec(&agent, "d", &argv, Some(b"in"), Duration::from_secs(9)).await.unwrap();
    assert_eq!(outcome, ExecOutcome { status: 3, stdout: b"hi\n".to_vec(), stderr: vec![0xff] });
    let asked = agent.asked.lock().unwrap();
    let wanted = json!({"path": "sh", "arg": ["-c"], "capture-output": true, "input-data": "aW4="});
    assert_eq!(asked[0], json!({"execute": "guest-exec", "arguments": wanted}));
    assert_eq!(asked[2], json!({"execute": "guest-exec-status", "arguments": {"pid": 7}}));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed() {
    let mut answers = vec![r#"{"return":{"pid":7}}"#];
    answers.extend([r#"{"return":{"exited":false}}"#; 100]);
    let agent = scripted(&answers);
    let error = exec(&agent, "d", &["sleep".into()], None, Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("`sleep` in domain `d`"), "{error}");
    let asked = agent.asked.lock().unwrap();
    assert_eq!(asked.last().unwrap()["arguments"]["arg"], json!(["-9", "7"]));
}

#[tokio::test]
async fn a_signal_counts_as_shells_count_it() {
    let agent = scripted(&[r#"{"return":{"pid":7}}"#, r#"{"return":{"exited":true,"signal":9}}"#]);
    let outcome = exec(&agent, "d", &["x".into()], None, Duration::from_secs(9)).await.unwrap();
    assert_eq!(outcome.status, 137);
}

#[tokio::test]
async fn interfaces_are_read() {
    let agent = scripted(&[r#"{"return":[
        {"name":"lo","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"127.0.0.1","prefix":8}]},
        {"name":"eth0","hardware-address":"52:54:00:00:00:01","ip-addresses":[
            {"ip-address-type":"ipv6","ip-address":"fe80::1","prefix":64}]},
        {"name":"eth1","hardware-address":"52:54:00:00:00:02"}]}"#]);
    let found = addresses(&agent, "d").await.unwrap();
    assert_eq!(found[0].mac, None);
    assert_eq!(found[1].addresses, ["fe80::1/64".parse().unwrap()]);
    assert_eq!((found[2].name.as_str(), found[2].addresses.len()), ("eth1", 0));
}

#[tokio::test]
async fn a_guest_that_stopped_is_not_waited_for_and_its_console_is_shown() {
    let log = std::env::temp_dir().join(format!("netloom-tail-{}", std::process::id()));
    std::fs::write(&log, "first\r\n\x1b[1;31mKernel panic\x1b[0m\x07\n\n").unwrap();
    let agent = scripted(&[]);
    let said = Mutex::new(Vec::new());
    let progress = |line: &str| said.lock().unwrap().push(line.to_owned());
    let error = wait_ready(&agent, "d", Duration::from_secs(600), Some(&log), progress).await.unwrap_err();
    std::fs::remove_file(&log).unwrap();
    assert!(error.to_string().contains("stopped before it was ready"), "{error}");
    assert!(error.causes().last().unwrap().ends_with("\n    first\n    Kernel panic"), "{error}");
    assert_eq!(*said.lock().unwrap(), ["Kernel panic"]);
}

#[tokio::test]
async fn a_guest_that_is_never_ready_ends_the_wait() {
    let agent = Scripted { running: true, ..scripted(&[]) };
    let error = wait_ready(&agent, "d", Duration::from_secs(1), None, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("not ready within 1 s"), "{error}");
}

#[tokio::test]
async fn a_file_is_read_and_closed() {
    let agent =
        scripted(&[r#"{"return":1000}"#, r#"{"return":{"count":6,"buf-b64":"cmVhZHkK","eof":true}}"#]);
    assert_eq!(read_file(&agent, "d", "/run/x").await.unwrap(), b"ready\n");
    let agent = scripted(&[r#"{"return":1000}"#]);
    read_file(&agent, "d", "/run/x").await.unwrap_err();
    let asked = agent.asked.lock().unwrap();
    assert_eq!(asked[0], json!({"execute": "guest-file-open", "arguments": {"path": "/run/x", "mode": "r"}}));
    assert_eq!(asked[2], json!({"execute": "guest-file-close", "arguments": {"handle": 1000}}));
}

#[tokio::test]
async fn a_pause_ends_when_the_guest_speaks() {
    let log = std::env::temp_dir().join(format!("netloom-speaks-{}", std::process::id()));
    std::fs::write(&log, "a").unwrap();
    assert!(!speaks(Some(&log), Duration::from_millis(30)).await);
    assert!(!speaks(None, Duration::from_millis(30)).await);
    let began = Instant::now();
    let (spoke, ()) = tokio::join!(speaks(Some(&log), Duration::from_secs(60)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::fs::write(&log, "ab").unwrap();
    });
    std::fs::remove_file(&log).unwrap();
    assert!(spoke && began.elapsed() < Duration::from_secs(30));
}
