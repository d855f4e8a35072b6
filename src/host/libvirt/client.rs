//! The client's side of the worker.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use super::choose::Connection;
use super::protocol::{Call, Outcome, Reply, Request};
use crate::error::{Context, Error, Result};
use crate::host::domains::{Domains, HypervisorInfo, ObservedDomain};
use crate::host::{labdir, service};

/// Longest waits for the worker. They are far above what works: they end a wait for a library that hangs.
const OPENS: Duration = Duration::from_secs(90);
const ANSWERS: Duration = Duration::from_secs(120);
/// How long the worker may take to end when it is told to.
const ENDS: Duration = Duration::from_secs(90);

/// Lines of the worker's standard error that are kept, for the case that it dies.
const LAST_WORDS: usize = 8;

/// Domains of a connection that a worker process has open.
pub struct Client {
    shared: Arc<Shared>,
    input: tokio::sync::Mutex<Option<ChildStdin>>,
    child: tokio::sync::Mutex<Child>,
    next: AtomicU64,
}

#[derive(Default)]
struct Shared {
    /// Requests without an answer; `None` once the worker is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Outcome>>>>,
    last_words: Mutex<VecDeque<String>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Outcome>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, id: u64) -> Option<oneshot::Receiver<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().as_mut()?.insert(id, sender);
        Some(receiver)
    }

    fn dead(&self) -> Error {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let error = Error::failed("the process that runs libvirt's library ended unexpectedly");
        words.iter().fold(error, |error, line| error.caused_by(line))
    }
}

impl Client {
    /// Starts a worker and waits until its connection is open. With `nested_user` the worker takes an ordinary uid in a
    /// user namespace of its own: for a sandbox that an ordinary user made.
    ///
    /// # Errors
    /// When the worker does not start, or the connection does not open: exit 3 when something is not installed or
    /// running.
    pub async fn spawn(connection: &Connection, nested_user: bool) -> Result<Self> {
        Self::spawn_program(&service::own_program()?, connection, nested_user).await
    }

    /// The same with another program file than this process's own, which is right where that is not netloom.
    ///
    /// # Errors
    /// As for [`Client::spawn`].
    pub async fn spawn_program(program: &Path, connection: &Connection, nested_user: bool) -> Result<Self> {
        let failed = || "cannot start a process for libvirt's library".to_owned();
        let mut command = Command::new(program);
        command.arg("__libvirt").arg("--uri").arg(connection.uri());
        if nested_user {
            command.arg("--nested-user");
        }
        if let Some(directory) = capabilities_directory() {
            command.arg("--capabilities").arg(directory);
        }
        command
            .env("LIBVIRT_DEBUG", "4") // errors only: warnings would be noise on standard error
            .current_dir("/")
            .process_group(0) // an interrupt from the terminal is ours to handle, not the worker's
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context(failed)?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::failed(failed()));
        };
        let shared = Arc::new(Shared::default());
        *shared.waiting() = Some(HashMap::new());
        let opened = shared.register(0);
        tokio::spawn(read_replies(
            Arc::clone(&shared),
            output,
            tokio::spawn(keep_last_words(Arc::clone(&shared), errors)),
        ));
        let client = Self {
            shared,
            input: tokio::sync::Mutex::new(Some(input)),
            child: tokio::sync::Mutex::new(child),
            next: AtomicU64::new(1),
        };
        client.outcome(opened, OPENS, &format!("libvirt at {} does not open", connection.uri())).await?;
        Ok(client)
    }

    /// Ends the worker and waits until it is gone, so that its directory may be removed or opened again. Dropping the
    /// client ends the worker, too, but does not wait.
    ///
    /// # Errors
    /// When it has to be killed.
    pub async fn close(&self) -> Result<()> {
        drop(self.input.lock().await.take());
        let mut child = self.child.lock().await;
        if tokio::time::timeout(ENDS, child.wait()).await.is_ok() {
            return Ok(());
        }
        let _ = child.kill().await;
        Err(Error::failed("the process that runs libvirt's library did not end and was killed"))
    }

    async fn call(&self, call: Call, limit: Duration, late: &str) -> Result<Outcome> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line =
            serde_json::to_vec(&Request { id, call }).context(|| "cannot write a request".into())?;
        line.push(b'\n');
        let answer = self.shared.register(id);
        {
            let mut input = self.input.lock().await;
            let Some(pipe) = input.as_mut() else { return Err(self.shared.dead()) };
            // A write that fails means that the worker is gone; its reader says so better.
            let _ = pipe.write_all(&line).await;
        }
        self.outcome(answer, limit, late).await
    }

    async fn outcome(
        &self,
        answer: Option<oneshot::Receiver<Outcome>>,
        limit: Duration,
        late: &str,
    ) -> Result<Outcome> {
        let Some(answer) = answer else { return Err(self.shared.dead()) };
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Outcome::Error(fault))) => Err(fault.into()),
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) => Err(self.shared.dead()),
            Err(_) => Err(Error::failed(format!("{late} within {} s", limit.as_secs()))),
        }
    }
}

/// Where QEMU's capabilities are kept between labs; no place is no harm.
fn capabilities_directory() -> Option<PathBuf> {
    labdir::state_directory().ok().map(|state| state.join("cache/qemu-capabilities"))
}

async fn read_replies(shared: Arc<Shared>, output: ChildStdout, words: tokio::task::JoinHandle<()>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<Reply>(&line) {
            Ok(reply) => {
                let sender = shared.waiting().as_mut().and_then(|waiting| waiting.remove(&reply.id));
                if let Some(sender) = sender {
                    let _ = sender.send(reply.outcome);
                }
            }
            Err(_) => tracing::debug!("libvirt's process wrote: {line}"),
        }
    }
    let _ = words.await;
    *shared.waiting() = None; // drops the senders: whoever waits learns that nothing will come
}

async fn keep_last_words(shared: Arc<Shared>, errors: ChildStderr) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!("libvirt: {line}");
        let mut words = shared.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(line);
    }
}

fn unexpected(outcome: &Outcome) -> Error {
    Error::failed(format!("libvirt's process gave an answer that does not fit: {outcome:?}"))
}

#[async_trait]
impl Domains for Client {
    async fn info(&self) -> Result<HypervisorInfo> {
        match self.call(Call::Info, ANSWERS, "libvirt does not say what it can run").await? {
            Outcome::Info(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self) -> Result<Vec<ObservedDomain>> {
        match self.call(Call::List, ANSWERS, "libvirt does not list its domains").await? {
            Outcome::Domains(domains) => Ok(domains),
            other => Err(unexpected(&other)),
        }
    }

    async fn create(&self, xml: &str) -> Result<()> {
        let call = Call::Create { xml: xml.to_owned() };
        self.call(call, ANSWERS, "libvirt does not create a domain").await.map(|_| ())
    }

    async fn start(&self, name: &str) -> Result<()> {
        let call = Call::Start { name: name.to_owned() };
        self.call(call, ANSWERS, &format!("libvirt does not start domain `{name}`")).await.map(|_| ())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let call = Call::Remove { name: name.to_owned() };
        self.call(call, ANSWERS, &format!("libvirt does not remove domain `{name}`")).await.map(|_| ())
    }

    async fn agent(&self, name: &str, command: &str, timeout: Duration) -> Result<String> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let call = Call::Agent { name: name.to_owned(), command: command.to_owned(), timeout_ms };
        let late = format!("the guest agent of domain `{name}` does not answer");
        // libvirt keeps the time itself; it may first have to wait for another command to the same agent.
        match self.call(call, timeout.saturating_add(ANSWERS), &late).await? {
            Outcome::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }
}
