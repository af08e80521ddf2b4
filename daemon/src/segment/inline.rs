//! Counting the bytes of inline results, from before they are computed until they are written.
//!
//! Otherwise a client that sends requests and never reads could fill the daemon's memory with
//! answers.

use crate::segment::credit::{Share, TotalCredit};
use crate::segment::error::SegmentError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Bytes of inline results that one connection may have, within the total of all connections.
#[derive(Debug)]
pub struct InlineCredit {
    own: Arc<TotalCredit>,
    total: Arc<TotalCredit>,
}

/// The right to hold one inline result. Dropping it returns the bytes.
#[derive(Debug)]
pub struct InlineShare {
    _own: Share,
    _total: Share,
}

impl InlineCredit {
    /// Nothing is held yet. `total` counts only inline results, so that a connection with much shared
    /// memory does not keep others from small answers.
    #[must_use]
    pub fn new(credit_bytes: u64, total: Arc<TotalCredit>) -> Self {
        Self { own: TotalCredit::new(credit_bytes), total }
    }

    /// Takes `len_bytes`, and waits up to `patience` until they are left.
    ///
    /// # Errors
    /// [`SegmentError::NeverFits`] at once; [`SegmentError::Credit`] or [`SegmentError::Total`]
    /// when `patience` ends.
    pub async fn reserve(
        &self,
        len_bytes: u64,
        patience: Duration,
    ) -> Result<InlineShare, SegmentError> {
        let limit_bytes = self.own.limit_bytes().min(self.total.limit_bytes());
        if len_bytes > limit_bytes {
            return Err(SegmentError::NeverFits { len_bytes, limit_bytes });
        }
        // The usual case, without setting up anything to wait with.
        if let Ok(share) = self.take(len_bytes) {
            return Ok(share);
        }
        let mut patience_ends = pin!(sleep(patience));
        loop {
            let mut own_freed = pin!(self.own.freed().notified());
            let mut total_freed = pin!(self.total.freed().notified());
            // Enabled before the attempt, so that no change between the two is missed.
            own_freed.as_mut().enable();
            total_freed.as_mut().enable();
            let full = match self.take(len_bytes) {
                Ok(share) => return Ok(share),
                Err(full) => full,
            };
            tokio::select! {
                biased;
                () = own_freed => {}
                () = total_freed => {}
                () = &mut patience_ends => return Err(full),
            }
        }
    }

    fn take(&self, len_bytes: u64) -> Result<InlineShare, SegmentError> {
        // Checked first: a share that is taken and returned would wake all that wait, this one too.
        let total_is_full = || SegmentError::Total {
            len_bytes,
            used_bytes: self.total.used_bytes(),
            limit_bytes: self.total.limit_bytes(),
        };
        if self.own.has_room(len_bytes) && !self.total.has_room(len_bytes) {
            return Err(total_is_full());
        }
        let own = self.own.share(len_bytes).ok_or_else(|| SegmentError::Credit {
            len_bytes,
            held_bytes: self.own.used_bytes(),
            credit_bytes: self.own.limit_bytes(),
        })?;
        let total = self.total.share(len_bytes).ok_or_else(total_is_full)?;
        Ok(InlineShare { _own: own, _total: total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn one_connection_waits_for_its_own_answers_and_then_fails_alone() {
        let total = TotalCredit::new(100);
        let greedy = InlineCredit::new(10, Arc::clone(&total));
        let other = InlineCredit::new(10, Arc::clone(&total));
        let held = greedy.reserve(8, LONG).await.unwrap();
        let refused = greedy.reserve(3, LONG).await.unwrap_err();
        assert!(matches!(refused, SegmentError::Credit { held_bytes: 8, .. }), "{refused:?}");
        other.reserve(10, Duration::ZERO).await.unwrap();
        let (later, ()) = tokio::join!(greedy.reserve(3, LONG), async { drop(held) });
        drop(later.unwrap());
        assert_eq!(total.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_connections_share_a_total_and_a_result_that_never_fits_is_refused_at_once() {
        let total = TotalCredit::new(10);
        let [one, two] = [(); 2].map(|()| InlineCredit::new(20, Arc::clone(&total)));
        let held = one.reserve(8, LONG).await.unwrap();
        let refused = two.reserve(3, LONG).await.unwrap_err();
        assert!(matches!(refused, SegmentError::Total { used_bytes: 8, .. }), "{refused:?}");
        let never = one.reserve(11, LONG).await.unwrap_err();
        assert!(matches!(never, SegmentError::NeverFits { limit_bytes: 10, .. }), "{never:?}");
        let (later, ()) = tokio::join!(two.reserve(3, LONG), async { drop(held) });
        assert!(later.is_ok());
    }
}
