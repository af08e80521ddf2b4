//! A few threads that run one computation together, in step.
//!
//! Every member runs the same task and computes its own part of each product. Before a part that
//! builds on the parts of others, each member [waits](Member::wait) for all. A waiting member spins for
//! a short while, because the others are almost done, and then sleeps: an idle team uses no processor.
//!
//! A task owns its data (behind `Arc`s), so that all of this is safe code. Members exchange results
//! through locks, which nobody holds any more when another member takes them.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::kernels::barrier::{Barrier, Broken};
use crate::kernels::sync::lock;

/// The work of every member.
pub(crate) type Task = Arc<dyn Fn(Member<'_>) + Send + Sync>;

/// Threads that wait for tasks. The thread that [runs](Team::run) a task is the first member.
pub(crate) struct Team {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

/// One thread's view of the team while it runs a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    /// From 0 on.
    pub(crate) index: usize,
    /// The number of members.
    pub(crate) count: usize,
    barrier: &'a Barrier,
}

impl Team {
    /// Starts all members but the first, which is the caller of [`Team::run`].
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let count = threads.max(1);
        let shared =
            Arc::new(Shared { count, task: Mutex::new(None), barrier: Barrier::new(count) });
        let mut team = Self { shared: Arc::clone(&shared), others: Vec::new() };
        for index in 1..count {
            let of_thread = Arc::clone(&shared);
            let started = thread::Builder::new()
                .name(format!("team-{index}"))
                .spawn(move || of_thread.serve(index));
            match started {
                Ok(handle) => team.others.push(handle),
                Err(error) => {
                    // The threads that have started would wait for the missing ones without end.
                    shared.barrier.break_up();
                    return Err(error);
                }
            }
        }
        Ok(team)
    }

    /// The number of members.
    pub(crate) fn count(&self) -> usize {
        self.shared.count
    }

    /// Runs the task on every member. Returns when all have finished.
    ///
    /// # Errors
    /// If a member panicked, now or in an earlier task.
    pub(crate) fn run(&mut self, task: &Task) -> Result<(), Broken> {
        let shared = &*self.shared;
        *lock(&shared.task) = Some(Arc::clone(task));
        shared.barrier.wait()?;
        let done = shared.work(task, 0);
        *lock(&shared.task) = None;
        done
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        // The others wait at the barrier: now they find no task, or a broken barrier, and end.
        *lock(&self.shared.task) = None;
        let _ = self.shared.barrier.wait();
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

impl Member<'_> {
    /// Waits until all members have called it.
    ///
    /// # Panics
    /// If another member panicked, because it will never arrive. The team catches the panic.
    pub(crate) fn wait(self) {
        if let Err(broken) = self.barrier.wait() {
            // Not `panic!`, which would report this as a second panic.
            std::panic::resume_unwind(Box::new(broken));
        }
    }

    /// This member's part of `0..items`. The parts of all members are consecutive and cover all items.
    pub(crate) fn part(self, items: usize) -> std::ops::Range<usize> {
        items * self.index / self.count..items * (self.index + 1) / self.count
    }
}

struct Shared {
    count: usize,
    /// The next task; `None` ends the thread.
    task: Mutex<Option<Task>>,
    barrier: Barrier,
}

impl Shared {
    fn serve(&self, index: usize) {
        while self.barrier.wait().is_ok() {
            let Some(task) = lock(&self.task).clone() else { return };
            if self.work(&task, index).is_err() {
                return;
            }
        }
    }

    /// Runs one member's part and waits until the others have finished theirs.
    fn work(&self, task: &Task, index: usize) -> Result<(), Broken> {
        let member = Member { index, count: self.count, barrier: &self.barrier };
        // Results that a panic leaves half written are never used: the team stays broken.
        if catch_unwind(AssertUnwindSafe(|| task(member))).is_err() {
            self.barrier.break_up();
        }
        self.barrier.wait()
    }
}

#[cfg(test)]
mod tests;
