//! The worker: opens one connection and serves requests until its standard input ends. It removes nothing on its own;
//! guests outlive it. An embedded root has one opener only, so the worker that holds it lets others in through a
//! socket there, and stays for as long as one of them needs it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::answer::wrap;
use super::choose::Connection;
use super::driver::Driver;
use super::embed::{Root, Taken};
use super::nested;
use super::protocol::{Call, Outcome, Reply, Request};
use crate::error::{Context, Error, Result};

/// How long requests in work may go on after their client is gone: a domain that is being started must become either
/// whole or nothing.
const GRACE: Duration = Duration::from_secs(60);

/// What the worker is told on its command line.
struct Arguments {
    connection: Connection,
    nested_user: bool,
    capabilities: Option<PathBuf>,
}

fn arguments(arguments: &[String]) -> Result<Arguments> {
    let (mut uri, mut version, mut nested_user, mut capabilities) = (None, None, false, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--uri" => uri = words.next(),
            "--version" => version = words.next(),
            "--nested-user" => nested_user = true,
            "--capabilities" => capabilities = words.next().map(PathBuf::from),
            other => return Err(Error::input(format!("the libvirt worker does not know `{other}`"))),
        }
    }
    let uri = uri.ok_or_else(|| Error::input("the libvirt worker needs --uri"))?;
    let (own, version) = (env!("CARGO_PKG_VERSION"), version.map_or("unknown", String::as_str));
    if version != own {
        return Err(Error::host(format!("netloom-libvirt is of version {own}, and netloom of {version}"))
            .hint("install both anew, from the same release"));
    }
    Ok(Arguments { connection: Connection::from_uri(uri)?, nested_user, capabilities })
}

/// The worker's whole life. `words` are its arguments: `--version VERSION --uri URI [--nested-user] [--capabilities
/// DIRECTORY]`, where the version is that of the client's program. Call it while the process has one thread only. What goes
/// wrong on the way to a connection, wrong arguments too, is told to the client, not returned.
///
/// # Errors
/// When standard output is closed.
pub fn worker_main(words: &[String]) -> Result<()> {
    let out = Out::new(std::io::stdout());
    let opened = arguments(words).and_then(|arguments| open(&arguments));
    let driver = match opened {
        Ok(Ok(driver)) => driver,
        Ok(Err(busy)) => return out.send(&Reply { id: 0, outcome: busy }),
        Err(error) => return out.send(&Reply { id: 0, outcome: Outcome::Error(error.into()) }),
    };
    let worker = Arc::new(Worker { driver, sessions: Sessions::default() });
    let socket = match worker.driver.root() {
        Some(root) => Some(let_others_in(&worker, root.socket())?),
        None => None,
    };
    let warming = warm_up(&worker);
    if !worker.serve(std::io::stdin().lock(), &out) {
        worker.sessions.leave();
    }
    worker.sessions.wait_for_others();
    if let Some(path) = socket {
        let _ = fs::remove_file(path);
    }
    if let Some(thread) = warming {
        let _ = thread.join(); // else a QEMU that is being probed stayed behind
    }
    if let Some(root) = worker.driver.root() {
        root.leave();
    }
    Ok(())
}

/// Where libvirt does not know QEMU yet, has it probed while the client still prepares other things.
fn warm_up(worker: &Arc<Worker>) -> Option<std::thread::JoinHandle<()>> {
    if !worker.driver.root()?.is_cold() {
        return None;
    }
    let worker = Arc::clone(worker);
    let work = move || drop(worker.driver.perform(Call::Info));
    std::thread::Builder::new().name("warm-up".into()).spawn(work).ok()
}

/// The open connection, or what to answer where another worker has it.
fn open(arguments: &Arguments) -> Result<Result<Driver, Outcome>> {
    let embedded = matches!(arguments.connection, Connection::Embedded(_));
    if (embedded && nested::is_needed()) || arguments.nested_user {
        match nested::enter()? {
            Ok(()) => {}
            // The real root can do without, where the kernel has no user namespaces.
            Err(errno) if !arguments.nested_user => eprintln!("no user namespace for libvirt: {errno}"),
            Err(errno) => {
                return Err(Error::host("cannot give libvirt an ordinary uid in a user namespace")
                    .caused_by(errno)
                    .hint("sudo sysctl user.max_user_namespaces=15000"));
            }
        }
    }
    virt::error::clear_error_callback();
    let root = match &arguments.connection {
        Connection::Embedded(path) => match Root::take(path, arguments.capabilities.as_deref())? {
            Taken::Root(root) => Some(root),
            Taken::Held { by } => return Ok(Err(Outcome::Busy { holder: by })),
        },
        Connection::Daemon(_) => None,
    };
    run_event_loop()?;
    Driver::open(&arguments.connection, root).map(Ok)
}

