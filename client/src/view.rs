//! Rows, where they are.

use crate::connection::Connection;
use crate::segment::MappedRows;
use emberd_protocol::{Embedded, SlotRef};
use std::fmt;
use std::slice::ChunksExact;
use std::sync::{Arc, Weak};

/// One row of numbers for each text, in the order of the texts.
///
/// Owned, and free to go to other threads. A large result is read where the daemon wrote it; its
/// memory goes back to the daemon when this is dropped, and counts against the connection's
/// credit until then. It stays readable after the daemon or the connection has ended.
pub struct Embeddings {
    rows: usize,
    dimension: usize,
    tokens: u64,
    truncated: Vec<u32>,
    values: Values,
}

pub(crate) enum Values {
    Inline(Vec<f32>),
    Shared(SharedRows),
}

/// Rows in a slot, freed when dropped.
pub(crate) struct SharedRows {
    pub(crate) rows: MappedRows,
    pub(crate) slot: SlotRef,
    pub(crate) connection: Weak<Connection>,
}

impl Drop for SharedRows {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.upgrade() {
            connection.free(self.slot);
        }
    }
}

impl Embeddings {
    /// The caller has checked that the values are as many as the answer says.
    pub(crate) fn new(answer: Embedded, values: Values) -> Self {
        Self {
            rows: answer.rows as usize,
            dimension: answer.dimension as usize,
            tokens: answer.tokens,
            truncated: answer.truncated,
            values,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Values in a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// All values, row behind row.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        match &self.values {
            Values::Inline(values) => values,
            Values::Shared(shared) => shared.rows.as_slice(),
        }
    }

    /// The row of the text at a position.
    ///
    /// # Panics
    /// When there is no such row, as indexing a slice does.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        match self.get(index) {
            Some(row) => row,
            None => panic!("row {index} of {} rows", self.rows),
        }
    }

    /// The row of the text at a position, or `None` behind the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[f32]> {
        let start = index.checked_mul(self.dimension)?;
        (index < self.rows).then(|| &self.as_slice()[start..start + self.dimension])
    }

    /// The rows in order.
    pub fn rows(&self) -> ChunksExact<'_, f32> {
        self.as_slice().chunks_exact(self.dimension.max(1))
    }

    /// A copy of all values.
    #[must_use]
    pub fn to_vec(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }

    /// All values as a vector of their own; shared memory is given back at once.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        match self.values {
            Values::Inline(values) => values,
            Values::Shared(shared) => shared.rows.as_slice().to_vec(),
        }
    }

    /// The texts (by position, ascending) that were longer than the model reads and lost their
    /// end.
    #[must_use]
    pub fn truncated(&self) -> &[u32] {
        &self.truncated
    }

    /// Tokens that were computed for these rows.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Whether the rows are in shared memory.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.values, Values::Shared(_))
    }
}

impl Values {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Inline(values) => values.len(),
            Self::Shared(shared) => shared.rows.as_slice().len(),
        }
    }

    pub(crate) fn shared(rows: MappedRows, slot: SlotRef, connection: &Arc<Connection>) -> Self {
        Self::Shared(SharedRows { rows, slot, connection: Arc::downgrade(connection) })
    }
}

impl fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embeddings")
            .field("rows", &self.rows)
            .field("dimension", &self.dimension)
            .field("is_shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}
