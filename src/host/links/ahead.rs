//! A look at the host that began before anybody asked for one: for its links no file has to be read, and a processor is idle
//! while one is.

use std::fs;
use std::sync::{MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::wire::News;
use super::{Links, PlaceState};
use crate::error::{Error, Result};
use crate::resource::Place;

/// How long a thread that has ended may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// One that is under way.
pub struct Ahead {
    look: JoinHandle<Result<PlaceState>>,
    news: News,
}

impl Ahead {
    /// Begins to look at the links of the network namespace that the calling thread is in. `None` where the system gives no
    /// thread for it: then the look comes when it is asked for.
    #[must_use]
    pub fn begin() -> Option<Self> {
        // Listened to from before the look on: no change is missed by both.
        let news = News::listen().ok()?;
        let look = || Links::default().observe_now(&Place::Host);
        let look = thread::Builder::new().name("aside".into()).spawn(look).ok()?;
        Some(Self { look, news })
    }

    /// Whether what it shows is still so: nobody has changed links or addresses since it began.
    fn holds(&self) -> bool {
        self.news.is_none()
    }

    /// Gives it up, for a process that must have one thread from here on (`setns(2)` into a user namespace).
    pub fn end(self) {
        let _ = self.look.join();
        // A thread that was joined is gone from the process a moment later: when it gets a processor once more.
        let alone = || fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() == 1);
        let began = Instant::now();
        while !alone() && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Links {
    /// Takes over a look at the host that was begun before there was a lab to look for.
    pub(crate) fn take_over(&self, begun: Option<Ahead>) {
        *self.ahead() = begun;
    }

    /// Begins to look at the host's links, unless a look has begun already and shows what is so now. Whoever changes anything, or
    /// relies on nobody else doing so, sees to that first.
    pub(crate) fn look_ahead(&self) {
        let mut ahead = self.ahead();
        *ahead = ahead.take().filter(Ahead::holds).or_else(Ahead::begin);
    }

    /// The host's links, as the look shows that was begun before, if there is one and it is still so: who is asked about virtual
    /// machines before anybody looks is libvirt, and a daemon that starts for that makes links.
    ///
    /// # Errors
    /// As for [`Links::observe`].
    pub(crate) fn observe_host(&self) -> Result<PlaceState> {
        let begun = self.ahead().take();
        if let Some(Ahead { look, news }) = begun {
            let seen = look.join().unwrap_or_else(|_| Err(Error::failed("a worker failed")));
            if news.is_none() {
                return seen;
            }
        }
        self.observe_now(&Place::Host)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
