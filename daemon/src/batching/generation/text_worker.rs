//! The thread that generates texts with one loaded model.

#[cfg(test)]
mod tests;

use crate::batching::generation::batch::Batch;
use crate::batching::generation::queue::TextQueue;
use crate::batching::generation::text_work::TextWork;
use emberd_engine::Seq2SeqModel;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// The running thread. Dropping closes the queue and waits until the work in it is done.
#[derive(Debug)]
pub struct TextWorker {
    queue: Arc<TextQueue>,
    thread: Option<JoinHandle<()>>,
}

impl TextWorker {
    /// Starts the thread. It computes with `threads` threads, itself included.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub fn start(
        name: &str,
        threads: usize,
        model: &Arc<dyn Seq2SeqModel>,
        queue: &Arc<TextQueue>,
        work: &Arc<TextWork>,
    ) -> std::io::Result<Self> {
        let batch = Batch::new(threads, model, queue, work)?;
        // The kernel shows 15 characters of a thread's name.
        let thread = Builder::new().name(format!("t:{name}")).spawn(|| batch.run())?;
        Ok(Self { queue: Arc::clone(queue), thread: Some(thread) })
    }
}

impl Drop for TextWorker {
    fn drop(&mut self) {
        self.queue.items.close();
        if let Some(thread) = self.thread.take() {
            // The worker catches the panics of its work. A panic of its own is in the log already.
            let _ = thread.join();
        }
    }
}
