//! The client's side of the worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Child;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::choose::Connection;
use super::embed;
use super::process::Process;
use super::protocol::{Call, Outcome, Request};
use super::transport::{self, Input, Link, Shared};
use crate::error::{Context, Error, Result};
use crate::host::domains::{Domains, HypervisorInfo, ObservedDomain};
use crate::host::service;

/// The worker's file name; both programs are of one package and installed together.
pub(crate) const WORKER: &str = "netloom-libvirt";

/// Longest waits for the worker. They are far above what works: they end a wait for a library that hangs.
const OPENS: Duration = Duration::from_secs(90);
const ANSWERS: Duration = Duration::from_secs(120);
const ENDS: Duration = Duration::from_secs(90);

/// How long a root may be held by a worker that lets nobody in: one that opens it still, or ends.
const HELD: Duration = Duration::from_secs(90);

/// The worker's program: beside this one, whatever that is called.
fn worker_program() -> Result<PathBuf> {
    service::own_program().map(|own| own.with_file_name(WORKER))
}

/// Whether libvirt can be asked at all: not by a copy of `netloom` alone.
pub(crate) fn has_worker() -> bool {
    worker_program().is_ok_and(|program| program.is_file())
}

/// Domains of a connection that a worker process has open.
pub struct Client {
    connection: Connection,
    shared: Arc<Shared>,
    input: Mutex<Option<Input>>,
    /// The worker, where this client started it.
    child: Mutex<Option<Child>>,
    next: AtomicU64,
}

impl Client {
    /// Reaches a worker whose connection is open: the one that another process has on this embedded root, or a new one.
    /// A new worker with an embedded connection takes an ordinary uid in a user namespace of its own when it is uid 0;
    /// with `nested_user`, for a sandbox that an ordinary user made, there is no way without.
    ///
    /// # Errors
    /// When the worker does not start, or the connection does not open: exit 3 when something is not installed or
    /// running.
    pub async fn spawn(connection: &Connection, nested_user: bool) -> Result<Self> {
        Self::spawn_program(&worker_program()?, connection, nested_user).await
    }

    /// The same with a worker's program that is somewhere else than beside this process's own.
    ///
    /// # Errors
    /// As for [`Client::spawn`].
    pub async fn spawn_program(program: &Path, connection: &Connection, nested_user: bool) -> Result<Self> {
        let deadline = Instant::now() + HELD;
        let mut pause = Duration::from_millis(5);
        loop {
            if let Connection::Embedded(root) = connection
                && let Some(link) = transport::join(root).await
                && let Ok(Ok(client)) = Self::greeted(link, connection).await
            {
                return Ok(client);
            }
            let started = transport::start(program, connection, nested_user)?;
            let holder = match Self::greeted(started, connection).await? {
                Ok(client) => return Ok(client),
                Err(holder) => holder,
            };
            if Instant::now() > deadline {
                let uri = connection.uri();
                return Err(Error::failed(format!("{uri} is held by process {holder}"))
                    .hint("another program works on the same lab: wait for it to end"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Waits for the worker's greeting; `Err` with a process id is another worker's, that holds the root.
    async fn greeted(link: Link, connection: &Connection) -> Result<Result<Self, String>> {
        let client = Self {
            connection: connection.clone(),
            shared: link.shared,
            input: Mutex::new(Some(link.input)),
            child: Mutex::new(link.child),
            next: AtomicU64::new(1),
        };
        let late = format!("libvirt at {} does not open", connection.uri());
        match client.outcome(link.opened, OPENS, &late).await? {
            Outcome::Busy { holder } => Ok(Err(holder)),
            _ => Ok(Ok(client)),
        }
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
            transport::send(pipe, &line).await;
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
        match timeout(limit, answer).await {
            Ok(Ok(Outcome::Error(fault))) => Err(fault.into()),
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) => Err(self.shared.dead()),
            Err(_) => Err(Error::failed(format!("{late} within {} s", limit.as_secs()))),
        }
    }
}

fn unexpected(outcome: &Outcome) -> Error {
    Error::failed(format!("libvirt's process gave an answer that does not fit: {outcome:?}"))
}

#[async_trait]
impl Domains for Client {
    fn is_alive(&self) -> bool {
        self.shared.is_alive()
    }

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

    /// Leaves the worker, and where nobody else uses it waits until it is gone. Dropping the client leaves, too, but
    /// does not wait.
    async fn close(&self) -> Result<()> {
        let worker = match &self.connection {
            Connection::Embedded(root) => embed::holder(root).and_then(Process::of),
            Connection::Daemon(_) => None,
        };
        let left = self.call(Call::Leave, ANSWERS, "libvirt's process does not let go").await;
        drop(self.input.lock().await.take());
        if matches!(left, Ok(Outcome::Left { others: true })) {
            return Ok(());
        }
        let stuck = || Error::failed("the process that runs libvirt's library does not end");
        if let Some(child) = self.child.lock().await.as_mut() {
            return timeout(ENDS, child.wait()).await.map(|_| ()).map_err(|_| stuck());
        }
        let deadline = Instant::now() + ENDS;
        while worker.as_ref().is_some_and(|worker| !worker.is_gone()) {
            if Instant::now() > deadline {
                return Err(stuck());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
