//! A barrier that can be broken.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::kernels::sync::lock;

/// A thread of the team panicked. The team cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[error("a thread of the computation panicked")]
pub(crate) struct Broken;

/// A reusable barrier for a fixed number of threads. Unlike that of the standard library it can be
/// broken, and it spins before it sleeps.
#[derive(Debug)]
pub(super) struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    /// Grows by one each time that all threads have arrived.
    round: AtomicUsize,
    sleepers: AtomicUsize,
    is_broken: AtomicBool,
    sleep: Mutex<()>,
    woken: Condvar,
}

impl Barrier {
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            is_broken: AtomicBool::new(false),
            sleep: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// Waits until all threads have called it.
    pub(super) fn wait(&self) -> Result<(), Broken> {
        let round = self.round.load(Ordering::SeqCst);
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.count {
            // All other threads are waiting for the round to change: none can arrive in between.
            self.arrived.store(0, Ordering::SeqCst);
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
            self.wake();
        } else {
            self.wait_for_end_of(round);
        }
        if self.is_broken.load(Ordering::SeqCst) { Err(Broken) } else { Ok(()) }
    }

    /// Lets all threads through, from now on, with an error.
    pub(super) fn break_up(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wait_for_end_of(&self, round: usize) {
        for _ in 0..SPINS {
            if self.has_ended(round) {
                return;
            }
            std::hint::spin_loop();
        }
        // Counted before the last check: a thread that ends the round after it sees the sleeper.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = lock(&self.sleep);
        while !self.has_ended(round) {
            guard = self.woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn has_ended(&self, round: usize) -> bool {
        self.round.load(Ordering::SeqCst) != round || self.is_broken.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Taken once, so that no thread is between its last check and its sleep.
            drop(lock(&self.sleep));
            self.woken.notify_all();
        }
    }
}

/// Turns of the waiting loop before a thread goes to sleep: about ten microseconds. Two running threads
/// are never further apart within a layer.
const SPINS: usize = 2000;
