//! A look at the host that began before anybody asked for one: for its links no file has to be read, and a processor is idle
//! while one is.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Links, PlaceState};
use crate::error::{Error, Result};
use crate::resource::Place;

/// One that is under way, if any.
#[derive(Default)]
pub(super) struct Ahead(Mutex<Option<JoinHandle<Result<PlaceState>>>>);

impl Links {
    /// Begins to look at the host's links. Whoever changes anything, or relies on nobody else doing so, sees to that first.
    pub(crate) fn look_ahead(self: &Arc<Self>) {
        let links = Arc::clone(self);
        let look = move || links.observe_now(&Place::Host);
        // Where the system gives no thread, the look comes when it is asked for.
        *self.ahead() = std::thread::Builder::new().name("aside".into()).spawn(look).ok();
    }

    /// The host's links, as the look shows that was begun before, if there is one.
    ///
    /// # Errors
    /// As for [`Links::observe`].
    pub(crate) fn observe_host(&self) -> Result<PlaceState> {
        let begun = self.ahead().take();
        match begun {
            Some(look) => look.join().unwrap_or_else(|_| Err(Error::failed("a worker failed"))),
            None => self.observe_now(&Place::Host),
        }
    }

    fn ahead(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<Result<PlaceState>>>> {
        self.ahead.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
