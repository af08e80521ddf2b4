//! Segments that are made in advance, and unmapped in the background.
//!
//! Without them the first large result of a connection would wait until its pages are zeroed. A
//! thread keeps a few new segments ready instead. The same thread unmaps segments that pools give
//! up, which takes long for large ones. Such a segment never becomes a spare: a client has seen it.

use crate::segment::backend::Backend;
use crate::segment::error::SegmentError;
use crate::segment::memory::Segment;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The size of a spare, and so of the first segment of most connections.
pub const SPARE_LEN_BYTES: u64 = 4 << 20;

/// How many spares are worth keeping: two connections may arrive at the same time.
pub const DEFAULT_SPARES: usize = 2;

/// New segments in stock. Dropping it ends its thread, which first unmaps the segments that were
/// given up.
#[derive(Debug)]
pub struct Spares {
    maker: Arc<SpareMaker>,
    thread: Option<JoinHandle<()>>,
}

impl Spares {
    /// Starts the thread that keeps `keep` spares ready.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(backend: Arc<dyn Backend>, keep: usize) -> Result<Arc<Self>, SegmentError> {
        let maker =
            Arc::new(SpareMaker { backend, keep, state: Mutex::default(), wake: Condvar::new() });
        let thread = thread::Builder::new()
            .name("emberd-spares".to_owned())
            .spawn({
                let maker = Arc::clone(&maker);
                move || maker.run()
            })
            .map_err(|source: io::Error| SegmentError::System { step: "start a thread", source })?;
        Ok(Arc::new(Self { maker, thread: Some(thread) }))
    }

    /// The backend that makes the spares, and the other segments of the pools.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.maker.backend
    }

    /// Takes a spare if one is ready, and has another one made.
    pub(super) fn take(&self) -> Option<Segment> {
        let mut state = self.maker.lock();
        state.failed = false;
        let spare = state.ready.pop();
        drop(state);
        self.maker.wake.notify_one();
        spare
    }

    /// Has segments unmapped as soon as nothing uses them any more.
    pub(super) fn give_up(&self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        self.maker.lock().given_up.extend(segments);
        self.maker.wake.notify_one();
    }

    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.maker.lock().ready.len()
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.maker.lock().stop = true;
        self.maker.wake.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes spare segments panicked");
        }
    }
}

#[derive(Debug)]
struct SpareMaker {
    backend: Arc<dyn Backend>,
    keep: usize,
    state: Mutex<SparesState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct SparesState {
    ready: Vec<Segment>,
    given_up: Vec<Arc<Segment>>,
    /// The last attempt failed; the next one waits until a spare is requested.
    failed: bool,
    stop: bool,
}

impl SpareMaker {
    fn lock(&self) -> MutexGuard<'_, SparesState> {
        // Every change of the state is a single step, so a panic cannot leave one half done.
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