/// The embedded driver and a daemon's keep-alive both need it.
fn run_event_loop() -> Result<()> {
    virt::event::event_register_default_impl()
        .map_err(|e| wrap("cannot register libvirt's event loop", &e))?;
    std::thread::Builder::new()
        .name("libvirt-events".into())
        .spawn(|| while virt::event::event_run_default_impl().is_ok() {})
        .context(|| "cannot start a thread for libvirt's events".into())?;
    Ok(())
}

/// Listens for other clients, on a thread of its own. The root's lock is held, so whatever has the path is stale.
fn let_others_in(worker: &Arc<Worker>, path: PathBuf) -> Result<PathBuf> {
    let failed = |path: &Path| format!("cannot listen on {}", path.display());
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context(|| failed(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context(|| failed(&path))?;
    let worker = Arc::clone(worker);
    std::thread::Builder::new()
        .name("others".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that comes too late sees its connection closed, and starts a worker of its own.
                if worker.sessions.begin() {
                    let worker = Arc::clone(&worker);
                    let _ = std::thread::Builder::new().name("session".into()).spawn(move || {
                        if !worker.serve_other(&stream) {
                            worker.sessions.leave();
                        }
                    });
                }
            }
        })
        .context(|| failed(&path))?;
    Ok(path)
}

/// Where a client reads answers, a whole line at a time.
#[derive(Clone)]
struct Out(Arc<Mutex<Box<dyn Write + Send>>>);

impl Out {
    fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(writer))))
    }

    fn send(&self, reply: &Reply) -> Result<()> {
        let failed = || "cannot answer".to_owned();
        let mut line = serde_json::to_vec(reply).context(failed)?;
        line.push(b'\n');
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&line).and_then(|()| out.flush()).context(failed)
    }
}

struct Worker {
    driver: Driver,
    sessions: Sessions,
}

impl Worker {
    fn serve_other(self: &Arc<Self>, stream: &UnixStream) -> bool {
        match (stream.try_clone(), stream.try_clone()) {
            (Ok(reader), Ok(writer)) => self.serve(BufReader::new(reader), &Out::new(writer)),
            _ => false,
        }
    }

    /// Greets a client, then serves each of its requests on a thread of its own, so that domains start side by side.
    /// Returns when the client is gone and nothing of it is in work any more; whether it said that it leaves.
    fn serve(self: &Arc<Self>, input: impl BufRead, out: &Out) -> bool {
        let mut left = false;
        if out.send(&Reply { id: 0, outcome: Outcome::Done }).is_err() {
            return left;
        }
        let (working, all_done) = mpsc::channel::<()>();
        for line in input.lines() {
            let Ok(line) = line else { break };
            let Ok(request) = serde_json::from_str::<Request>(&line) else {
                eprintln!("a request that does not fit: {line}");
                break;
            };
            if matches!(request.call, Call::Leave) {
                left = true;
                let others = self.sessions.leave();
                let _ = out.send(&Reply { id: request.id, outcome: Outcome::Left { others } });
                break;
            }
            let (worker, out, working) = (Arc::clone(self), out.clone(), working.clone());
            let started = std::thread::Builder::new().name("request".into()).spawn(move || {
                let outcome =
                    worker.driver.perform(request.call).unwrap_or_else(|e| Outcome::Error(e.into()));
                let _ = out.send(&Reply { id: request.id, outcome });
                drop(working);
            });
            if started.is_err() {
                break;
            }
        }
        drop(working);
        let _ = all_done.recv_timeout(GRACE); // ends early once no thread holds a sender
        left
    }
}

/// Who uses the worker: how many clients, this process's parent included; `None` once it takes no more.
struct Sessions {
    open: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { open: Mutex::new(Some(1)), changed: Condvar::new() }
    }
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, Option<usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> bool {
        match self.open().as_mut() {
            Some(count) => {
                *count += 1;
                true
            }
            None => false,
        }
    }

    /// Ends one session; whether others stay. After the last one nobody is let in any more.
    fn leave(&self) -> bool {
        let mut open = self.open();
        let left = open.map_or(0, |count| count.saturating_sub(1));
        *open = if left > 0 { Some(left) } else { None };
        self.changed.notify_all();
        left > 0
    }

    fn wait_for_others(&self) {
        let mut open = self.open();
        while open.is_some() {
            open = self.changed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
