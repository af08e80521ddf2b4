//! Rows, where they are.

use crate::connection::Connection;
use crate::elements::decoded;
use crate::segment::MappedRows;
use emberd_protocol::{ElementType, Embedded, QuantizationRanges, SlotRef};
use std::fmt;
use std::slice::ChunksExact;
use std::sync::{Arc, OnceLock, Weak};

/// One row of numbers for each text, in the order of the texts.
///
/// Owned, and free to go to other threads. A large result is read where the daemon wrote it; its
/// memory goes back to the daemon when this is dropped, and counts against the connection's
/// credit until then. It stays readable after the daemon or the connection has ended.
///
/// Rows that were asked for as smaller elements ([`Embeddings::element`]) are best read as such
/// ([`Embeddings::as_bytes`], [`Embeddings::as_i8`]). Read as floats they are what the elements
/// stand for: decoded once, when they are first read so.
pub struct Embeddings {
    rows: usize,
    dimension: usize,
    element: ElementType,
    ranges: Option<QuantizationRanges>,
    /// Of other elements than 32-bit floats.
    decoded: OnceLock<Vec<f32>>,
    tokens: u64,
    truncated: Vec<u32>,
    values: Values,
}

pub(crate) enum Values {
    Inline(Vec<f32>),
    /// Of other elements than 32-bit floats.
    InlineBytes(Vec<u8>),
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
    /// The caller has checked that the values are as many as the answer says, and so are the ranges.
    pub(crate) fn new(answer: Embedded, values: Values) -> Self {
        Self {
            rows: answer.rows as usize,
            dimension: answer.dimension as usize,
            element: answer.element,
            ranges: answer.ranges,
            decoded: OnceLock::new(),
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

    /// Values in a row; bits, where they are packed.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// What a value is.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// What the numbers of rows of [`ElementType::I8`] and [`ElementType::U8`] stand for. Asked for
    /// again with these ([`EmbedOptions::ranges`](crate::EmbedOptions)), further rows can be compared
    /// with these.
    #[must_use]
    pub fn ranges(&self) -> Option<&QuantizationRanges> {
        self.ranges.as_ref()
    }

    /// All values as 32-bit floats, row behind row. Other elements are decoded when this is first
    /// called: halves are widened, quantised numbers become what they stand for, and bits 1 or -1.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        if self.element != ElementType::F32 {
            return self.decoded.get_or_init(|| {
                decoded(self.as_bytes(), self.dimension, self.element, self.ranges.as_ref())
            });
        }
        match &self.values {
            Values::Inline(values) => values,
            Values::InlineBytes(bytes) => bytemuck::cast_slice(bytes),
            Values::Shared(shared) => bytemuck::cast_slice(shared.rows.as_bytes()),
        }
    }

    /// All elements as they came, little-endian, row behind row.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.values {
            Values::Inline(values) => bytemuck::cast_slice(values),
            Values::InlineBytes(bytes) => bytes,
            Values::Shared(shared) => shared.rows.as_bytes(),
        }
    }

    /// The elements of the row of a text as they came, or `None` behind the last.
    #[must_use]
    pub fn row_bytes(&self, index: usize) -> Option<&[u8]> {
        let columns = u32::try_from(self.dimension).ok()?;
        let len = usize::try_from(self.element.row_bytes(columns)).ok()?;
        let start = index.checked_mul(len)?;
        (index < self.rows).then(|| &self.as_bytes()[start..start + len])
    }

    /// All elements as signed bytes, if they are such: [`ElementType::I8`] and
    /// [`ElementType::Binary`].
    #[must_use]
    pub fn as_i8(&self) -> Option<&[i8]> {
        match self.element {
            ElementType::I8 | ElementType::Binary => Some(bytemuck::cast_slice(self.as_bytes())),
            _ => None,
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

    /// A copy of all values as 32-bit floats; see [`Embeddings::as_slice`].
    #[must_use]
    pub fn to_vec(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }

    /// All values as a vector of their own; shared memory is given back at once.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        match self.values {
            Values::Inline(values) => values,
            _ => self.to_vec(),
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
