//! Threads that ask the kernel side by side. A request is carried out within the call that makes it, so two processors build a
//! lab only when two threads ask.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// However many processors there are: the kernel has one lock for most of what is asked of it about links.
const MOST: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// Does both, the first one on a thread of its own, or before the other where the system gives none.
pub(crate) fn beside<A: Send, B>(aside: impl FnOnce() -> A + Send, here: impl FnOnce() -> B) -> (A, B) {
    let aside = Mutex::new(Some(aside));
    let take = || aside.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new()
            .name("aside".into())
            .spawn_scoped(scope, || take().map(|work| work()))
            .ok();
        let first = if started.is_none() { take().map(|work| work()) } else { None };
        let second = here();
        let joined = started.map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        match first.or(joined.flatten()) {
            Some(first) => (first, second),
            None => unreachable!("it was done here or there"),
        }
    })
}

/// As many as there are processors, started when first needed; they end with this.
#[derive(Default)]
pub(crate) struct Workers {
    jobs: OnceLock<Option<Mutex<Sender<Job>>>>,
}

impl Workers {
    /// Has one of them do it. With one processor, or where the system gives no threads, the caller does it.
    ///
    /// # Errors
    /// When it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let Some(jobs) = self.jobs.get_or_init(start) else { return Ok(work()) };
        let (done, result) = oneshot::channel();
        let sent = jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(Box::new(move || drop(done.send(work()))));
        sent.map_err(|_| Error::failed("no worker is left"))?;
        result.await.map_err(|_| Error::failed("a worker failed"))
    }
}

fn start() -> Option<Mutex<Sender<Job>>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors == 1 {
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    let receiver: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(receiver));
    let spawn = |_| {
        let receiver = Arc::clone(&receiver);
        std::thread::Builder::new().name("worker".into()).spawn(move || serve(&receiver)).ok()
    };
    let started = (0..processors.min(MOST)).filter_map(spawn).count();
    (started > 0).then(|| Mutex::new(sender))
}

fn serve(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Who waits for a job holds the lock; who has one does not.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever waits for a job that panics is told by its channel.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_job_is_done_and_one_that_panics_is_told() {
        let workers = Workers::default();
        let jobs = (0..100).map(|number| workers.run(move || number * 2));
        let done: Result<Vec<i32>> = futures_util::future::try_join_all(jobs).await;
        assert_eq!(done.ok(), Some((0..100).map(|number| number * 2).collect()));
        if workers.jobs.get().is_some_and(Option::is_some) {
            let failed = workers.run(|| assert_eq!(1, 2)).await;
            assert!(failed.is_err());
            assert_eq!(workers.run(|| 7).await.ok(), Some(7));
        }
    }
}
