//! How a client reaches a worker: a process of its own, or the socket of another client's worker.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

use super::answer::INSTALL;
use super::choose::Connection;
use super::embed;
use super::protocol::{Outcome, Reply};
use crate::error::{Error, Result};
use crate::host::{files, labdir};

/// Lines of the worker's standard error that are kept, for the case that it dies.
const LAST_WORDS: usize = 8;

/// Where requests go.
pub(super) type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// A way to a worker.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) input: Input,
    /// The worker, where it is ours.
    pub(super) child: Option<Child>,
    /// Resolves to the greeting.
    pub(super) opened: Option<oneshot::Receiver<Outcome>>,
}

/// What the reader of answers and the askers share.
#[derive(Default)]
pub(super) struct Shared {
    /// Requests without an answer; `None` once the worker is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Outcome>>>>,
    last_words: Mutex<VecDeque<String>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Outcome>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the worker has not ended, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        self.waiting().is_some()
    }

    /// Where the answer to a request will come out; `None` when there will be none.
    pub(super) fn register(&self, id: u64) -> Option<oneshot::Receiver<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().as_mut()?.insert(id, sender);
        Some(receiver)
    }

    /// The error for a worker that is gone.
    pub(super) fn dead(&self) -> Error {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        // What the dynamic loader says before a program begins (ld.so).
        let unloaded = words.iter().any(|line| line.contains("error while loading shared libraries"));
        let error = if unloaded {
            Error::host("libvirt's library cannot be loaded").hint(INSTALL)
        } else {
            Error::failed("the process that runs libvirt's library ended unexpectedly")
        };
        words.iter().fold(error, |error, line| error.caused_by(line))
    }

    async fn read_replies(self: Arc<Self>, output: impl AsyncRead + Unpin, errors: Option<ChildStderr>) {
        let words = errors.map(|errors| tokio::spawn(Arc::clone(&self).keep_last_words(errors)));
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str::<Reply>(&line) {
                Ok(reply) => {
                    let sender = self.waiting().as_mut().and_then(|waiting| waiting.remove(&reply.id));
                    if let Some(sender) = sender {
                        let _ = sender.send(reply.outcome);
                    }
                }
                Err(_) => tracing::debug!("libvirt's process wrote: {line}"),
            }
        }
        if let Some(words) = words {
            let _ = words.await;
        }
        *self.waiting() = None; // drops the senders: whoever waits learns that nothing will come
    }

    async fn keep_last_words(self: Arc<Self>, errors: ChildStderr) {
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::debug!("libvirt: {line}");
            let mut words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
            if words.len() == LAST_WORDS {
                words.pop_front();
            }
            words.push_back(line);
        }
    }
}

/// Reaches the worker that another client has started for an embedded root; `None` when there is none.
pub(super) async fn join(root: &Path) -> Option<Link> {
    let stream = UnixStream::connect(embed::socket(root)).await.ok()?;
    let (output, input) = stream.into_split();
    Some(link(Box::new(input), output, None, None))
}

/// Starts a worker.
pub(super) fn start(program: &Path, connection: &Connection, nested_user: bool) -> Result<Link> {
    let failed = || "cannot start a process for libvirt's library".to_owned();
    let mut command = Command::new(program);
    command.args(["--version", env!("CARGO_PKG_VERSION"), "--uri"]).arg(connection.uri());
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
    if let Connection::Embedded(root) = connection {
        // Without root's rights libvirt keeps a few files outside of its root, in the user's own directories.
        for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, root.join("xdg"));
        }
    }
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::host(format!(
            "there is no {}, which runs libvirt's library for VM guests",
            program.display()
        ))
        .hint(
            "`cargo build` and `cargo install` make netloom and netloom-libvirt: keep both in one directory",
        ),
        _ => Error::failed(failed()).caused_by(e),
    })?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(input), Some(output)) => {
            let errors = child.stderr.take();
            Ok(link(Box::new(input), output, errors, Some(child)))
        }
        _ => Err(Error::failed(failed())),
    }
}

fn link(
    input: Input,
    output: impl AsyncRead + Send + Unpin + 'static,
    errors: Option<ChildStderr>,
    child: Option<Child>,
) -> Link {
    let shared = Arc::new(Shared::default());
    *shared.waiting() = Some(HashMap::new());
    let opened = shared.register(0);
    tokio::spawn(Arc::clone(&shared).read_replies(output, errors));
    Link { shared, input, child, opened }
}

/// Where QEMU's capabilities are kept between labs; no place is no harm.
fn capabilities_directory() -> Option<PathBuf> {
    labdir::state_directory().ok().map(|state| files::settled(&state.join("cache")).join("qemu-capabilities"))
}

/// Sends a whole line. One that fails means that the worker is gone; whoever waits for the answer learns it.
pub(super) async fn send(input: &mut Input, line: &[u8]) {
    if input.write_all(line).await.is_ok() {
        let _ = input.flush().await;
    }
}
