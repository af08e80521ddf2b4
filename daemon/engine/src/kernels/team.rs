//! A few threads that work through one computation together, in step.
//!
//! Every member runs the same task and does its own part of each product; between two parts that
//! build on each other they [meet](Member::meet). Who has to wait spins for a short while, since
//! the others are almost done, and then sleeps: a team without work uses no processor.
//!
//! A task owns what it needs (behind `Arc`s), so that all of this is safe code. What members tell
//! each other goes through locks that are free by then.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Turns of the waiting loop before a member goes to sleep: some ten microseconds, more than two
/// threads that run are ever apart within a layer.
const SPINS: usize = 2000;

/// Locks whatever a panicking holder left behind: a panic is caught where the work was done, and
/// what the lock protects is kept whole by its owner.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every member does.
pub(crate) type Task = Arc<dyn Fn(Member<'_>) + Send + Sync>;

/// A member failed; the team is of no more use.
#[derive(Debug, thiserror::Error)]
#[error("a thread of the computation panicked")]
pub(crate) struct Broken;

/// Threads that wait for tasks. The thread that [runs](Team::run) a task is the first member.
pub(crate) struct Team {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

struct Shared {
    count: usize,
    /// What is to be done next; `None`: go home.
    task: Mutex<Option<Task>>,
    gate: Gate,
}

/// One thread's view of the team while it works at a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    /// From 0 on.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) count: usize,
    gate: &'a Gate,
}

impl Team {
    /// Starts all members but the one that will run the tasks.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let count = threads.max(1);
        let shared = Arc::new(Shared { count, task: Mutex::new(None), gate: Gate::new(count) });
        let mut team = Self { shared: Arc::clone(&shared), others: Vec::new() };
        for index in 1..count {
            let of_thread = Arc::clone(&shared);
            let started = thread::Builder::new()
                .name(format!("team-{index}"))
                .spawn(move || of_thread.serve(index));
            match started {
                Ok(handle) => team.others.push(handle),
                Err(error) => {
                    // Those that wait already would wait for ever for the ones that never came.
                    shared.gate.break_up();
                    return Err(error);
                }
            }
        }
        Ok(team)
    }

    /// How many members there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.count
    }

    /// Has every member run the task, and returns when all have.
    ///
    /// # Errors
    /// When a member panicked, now or before.
    pub(crate) fn run(&mut self, task: &Task) -> Result<(), Broken> {
        let shared = &*self.shared;
        *lock(&shared.task) = Some(Arc::clone(task));
        shared.gate.meet()?;
        let done = shared.work(task, 0);
        *lock(&shared.task) = None;
        done
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        // The others stand at the gate, or are told by it that they shall go.
        *lock(&self.shared.task) = None;
        let _ = self.shared.gate.meet();
        for other in self.others.drain(..) {
            let _ = other.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("count", &self.shared.count).finish_non_exhaustive()
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        while self.gate.meet().is_ok() {
            let Some(task) = lock(&self.task).clone() else { return };
            if self.work(&task, index).is_err() {
                return;
            }
        }
    }

    /// Runs one member's part and waits for the others to end theirs.
    fn work(&self, task: &Task, index: usize) -> Result<(), Broken> {
        let member = Member { index, count: self.count, gate: &self.gate };
        // What a panic leaves half done is never used: the team is broken from then on.
        if catch_unwind(AssertUnwindSafe(|| task(member))).is_err() {
            self.gate.break_up();
        }
        self.gate.meet()
    }
}

impl Member<'_> {
    /// Waits until all members are here.
    ///
    /// # Panics
    /// When another member panicked: it will not come. The team catches that.
    pub(crate) fn meet(self) {
        if let Err(broken) = self.gate.meet() {
            // Not `panic!`: the first panic was told already, and this is none of its own.
            std::panic::resume_unwind(Box::new(broken));
        }
    }

    /// The part of `0..items` that is this member's. All parts together are all items, in order.
    pub(crate) fn part(self, items: usize) -> std::ops::Range<usize> {
        items * self.index / self.count..items * (self.index + 1) / self.count
    }
}

