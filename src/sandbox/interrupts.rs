//! Signals that ask this process to end.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::SignalFd;

use super::process::wait_readable;
use crate::error::{Context, Error, Kind, Result};

/// Signals that end a process by default and that people and programs send for that.
pub(super) const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// While it exists, signals that would end this process are kept back and can be polled for. [`super::create`] and
/// [`super::enter`] look out for them; hold one across both, and none ends the process between the two.
pub struct Interrupts {
    listener: SignalFd,
    before: SigSet,
}

impl Interrupts {
    /// Starts keeping them back, for the calling thread and those it starts.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> Result<Self> {
        let failed = || "cannot wait for signals".to_owned();
        let signals = SigSet::from_iter(ENDING);
        let listener = SignalFd::new(&signals).context(failed)?;
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).context(failed)?;
        Ok(Self { listener, before })
    }

    pub(super) fn came(&self) -> bool {
        wait_readable(&self.listener, Duration::ZERO) == Ok(true)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Giving up is the answer to all that came so far.
    pub(super) fn answer(&self) -> Error {
        while self.came() {
            let _ = self.listener.read_signal();
        }
        Error::new(Kind::Interrupted, "interrupted")
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}
