//! Counting the bytes of all segments of all connections, or of all inline results.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// Bytes of segments that all connections together may have, and have.
///
/// A segment counts from just before it is made until its pool gives it up. Spares that no
/// connection has taken do not count.
#[derive(Debug)]
pub struct TotalCredit {
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    segments: AtomicU32,
    /// Notified when a share is dropped.
    freed: Notify,
    /// Changed when a connection waits: others may hold segments that nobody uses.
    wanted: watch::Sender<()>,
}

impl TotalCredit {
    /// A total of `limit_bytes`, with nothing used yet.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: AtomicU64::new(limit_bytes),
            used_bytes: AtomicU64::new(0),
            segments: AtomicU32::new(0),
            freed: Notify::new(),
            wanted: watch::Sender::new(()),
        })
    }

    /// Bytes of all segments that count.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that they may have.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// Changes the limit for shares that are taken from now on.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// How many segments count.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Changes whenever a connection waits for memory that free segments of others may occupy.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<()> {
        self.wanted.subscribe()
    }

    /// Asks other connections to give up free segments.
    pub(super) fn want(&self) {
        self.wanted.send_replace(());
    }

    /// Notified when a share is dropped or the limit changes.
    pub(super) fn freed(&self) -> &Notify {
        &self.freed
    }

    /// Whether `len_bytes` are left.
    pub(super) fn has_room(&self, len_bytes: u64) -> bool {
        self.used_bytes().checked_add(len_bytes).is_some_and(|sum| sum <= self.limit_bytes())
    }

    /// Takes `len_bytes` for one segment, if they are left.
    pub(super) fn share(self: &Arc<Self>, len_bytes: u64) -> Option<Share> {
        let limit = self.limit_bytes();
        let taken = |used: u64| used.checked_add(len_bytes).filter(|sum| *sum <= limit);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        self.segments.fetch_add(1, Ordering::Relaxed);
        Some(Share { total: Arc::clone(self), len_bytes })
    }
}

/// The bytes of one segment, or of one inline result, in a total. Dropping it returns them.
#[derive(Debug)]
pub(super) struct Share {
    total: Arc<TotalCredit>,
    len_bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.total.used_bytes.fetch_sub(self.len_bytes, Ordering::Relaxed);
        self.total.segments.fetch_sub(1, Ordering::Relaxed);
        self.total.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_until_dropped_and_never_pass_the_limit() {
        let total = TotalCredit::new(10);
        let first = total.share(6).unwrap();
        assert!(total.share(5).is_none());
        assert!(total.share(u64::MAX).is_none());
        let second = total.share(4).unwrap();
        assert_eq!((total.used_bytes(), total.segments()), (10, 2));
        drop(first);
        assert_eq!((total.used_bytes(), total.segments()), (4, 1));
        drop(second);
        assert_eq!((total.used_bytes(), total.segments()), (0, 0));
    }
}
