//! When the next virtual machine may start. Machines that boot at once on fewer processors take turns on them, and each finds
//! its caches full of the others' work: ten emulated ones on two processors are all ready sooner two at a time than all at
//! once (`docs/performance.md`). So as many boot at a time as there are processors, and twice as many where other programs
//! want these too. What a guest does at the moment is measured: one that waits for a disk or a network, says that it is
//! ready or has come to rest lets the next one start.

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
/// The least time over which it is told what other programs run.
const OTHERS: Duration = Duration::from_secs(1);
/// From this share of the machine on that other programs run, they take each moment in which a guest waits for something,
/// and the more guests there are, the larger is their part (measured beside four programs that only count,
/// `docs/performance.md`).
const CONTENDED: f64 = 0.25;

/// The guests that were started a short while ago.
pub(crate) struct Boots {
    processors: usize,
    proc: PathBuf,
    guests: Mutex<Vec<Booting>>,
    others: Mutex<Others>,
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

/// What the machine's other programs run.
#[derive(Default)]
struct Others {
    /// When the machine was looked at, and what it had then counted.
    seen: Option<(Instant, Counted)>,
    /// Every emulator that was started, for as long as it runs, and for how long it had run then.
    emulators: Vec<(u32, Duration)>,
    /// Their share of it, when it was last told: the mean of what was just counted and of what was told before, since an
    /// emulator is known, and what it ran no longer theirs, only some time after its start.
    share: f64,
}

impl Others {
    fn contend(&self) -> bool {
        self.share > CONTENDED
    }
}

/// What all processors together have done, in ticks, and how many they are.
struct Counted {
    ran: u64,
    passed: u64,
    processors: u32,
}

impl Boots {
    /// As many at a time as there are processors for this process.
    pub(crate) fn new() -> Self {
        Self::with(std::thread::available_parallelism().map_or(1, usize::from), Path::new("/proc"))
    }

    fn with(processors: usize, proc: &Path) -> Self {
        let (guests, others, turn) = Default::default();
        Self { processors, proc: proc.to_owned(), guests, others, turn }
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
        // What it ran before it was known is not others', either.
        self.others().emulators.push((emulator.pid, Duration::ZERO));
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
        let at_once = if self.others_contend(now) { 2 * self.processors } else { self.processors };
        // With less memory than it is given, the machine may have to make room: one at a time, then.
        busy == 0 || (busy < at_once && self.has_memory(memory_mib))
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

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other programs want much of the machine; not, where the kernel does not tell.
    fn others_contend(&self, now: Instant) -> bool {
        let mut others = self.others();
        if let Some((then, _)) = &others.seen
            && now.saturating_duration_since(*then) < OTHERS
        {
            return others.contend();
        }
        let (counted, own) = (self.counted(), self.emulators_ran(&mut others));
        if let (Some((then, before)), Some(after)) = (&others.seen, &counted) {
            let passed = after.passed.saturating_sub(before.passed).max(1);
            // Ticks are no larger than what is told apart here by far, so they fit.
            #[expect(clippy::cast_precision_loss)]
            let all = after.ran.saturating_sub(before.ran) as f64 / passed as f64;
            let time = now.saturating_duration_since(*then).as_secs_f64() * f64::from(after.processors);
            others.share = f64::midpoint(others.share, all - own.as_secs_f64() / time);
        }
        others.seen = counted.map(|counted| (now, counted));
        others.contend()
    }

    /// What the emulators that were started have run since they were last asked, those that rest and those that take long
    /// as well; one that has gone is forgotten.
    fn emulators_ran(&self, others: &mut Others) -> Duration {
        let mut sum = Duration::ZERO;
        others.emulators.retain_mut(|(pid, before)| {
            let Some(run) = self.run_time(*pid) else { return false };
            sum += run.saturating_sub(*before);
            *before = run;
            true
        });
        sum
    }

    /// What the kernel has counted: the first line of `/proc/stat` is user, nice, system, idle, iowait, irq, softirq and
    /// steal; a line for each processor follows (`proc_stat(5)`).
    fn counted(&self) -> Option<Counted> {
        let text = fs::read_to_string(self.proc.join("stat")).ok()?;
        let mut lines = text.lines();
        let all = lines.next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let ticks: Vec<u64> = all.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks.try_into().ok()?;
        let ran = user + nice + system + irq + softirq;
        let processors = u32::try_from(lines.take_while(|line| line.starts_with("cpu")).count()).ok()?;
        Some(Counted { ran, passed: ran + idle + iowait + steal, processors: processors.max(1) })
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
            self.boots.others().emulators.push((pid, Duration::ZERO));
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
    fn twice_as_many_boot_beside_other_programs() {
        let machine = Machine::new("others");
        // Two processors, a tick of 10 ms: all that passes is user, and idle does not grow.
        let stat = |user: u64, idle: u64| {
            let text = format!("cpu  {user} 0 0 {idle} 0 0 0 77\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
            fs::write(machine.directory.join("stat"), text).unwrap();
        };
        stat(1000, 500);
        assert!(machine.room(0));
        for (domain, pid) in [("a", 1), ("b", 2), ("c", 3)] {
            machine.starts(domain, pid);
        }
        let all_ran = |milliseconds: u64| (1..=3).for_each(|pid| machine.ran(pid, [milliseconds, 0]));
        // Of two seconds of two processors the guests ran all but a tenth.
        all_ran(1200);
        stat(1400, 500);
        assert!(!machine.room(2000));
        // Half of it is not yet believed, but the second time it is.
        all_ran(1867);
        stat(1800, 500);
        machine.room(4000);
        all_ran(2533);
        stat(2200, 500);
        assert!(machine.room(6000), "a fourth one");
        machine.starts("d", 4);
        machine.ran(4, [5000, 0]);
        all_ran(2567);
        assert!(!machine.room(6100), "what was told holds for a second, and four are enough");
        // Those that boot for long are no others, though they do not keep anybody any more: of new ones two are enough.
        for second in [40, 42, 44] {
            all_ran(second * 1000 * 2 / 3);
            stat(2200 + (second - 6) * 200, 500);
            assert!(machine.room(second * 1000));
        }
        for (domain, pid) in [("e", 5), ("f", 6)] {
            machine.starts(domain, pid);
            machine.ran(pid, [44_000, 0]);
        }
        for guest in machine.boots.lock().iter_mut() {
            guest.begun += Duration::from_secs(44);
        }
        assert!(!machine.room(44_100));
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
