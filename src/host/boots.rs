//! When the next virtual machine may start. Machines that boot at once on fewer processors take turns on them, and each finds
//! its caches full of the others' work: ten emulated ones on two processors are all ready sooner two at a time than all at
//! once (`docs/performance.md`). How many are started follows from what those that were started want of the processors at the
//! moment, as the kernel's scheduler tells: one that waits for a disk or a network lets the next one start, and so does one
//! that has booted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks, and the least time over which a guest's wants are told: some dozens of the scheduler's turns.
const LOOK: Duration = Duration::from_millis(100);
/// How long a guest counts at most. One that wants a processor for ever does not keep others from starting.
const COUNTS: Duration = Duration::from_secs(60);
/// What a guest wants that has nothing to do, in processors, at most: timers of an emulated one.
const IDLE: f64 = 0.2;
/// Less than this free, in processors, is none for another guest.
const ROOM: f64 = 0.5;

/// The guests that were started a short while ago.
pub(crate) struct Boots {
    processors: f64,
    proc: PathBuf,
    guests: Mutex<Vec<Booting>>,
    /// Who came first starts first.
    turn: tokio::sync::Mutex<()>,
}

struct Booting {
    domain: String,
    begun: Instant,
    /// Processors that it wants; one until it can be asked.
    wants: f64,
    emulator: Option<Emulator>,
}

struct Emulator {
    pid: u32,
    /// When it was looked at, and what its threads had then run or waited for a processor, all together.
    seen: (Instant, Duration),
}

