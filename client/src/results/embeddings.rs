//! Rows of numbers, in a response or in shared memory.

use super::elements::decoded;
use crate::segment::MappedRows;
use emberd_protocol::{ElementType, Embedded, QuantizationRanges, SlotRef};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::slice::ChunksExact;
use std::sync::{OnceLock, Weak};

/// One row of numbers for each text, in the order of the texts.
///
/// An `Embeddings` owns its rows and may move to other threads. A large result is read where the
/// daemon wrote it: the memory counts against the connection's credit until this is dropped, and
/// then goes back to the daemon. The rows stay readable after the daemon or the connection ended.
///
/// Rows that were requested as smaller elements ([`Embeddings::element`]) are best read as such
/// ([`Embeddings::as_bytes`], [`Embeddings::as_i8`]). Reading them as floats decodes them: once,
/// the first time.
pub struct Embeddings {
    rows: usize,
    dimension: usize,
    element: ElementType,
    ranges: Option<QuantizationRanges>,
    /// Set on demand, for elements other than 32-bit floats.
    decoded: OnceLock<Vec<f32>>,
    tokens: u64,
    truncated: Vec<u32>,
    values: Values,
}

impl Embeddings {
    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The number of values in a row; for packed elements, the number of bits.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The type of the values.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// How to decode rows of [`ElementType::I8`] and [`ElementType::U8`]. Request further rows with
    /// the same ranges ([`EmbedOptions::ranges`](crate::EmbedOptions)) to compare them with these.
    #[must_use]
    pub fn ranges(&self) -> Option<&QuantizationRanges> {
        self.ranges.as_ref()
    }

    /// All values as 32-bit floats, one row after the other. The first call decodes other elements:
    /// half floats are widened, quantised numbers are scaled by their column's range, and bits
    /// become 1 or -1.
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
            Values::Shared { rows, .. } => bytemuck::cast_slice(rows.as_bytes()),
        }
    }

    /// All elements as they came, little-endian, one row after the other.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.values {
            Values::Inline(values) => bytemuck::cast_slice(values),
            Values::InlineBytes(bytes) => bytes,
            Values::Shared { rows, .. } => rows.as_bytes(),
        }
    }

    /// The elements of a text's row as they came, or `None` if the position is out of range.
    #[must_use]
    pub fn row_bytes(&self, index: usize) -> Option<&[u8]> {
        let columns = u32::try_from(self.dimension).ok()?;
        let len = usize::try_from(self.element.row_bytes(columns)).ok()?;
        let start = index.checked_mul(len)?;
        (index < self.rows).then(|| &self.as_bytes()[start..start + len])
    }

    /// All elements as signed bytes, if that is their type: [`ElementType::I8`] and
    /// [`ElementType::Binary`].
    #[must_use]
    pub fn as_i8(&self) -> Option<&[i8]> {
        match self.element {
            ElementType::I8 | ElementType::Binary => Some(bytemuck::cast_slice(self.as_bytes())),
            ElementType::F32 | ElementType::F16 | ElementType::U8 | ElementType::Ubinary => None,
        }
    }

    /// The row of the text at a position.
    ///
    /// # Panics
    /// When the position is out of range, as indexing a slice does.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        match self.get(index) {
            Some(row) => row,
            None => panic!("row {index} of {} rows", self.rows),
        }
    }

    /// The row of the text at a position, or `None` if the position is out of range.
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

    /// All values as a vector; shared memory goes back to the daemon at once.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        match self.values {
            Values::Inline(values) => values,
            Values::InlineBytes(_) | Values::Shared { .. } => self.to_vec(),
        }
    }

    /// The texts (by position, ascending) that were longer than the model's limit and lost their
    /// end.
    #[must_use]
    pub fn truncated(&self) -> &[u32] {
        &self.truncated
    }

    /// How many tokens were computed for these rows.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Whether the rows are in shared memory.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.values, Values::Shared { .. })
    }

    /// The caller has checked that values and ranges have the sizes that the response requires.
    pub(crate) fn new(response: Embedded, values: Values) -> Self {
        Self {
            rows: response.rows as usize,
            dimension: response.dimension as usize,
            element: response.element,
            ranges: response.ranges,
            decoded: OnceLock::new(),
            tokens: response.tokens,
            truncated: response.truncated,
            values,
        }
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

/// The values of all rows.
pub(crate) enum Values {
    /// 32-bit floats.
    Inline(Vec<f32>),
    /// Other elements.
    InlineBytes(Vec<u8>),
    /// Elements in a slot of a segment.
    Shared {
        rows: MappedRows,
        /// Frees the slot when the rows are dropped.
        #[expect(dead_code, reason = "held for its drop")]
        slot: SlotGuard,
    },
}

impl Values {
    /// The client's own copy of elements, little-endian. Floats move to memory that is aligned for
    /// them.
    pub(crate) fn copied(element: ElementType, bytes: Vec<u8>) -> Self {
        match element {
            ElementType::F32 => Self::Inline(
                bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            ),
            ElementType::F16
            | ElementType::I8
            | ElementType::U8
            | ElementType::Binary
            | ElementType::Ubinary => Self::InlineBytes(bytes),
        }
    }
}

/// A connection that handed out a slot and takes it back.
pub(crate) trait SlotOwner: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Gives a slot back to the daemon. Never blocks.
    fn free(&self, slot: SlotRef);
}

/// A slot that is being read. Frees it when dropped, if its connection still exists.
pub(crate) struct SlotGuard {
    slot: SlotRef,
    owner: Weak<dyn SlotOwner>,
}

impl SlotGuard {
    pub(crate) fn new(slot: SlotRef, owner: Weak<dyn SlotOwner>) -> Self {
        Self { slot, owner }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.free(self.slot);
        }
    }
}
