//! The making of one more segment.

use crate::segment::backend::Backend;
use crate::segment::credit::Share;
use crate::segment::error::SegmentError;
use crate::segment::ledger::Ledger;
use std::sync::{Arc, Weak};

/// A segment that is being made for a pool. However it ends, the requests that wait for it are
/// woken.
#[derive(Debug)]
pub(super) struct Growth {
    ledger: Weak<Ledger>,
    backend: Arc<dyn Backend>,
    len_bytes: u64,
    share: Option<Share>,
}

impl Growth {
    /// A segment of `len_bytes`, which `share` pays for.
    pub(super) fn new(
        ledger: Weak<Ledger>,
        backend: Arc<dyn Backend>,
        len_bytes: u64,
        share: Share,
    ) -> Self {
        Self { ledger, backend, len_bytes, share: Some(share) }
    }

    /// The length of the segment.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Makes the segment. Blocks.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(super) fn run(mut self) -> Result<(), SegmentError> {
        let segment = self.backend.create(self.len_bytes)?;
        match (self.ledger.upgrade(), self.share.take()) {
            (Some(ledger), Some(share)) => ledger.lock().insert(segment, share),
            // The connection has ended in the meantime.
            _ => Ok(()),
        }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        drop(self.share.take());
        if let Some(ledger) = self.ledger.upgrade() {
            ledger.lock().is_growing = false;
            ledger.changed().notify_waiters();
        }
    }
}