/// Where threads wait for each other, again and again.
#[derive(Debug)]
struct Gate {
    count: usize,
    here: AtomicUsize,
    /// Grows by one each time that all were here.
    round: AtomicUsize,
    sleepers: AtomicUsize,
    is_broken: AtomicBool,
    bed: Mutex<()>,
    woken: Condvar,
}

impl Gate {
    fn new(count: usize) -> Self {
        Self {
            count,
            here: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            is_broken: AtomicBool::new(false),
            bed: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    fn meet(&self) -> Result<(), Broken> {
        let round = self.round.load(Ordering::SeqCst);
        if self.here.fetch_add(1, Ordering::SeqCst) + 1 == self.count {
            // Nobody else is between the gates: all others wait for the round to change.
            self.here.store(0, Ordering::SeqCst);
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
            self.wake();
        } else {
            self.wait(round);
        }
        if self.is_broken.load(Ordering::SeqCst) { Err(Broken) } else { Ok(()) }
    }

    fn wait(&self, round: usize) {
        for _ in 0..SPINS {
            if self.has_opened(round) {
                return;
            }
            std::hint::spin_loop();
        }
        // Counted before the last look: whoever opens the gate after it sees the sleeper.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut bed = lock(&self.bed);
        while !self.has_opened(round) {
            bed = self.woken.wait(bed).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(bed);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn has_opened(&self, round: usize) -> bool {
        self.round.load(Ordering::SeqCst) != round || self.is_broken.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Held once, so that nobody is between the last look and the bed.
            drop(lock(&self.bed));
            self.woken.notify_all();
        }
    }

    /// Lets everybody through, for good.
    fn break_up(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::{Member, Task, Team};

    #[test]
    fn all_members_are_through_one_part_before_any_begins_the_next() {
        for threads in 1..5 {
            let mut team = Team::start(threads).unwrap();
            let (count, wrong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            for task in 0..50 {
                let (count, wrong) = (Arc::clone(&count), Arc::clone(&wrong));
                let task: Task = Arc::new(move |member: Member<'_>| {
                    for part in 1..20 {
                        count.fetch_add(1, Ordering::SeqCst);
                        member.meet();
                        let all = (task * 19 + part) * member.count;
                        if count.load(Ordering::SeqCst) != all {
                            wrong.fetch_add(1, Ordering::SeqCst);
                        }
                        member.meet();
                    }
                });
                team.run(&task).unwrap();
            }
            assert_eq!(wrong.load(Ordering::SeqCst), 0, "{threads} threads");
        }
    }

    #[test]
    fn parts_cover_all_items_once_and_in_order() {
        for threads in 1..6 {
            let mut team = Team::start(threads).unwrap();
            for items in [0, 1, 3, 5, 17] {
                let parts = Arc::new(Mutex::new(Vec::new()));
                let into = Arc::clone(&parts);
                let task: Task = Arc::new(move |member: Member<'_>| {
                    into.lock().unwrap().push((member.index, member.part(items)));
                });
                team.run(&task).unwrap();
                let mut parts = parts.lock().unwrap().clone();
                parts.sort_by_key(|(index, _)| *index);
                let covered: Vec<usize> = parts.into_iter().flat_map(|(_, part)| part).collect();
                assert_eq!(covered, (0..items).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_panic_of_one_member_ends_the_task_for_all() {
        for failing in 0..3 {
            let mut team = Team::start(3).unwrap();
            let failing: Task = Arc::new(move |member: Member<'_>| {
                assert_ne!(member.index, failing, "on purpose");
                member.meet();
            });
            assert!(team.run(&failing).is_err());
            let harmless: Task = Arc::new(|_: Member<'_>| {});
            assert!(team.run(&harmless).is_err());
        }
    }
}
