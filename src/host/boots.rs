//! When the next virtual machine may start. Machines that boot at once on fewer processors take turns on them, and each finds
//! its caches full of the others' work: ten emulated ones on two processors are all ready sooner two at a time than all at
//! once (`docs/performance.md`). So as many boot at a time as there are processors. What a guest does at the moment is
//! measured: one that waits for a disk or a network, says that it is ready or has come to rest lets the next one start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::guest::seed::console;

/// Between two looks, and the least time over which it is told whether a guest rests.
const LOOK: Duration = Duration::from_millis(100);
/// How long a guest counts at most. One that is busy for ever does not keep others from starting.
const COUNTS: Duration = Duration::from_secs(30);
/// What a guest runs at most that rests, in processors: an emulated one has timers. One that boots runs all the time, and
/// beside four programs that count on two processors still for a third of it. What it waits for a processor is not told
/// apart from what any program waits there, so that is not looked at.
const RESTS: f64 = 0.15;

/// The guests that were started a short while ago.
pub(crate) struct Boots {
    processors: usize,
    proc: PathBuf,
    guests: Mutex<Vec<Booting>>,
    /// Who came first starts first.
    turn: tokio::sync::Mutex<()>,
}

struct Booting {
    domain: String,
    console: PathBuf,
    begun: Instant,
    /// Whether it ran, when it was looked at; it does until it can be asked.
    busy: bool,
    emulator: Option<Emulator>,
}

struct Emulator {
    pid: u32,
    /// When it was looked at, and for how long its threads had then run, all together.
    seen: (Instant, Duration),
}

impl Boots {
    /// As many at a time as there are processors for this process.
    pub(crate) fn new() -> Self {
        Self::with(std::thread::available_parallelism().map_or(1, usize::from), Path::new("/proc"))
    }

    fn with(processors: usize, proc: &Path) -> Self {
        let (guests, turn) = Default::default();
        Self { processors, proc: proc.to_owned(), guests, turn }
    }

    /// Waits until there is room for one more, which counts from then on: one that comes to nothing is to be given up with
    /// [`Boots::gone`]. `console` is where what it says will be kept.
    pub(crate) async fn admit(&self, domain: &str, memory_mib: u32, console: &Path) {
        let _turn = self.turn.lock().await;
        while !self.has_room(Instant::now(), memory_mib) {
            tokio::time::sleep(LOOK).await;
        }
        let (domain, console) = (domain.to_owned(), console.to_owned());
        self.lock().push(Booting { domain, console, begun: Instant::now(), busy: true, emulator: None });
    }

    /// It runs, as this process; without a number nothing can be known of it, and it counts no more.
    pub(crate) fn runs(&self, domain: &str, pid: Option<u32>) {
        let seen = pid.and_then(|pid| Some(Emulator { pid, seen: (Instant::now(), self.run_time(pid)?) }));
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
        let busy = guests.iter().filter(|guest| guest.busy).count();
        // With less memory than it is given, the machine may have to make room: one at a time, then.
        busy == 0 || (busy < self.processors && self.has_memory(memory_mib))
    }

    /// Whether it still boots.
    fn look(&self, guest: &mut Booting, now: Instant) -> bool {
        let Some(emulator) = &mut guest.emulator else { return true };
        let Some(run) = self.run_time(emulator.pid) else { return false };
        let since = now.saturating_duration_since(emulator.seen.0);
        if since >= LOOK {
            // A thread that has ended takes its share with it.
            let share = run.saturating_sub(emulator.seen.1).as_secs_f64() / since.as_secs_f64();
            guest.busy = share > RESTS;
            emulator.seen = (now, run);
            return !console::has_settled(&guest.console);
        }
        true
    }

