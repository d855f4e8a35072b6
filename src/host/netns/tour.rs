//! A look into many namespaces, one after the other and on all processors.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Back, enter};
use crate::error::{Error, Result};
use crate::host::workers::beside;

/// Threads at most: the kernel has one lock for most of what is asked.
const MOST: usize = 8;
/// Namespaces for which a thread of their own pays.
const WORTH: usize = 32;

/// Runs `look` in each of these namespaces, of which it is told the name; what came out is in their order. One of which
/// nothing comes out could not be entered. `aside` is done besides, by a thread that only then comes along: one thread more
/// than there are processors would wait for the kernel's lock of all links on a processor that the others need.
///
/// # Errors
/// When none may be entered at all.
pub fn each<T: Send, A: Send>(
    names: &[String],
    look: impl Fn(&str) -> T + Sync,
    aside: impl FnOnce() -> A + Send,
) -> (A, Result<Vec<Result<T>>>) {
    if names.is_empty() {
        return (aside(), Ok(Vec::new()));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let helpers = processors.min(MOST).min(names.len() / WORTH).saturating_sub(2);
    let next = AtomicUsize::new(0);
    let tour = || -> Result<Vec<(usize, Result<T>)>> {
        let _back = Back::here()?;
        let mut seen = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(index) else { return Ok(seen) };
            seen.push((index, enter(name).map(|()| look(name))));
        }
    };
    let (aside, seen) = std::thread::scope(|scope| {
        // Where the system gives no more threads, this one sees them all.
        let spawn = |_| std::thread::Builder::new().name("tour".into()).spawn_scoped(scope, tour).ok();
        let started: Vec<_> = (0..helpers).filter_map(spawn).collect();
        let ((aside, others), seen) = beside(|| (aside(), tour()), tour);
        let collect = || {
            let mut seen = seen?;
            seen.extend(others?);
            for helper in started {
                match helper.join() {
                    Ok(theirs) => seen.extend(theirs?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            seen.sort_by_key(|(index, _)| *index);
            Ok::<_, Error>(seen.into_iter().map(|(_, result)| result).collect())
        };
        (aside, collect())
    });
    (aside, seen)
}
