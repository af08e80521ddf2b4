//! One request's wish for one row that was not in the cache.

use crate::batching::job::Entry;
use crate::cache::flight::{Claim, Flight};
use crate::cache::{CachedRow, EmbeddingCache, RowKey};
use std::sync::Arc;
use std::time::Instant;

/// Wants a row until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    cache: Arc<EmbeddingCache>,
    key: RowKey,
    flight: Arc<Flight<Entry>>,
}

impl Ticket {
    /// Joins those who want the row of a key.
    pub(crate) fn new(cache: &Arc<EmbeddingCache>, key: RowKey) -> Self {
        let flight = cache.flights.join(key);
        Self { cache: Arc::clone(cache), key, flight }
    }

    /// The row, if somebody has computed it meanwhile.
    pub(crate) fn look_again(&self, width: usize) -> Option<CachedRow> {
        // In the cache, where it landed between this request's look there and its joining.
        let in_cache = || self.cache.get_again(&self.key, width, Instant::now());
        self.flight.landed().or_else(in_cache)
    }

    /// Keeps a row that was computed, and answers the entries that waited for just that: theirs
    /// are still to be filled.
    pub(crate) fn land(&self, row: &[f32], truncated: bool) -> Vec<Entry> {
        let row = CachedRow { values: row.into(), truncated };
        // The cache first: whoever finds no flight any more finds the row there.
        self.cache.insert(self.key, row.clone(), Instant::now());
        self.cache.flights.land(&self.key, &self.flight, row)
    }

    /// Lets others compute what could not be computed here. Answers those who waited for it.
    pub(crate) fn abandon(&self) -> Vec<Entry> {
        self.flight.abandon()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cache.flights.leave(&self.key, &self.flight);
    }
}

/// Takes entries that are about to be computed, and answers those that must be (`mine`) and those
/// whose rows are filled already (`filled`). The rest is handed to whoever computes it now.
pub(crate) fn claim(batch: Vec<Entry>) -> Claimed {
    let mut claimed = Claimed { mine: Vec::with_capacity(batch.len()), filled: Vec::new() };
    for entry in batch {
        let Some(ticket) = &entry.home.ticket else {
            claimed.mine.push(entry);
            continue;
        };
        let flight = Arc::clone(&ticket.flight);
        match flight.claim(entry) {
            Claim::Yours(entry) => claimed.mine.push(entry),
            Claim::Attached => {}
            Claim::Landed(mut entry, row) => {
                entry.home.fill(&row.values);
                claimed.filled.push(entry);
            }
        }
    }
    claimed
}

/// A batch after [`claim`].
#[derive(Debug)]
pub(crate) struct Claimed {
    /// To be computed now, each landed or abandoned afterwards.
    pub(crate) mine: Vec<Entry>,
    /// Nothing is left to do for them but to count them.
    pub(crate) filled: Vec<Entry>,
}
