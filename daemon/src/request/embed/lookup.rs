//! From a request's texts to what must be computed: rows that the cache has are copied to their
//! places, and a text that comes twice is computed once.
#[cfg(test)]
pub(crate) mod tests;

use crate::batching::row_job::{RowFlights, RowTarget};
use crate::batching::row_shape::RowShape;
use crate::cache::{KeySpace, RowKey};
use crate::segment::Row;
use emberd_protocol::TextBlock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

/// Up to so much is looked up where the request is read: some hundred microseconds. More goes to
/// a thread of its own, since a runtime's thread serves others too.
const MAX_INLINE_TEXTS: usize = 256;
const MAX_INLINE_BYTES: usize = 64 << 10;

/// Where a request's rows may be found.
#[derive(Debug)]
pub(crate) struct Lookup {
    flights: Arc<RowFlights>,
    keys: KeySpace,
    shape: RowShape,
}

/// What was found, and what was not.
#[derive(Debug)]
pub(crate) struct Found {
    /// The request's texts, all of them.
    pub(crate) texts: TextBlock,
    /// What is to be computed.
    pub(crate) missing: Vec<RowTarget>,
    /// Positions of texts whose rows were found, and that had lost their end. Ascending.
    pub(crate) truncated: Vec<u32>,
}

impl Lookup {
    /// Looks for rows in the cache; `shape` is what of them is wanted.
    pub(crate) fn new(flights: &Arc<RowFlights>, keys: KeySpace, shape: RowShape) -> Self {
        Self { flights: Arc::clone(flights), keys, shape }
    }

    /// Looks up every text. `None`: the thread for it panicked.
    pub(crate) async fn find(self, texts: TextBlock, rows: Vec<Row>) -> Option<Found> {
        if texts.len() <= MAX_INLINE_TEXTS && texts.len_bytes() <= MAX_INLINE_BYTES {
            return Some(self.find_now(texts, rows));
        }
        // A request that is dropped meanwhile gives its rows back when this has ended.
        tokio::task::spawn_blocking(move || self.find_now(texts, rows)).await.ok()
    }

    fn find_now(&self, texts: TextBlock, rows: Vec<Row>) -> Found {
        let mut truncated = Vec::new();
        let mut missing: Vec<RowTarget> = Vec::new();
        let mut places: HashMap<RowKey, usize> = HashMap::new();
        for (text, mut row) in rows.into_iter().enumerate() {
            let key = self.keys.row(texts.get(text).unwrap_or_default());
            if let Some(hit) = self.flights.cache().get(&key, self.shape.model, Instant::now()) {
                self.shape.write(&hit.values, row.as_mut_slice());
                if hit.truncated {
                    truncated.push(RowTarget::position(text));
                }
                continue;
            }
            match places.entry(key) {
                Entry::Occupied(place) => missing[*place.get()].more.push((text, row)),
                Entry::Vacant(place) => {
                    place.insert(missing.len());
                    let ticket = Some(self.flights.join(key));
                    let (shape, more) = (self.shape, Vec::new());
                    missing.push(RowTarget { text, row, shape, more, ticket });
                }
            }
        }
        Found { texts, missing, truncated }
    }
}
