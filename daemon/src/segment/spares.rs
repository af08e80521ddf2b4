//! Segments made before anyone needs them, and unmade where nobody waits for it.
//!
//! The first large result of a connection would wait for its pages to be zeroed. A thread keeps a
//! few fresh segments ready instead. The same thread unmaps segments that pools give up, which
//! takes long for large ones. A segment given up is never a spare again: a client has seen it.

use crate::segment::{Backend, Segment, SegmentError};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The size of a spare, and of the first segment of a connection that needs no more.
pub const SPARE_LEN_BYTES: u64 = 4 << 20;

/// How many spares are worth keeping: two connections may come at the same time.
pub const DEFAULT_SPARES: usize = 2;

/// Fresh segments in stock. Dropping it ends its thread, which first unmakes what it was given.
#[derive(Debug)]
pub struct Spares {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    backend: Arc<dyn Backend>,
    keep: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Segment>,
    given_up: Vec<Arc<Segment>>,
    /// The last attempt failed; the next one waits until somebody asks.
    failed: bool,
    stop: bool,
}

impl Spares {
    /// Starts the thread that keeps `keep` spares ready.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(backend: Arc<dyn Backend>, keep: usize) -> Result<Arc<Self>, SegmentError> {
        let shared =
            Arc::new(Shared { backend, keep, state: Mutex::default(), wake: Condvar::new() });
        let thread = thread::Builder::new()
            .name("emberd-spares".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|source: io::Error| SegmentError::System { step: "start a thread", source })?;
        Ok(Arc::new(Self { shared, thread: Some(thread) }))
    }

    /// What makes the spares, and the segments of every pool with them.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.shared.backend
    }

    /// Takes a spare if one is ready, and has another made.
    pub(super) fn take(&self) -> Option<Segment> {
        let mut state = self.shared.lock();
        state.failed = false;
        let spare = state.ready.pop();
        drop(state);
        self.shared.wake.notify_one();
        spare
    }

    /// Has segments unmapped, unless someone still uses them.
    pub(super) fn give_up(&self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        self.shared.lock().given_up.extend(segments);
        self.shared.wake.notify_one();
    }

    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes spare segments panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single step, so a panic leaves none half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let given_up = std::mem::take(&mut state.given_up);
            if !given_up.is_empty() {
                drop(state);
                drop(given_up);
                state = self.lock();
            } else if state.stop {
                return;
            } else if state.ready.len() < self.keep && !state.failed {
                drop(state);
                let made = self.backend.create(SPARE_LEN_BYTES);
                state = self.lock();
                match made {
                    Ok(segment) => state.ready.push(segment),
                    Err(error) => {
                        tracing::warn!(%error, "no spare segment could be made");
                        state.failed = true;
                    }
                }
            } else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