    /// For how long a process's threads have run: the first number, in nanoseconds, of each thread's `schedstat`
    /// (Documentation/scheduler/sched-stats). `None` where there is no such process.
    fn run_time(&self, pid: u32) -> Option<Duration> {
        let threads = fs::read_dir(self.proc.join(pid.to_string()).join("task")).ok()?;
        let nanoseconds = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse::<u64>().ok()
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

    /// Two processors, and emulators that have run for so many milliseconds so far.
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

        /// Two threads of it, which have waited for a processor for long.
        fn ran(&self, pid: u32, milliseconds: [u64; 2]) {
            for (thread, part) in [(1, 0), (2, 1)] {
                let task = self.directory.join(format!("{pid}/task/{thread}"));
                fs::create_dir_all(&task).unwrap();
                let run = milliseconds[part] * 1_000_000;
                fs::write(task.join("schedstat"), format!("{run} 987654321987 7\n")).unwrap();
            }
        }

        fn console(&self, domain: &str) -> PathBuf {
            self.directory.join(domain)
        }

        fn starts(&self, domain: &str, pid: u32) {
            self.ran(pid, [0, 0]);
            self.boots.lock().push(Booting {
                domain: domain.to_owned(),
                console: self.console(domain),
                begun: self.began,
                busy: true,
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
    fn as_many_boot_as_there_are_processors() {
        let machine = Machine::new("room");
        assert!(machine.room(0));
        machine.starts("a", 1);
        assert!(machine.room(0), "one processor is free");
        machine.starts("b", 2);
        assert!(!machine.room(50), "both count until they can be looked at");
        machine.ran(1, [150, 40]);
        machine.ran(2, [20, 40]);
        assert!(!machine.room(200));
        // One of them has come to rest.
        machine.ran(1, [155, 45]);
        machine.ran(2, [20, 90]);
        assert!(machine.room(300));
        // It runs again.
        machine.ran(1, [175, 45]);
        machine.ran(2, [20, 190]);
        assert!(!machine.room(400));
    }

    #[test]
    fn one_that_says_that_it_is_ready_or_could_not_be_counts_no_more() {
        for word in ["ready after 3.2 s", "ready", "failed: no nft;"] {
            let machine = Machine::new("says");
            for (domain, pid) in [("a", 1), ("b", 2)] {
                machine.starts(domain, pid);
                machine.ran(pid, [200, 0]);
                fs::write(machine.console(domain), "Linux\r\nnetloom: setting up\r\n").unwrap();
            }
            assert!(!machine.room(200));
            for pid in [1, 2] {
                machine.ran(pid, [400, 0]);
            }
            fs::write(machine.console("b"), format!("Linux\r\nnetloom: {word}\r\na:/# ")).unwrap();
            assert!(machine.room(400), "{word}");
            assert_eq!(machine.boots.lock().len(), 1);
        }
    }

    #[test]
    fn one_that_never_rests_or_has_gone_does_not_keep_others() {
        let machine = Machine::new("gone");
        for (domain, pid) in [("a", 1), ("b", 2)] {
            machine.starts(domain, pid);
        }
        machine.ran(1, [29_000, 0]);
        machine.ran(2, [29_000, 0]);
        assert!(!machine.room(29_000));
        fs::remove_dir_all(machine.directory.join("2")).unwrap();
        machine.ran(1, [29_200, 0]);
        assert!(machine.room(29_200));
        machine.starts("b", 2);
        machine.boots.gone("b");
        machine.ran(1, [31_000, 0]);
        assert!(machine.room(31_000) && machine.boots.lock().is_empty());
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
        let log = machine.console("log");
        machine.boots.admit("a", 100, &log).await;
        machine.boots.admit("b", 100, &log).await;
        let third = machine.boots.admit("c", 100, &log);
        assert!(tokio::time::timeout(Duration::from_millis(20), third).await.is_err());
        machine.boots.gone("a");
        machine.boots.admit("c", 100, &log).await;
        // Nothing is known of it, so it is not waited for.
        machine.boots.runs("b", None);
        machine.boots.admit("d", 100, &log).await;
    }
}
