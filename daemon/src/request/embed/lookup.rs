//! From a request's texts to those that must be computed: rows that the cache has are copied to
//! where they go, and a text that occurs twice is computed once.
#[cfg(test)]
mod tests;

use crate::batching::row_job::{RowFlights, RowTarget};
use crate::batching::row_shape::RowShape;
use crate::cache::{KeySpace, RowKey};
use crate::segment::Row;
use emberd_protocol::TextBlock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

/// Up to these limits texts are looked up on the runtime's thread, in some hundred microseconds. More
/// go to a thread that may block: the runtime's threads serve others too.
const MAX_INLINE_TEXTS: usize = 256;
const MAX_INLINE_BYTES: usize = 64 << 10;

/// Where a request's rows may be found.
#[derive(Debug)]
pub(super) struct CacheLookup {
    flights: Arc<RowFlights>,
    keys: KeySpace,
    shape: RowShape,
}

/// What the cache had, and what it had not.
#[derive(Debug)]
pub(super) struct LookedUp {
    /// All texts of the request.
    pub(super) texts: TextBlock,
    /// Those that must be computed.
    pub(super) missing: Vec<RowTarget>,
    /// Positions of truncated texts among those that were found, ascending.
    pub(super) truncated: Vec<u32>,
}

impl CacheLookup {
    /// Looks in the rows of `keys`; `shape` says which values of a row are used.
    pub(super) fn new(flights: &Arc<RowFlights>, keys: KeySpace, shape: RowShape) -> Self {
        Self { flights: Arc::clone(flights), keys, shape }
    }

    /// Looks up every text. `None`: the look-up panicked.
    pub(super) async fn find(self, texts: TextBlock, rows: Vec<Row>) -> Option<LookedUp> {
        if texts.len() <= MAX_INLINE_TEXTS && texts.len_bytes() <= MAX_INLINE_BYTES {
            return Some(self.find_now(texts, rows));
        }
        // If the request is dropped in the meantime, its rows are freed when this has ended.
        tokio::task::spawn_blocking(move || self.find_now(texts, rows)).await.ok()
    }

    fn find_now(&self, texts: TextBlock, rows: Vec<Row>) -> LookedUp {
        let mut truncated = Vec::new();
        let mut missing: Vec<RowTarget> = Vec::new();
        let mut positions: HashMap<RowKey, usize> = HashMap::new();
        for (text, mut row) in rows.into_iter().enumerate() {
            let key = self.keys.row(texts.get(text).unwrap_or_default());
            if let Some(hit) = self.flights.cache().get(&key, self.shape.model, Instant::now()) {
                self.shape.write(&hit.values, row.as_mut_slice());
                if hit.truncated {
                    truncated.push(RowTarget::position(text));
                }
                continue;
            }
            match positions.entry(key) {
                Entry::Occupied(first) => missing[*first.get()].more.push((text, row)),
                Entry::Vacant(first) => {
                    first.insert(missing.len());
                    let ticket = Some(self.flights.join(key));
                    let (shape, more) = (self.shape, Vec::new());
                    missing.push(RowTarget { text, row, shape, more, ticket });
                }
            }
        }
        LookedUp { texts, missing, truncated }
    }
}