impl Boots {
    /// As many at a time as there are processors for this process.
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with(processors, Path::new("/proc"))
    }

    #[allow(clippy::cast_precision_loss)] // no machine has so many
    fn with(processors: usize, proc: &Path) -> Self {
        Self {
            processors: processors as f64,
            proc: proc.to_owned(),
            guests: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until there is room for one more, which counts from then on: one that comes to nothing is to be given up with
    /// [`Boots::gone`].
    pub(crate) async fn admit(&self, domain: &str, memory_mib: u32) {
        let _turn = self.turn.lock().await;
        while !self.has_room(Instant::now(), memory_mib) {
            tokio::time::sleep(LOOK).await;
        }
        let domain = domain.to_owned();
        self.lock().push(Booting { domain, begun: Instant::now(), wants: 1.0, emulator: None });
    }

    /// It runs, as this process; without a number nothing can be known of it, and it counts no more.
    pub(crate) fn runs(&self, domain: &str, pid: Option<u32>) {
        let seen = pid.and_then(|pid| Some(Emulator { pid, seen: (Instant::now(), self.wanted(pid)?) }));
        let Some(emulator) = seen else { return self.gone(domain) };
        for guest in self.lock().iter_mut().filter(|guest| guest.domain == domain) {
            guest.emulator = Some(Emulator { ..emulator });
        }
    }

    /// It does not run.
    pub(crate) fn gone(&self, domain: &str) {
        self.lock().retain(|guest| guest.domain != domain);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Booting>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, now: Instant, memory_mib: u32) -> bool {
        let mut guests = self.lock();
        guests.retain_mut(|guest| now.duration_since(guest.begun) < COUNTS && self.look(guest, now));
        let busy = guests.iter().map(|guest| guest.wants).filter(|wants| *wants > IDLE);
        let wants: f64 = busy.sum();
        // With less memory than it is given, the machine may have to make room: one at a time, then.
        wants == 0.0 || (wants <= self.processors - ROOM && self.has_memory(memory_mib))
    }

    /// Whether it still runs.
    fn look(&self, guest: &mut Booting, now: Instant) -> bool {
        let Some(emulator) = &mut guest.emulator else { return true };
        let Some(wanted) = self.wanted(emulator.pid) else { return false };
        let since = now.saturating_duration_since(emulator.seen.0);
        if since >= LOOK {
            // A thread that has ended takes its share with it.
            guest.wants = wanted.saturating_sub(emulator.seen.1).as_secs_f64() / since.as_secs_f64();
            emulator.seen = (now, wanted);
        }
        true
    }

    /// How long a process's threads have run and waited for a processor: the first two numbers, in nanoseconds, of each
    /// thread's `schedstat` (Documentation/scheduler/sched-stats). `None` where there is no such process.
    fn wanted(&self, pid: u32) -> Option<Duration> {
        let threads = fs::read_dir(self.proc.join(pid.to_string()).join("task")).ok()?;
        let nanoseconds = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
            Some(numbers.next()?? + numbers.next()??)
        });
        Some(Duration::from_nanos(nanoseconds.sum()))
    }

    /// Whether so much is free, or can be made free at once; where the kernel does not tell, there is.
    fn has_memory(&self, mib: u32) -> bool {
        let text = fs::read_to_string(self.proc.join("meminfo")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib: Option<u64> = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        kib.is_none_or(|kib| kib / 1024 >= u64::from(mib))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors, and emulators that have wanted so many milliseconds of them so far.
    struct Machine {
        directory: PathBuf,
        boots: Boots,
        began: Instant,
    }

    impl Machine {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("netloom-boots-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("meminfo"), "MemTotal: 9 kB\nMemAvailable:     204800 kB\n").unwrap();
            let boots = Boots::with(2, &directory);
            Self { directory, boots, began: Instant::now() }
        }

        fn wants(&self, pid: u32, milliseconds: [u64; 2]) {
            for (thread, part) in [(1, 0), (2, 1)] {
                let task = self.directory.join(format!("{pid}/task/{thread}"));
                fs::create_dir_all(&task).unwrap();
                let nanoseconds = milliseconds[part] * 1_000_000;
                fs::write(
                    task.join("schedstat"),
                    format!("{} {} 7\n", nanoseconds / 2, nanoseconds.div_ceil(2)),
                )
                .unwrap();
            }
        }

        fn starts(&self, domain: &str, pid: u32) {
            self.wants(pid, [0, 0]);
            self.boots.lock().push(Booting {
                domain: domain.to_owned(),
                begun: self.began,
                wants: 1.0,
                emulator: Some(Emulator { pid, seen: (self.began, Duration::ZERO) }),
            });
        }

        fn room(&self, milliseconds: u64) -> bool {
            self.boots.has_room(self.began + Duration::from_millis(milliseconds), 100)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn as_many_boot_as_there_are_processors_for_them() {
        let machine = Machine::new("room");
        assert!(machine.room(0));
        machine.starts("a", 1);
        assert!(machine.room(0), "one processor is free");
        machine.starts("b", 2);
        assert!(!machine.room(50), "both count until they can be looked at");
        machine.wants(1, [150, 40]);
        machine.wants(2, [20, 180]);
        assert!(!machine.room(200));
        // One of them has come to rest.
        machine.wants(1, [155, 45]);
        machine.wants(2, [20, 290]);
        assert!(machine.room(300));
        // It wants both processors all of a sudden, and the other none.
        machine.wants(1, [255, 145]);
        assert!(!machine.room(400));
    }

    #[test]
    fn one_that_never_rests_or_has_gone_does_not_keep_others() {
        let machine = Machine::new("gone");
        for (domain, pid) in [("a", 1), ("b", 2)] {
            machine.starts(domain, pid);
        }
        machine.wants(1, [59_000, 0]);
        machine.wants(2, [59_000, 0]);
        assert!(!machine.room(59_000));
        fs::remove_dir_all(machine.directory.join("2")).unwrap();
        machine.wants(1, [59_200, 0]);
        assert!(machine.room(59_200));
        machine.starts("b", 2);
        machine.boots.gone("b");
        machine.wants(1, [61_000, 0]);
        assert!(machine.room(61_000) && machine.boots.lock().is_empty());
    }

    #[test]
    fn without_memory_there_is_one_at_a_time() {
        let machine = Machine::new("memory");
        let room = |mib| machine.boots.has_room(machine.began, mib);
        assert!(room(1000));
        machine.starts("a", 1);
        assert!(room(200) && !room(201));
    }

    #[tokio::test]
    async fn who_is_admitted_counts_from_then_on() {
        let machine = Machine::new("admit");
        machine.boots.admit("a", 100).await;
        machine.boots.admit("b", 100).await;
        let third = machine.boots.admit("c", 100);
        assert!(tokio::time::timeout(Duration::from_millis(20), third).await.is_err());
        machine.boots.gone("a");
        machine.boots.admit("c", 100).await;
        // Nothing is known of it, so it is not waited for.
        machine.boots.runs("b", None);
        machine.boots.admit("d", 100).await;
    }
}
