//! The memory that the engine writes a result to: row by row, from any thread, and without a later
//! copy.

#[cfg(test)]
mod tests;

use crate::segment::error::SegmentError;
use crate::segment::result::Finished;
use crate::segment::slot::Slot;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// The memory of one result: a slot of shared memory, or the heap for an inline result.
///
/// Its rows are taken once, written by their owners, and dropped before the output is finished. If
/// the output is dropped before that, its slot is freed when the last row is dropped too.
#[derive(Debug)]
pub struct Output {
    /// Shared with every row.
    memory: Arc<OutputMemory>,
    rows: usize,
    dimension: usize,
    has_given_rows: bool,
}

impl Output {
    /// Memory on the heap, all zero.
    ///
    /// # Panics
    /// When the values exceed the address space. The caller has checked the size.
    #[must_use]
    pub fn heap(rows: usize, dimension: usize) -> Self {
        let len = len_bytes(rows, dimension).unwrap_or(usize::MAX);
        Self::new(OutputMemory::Heap(Aligned::new(len)), rows, dimension)
    }

    /// A slot that was reserved for exactly these rows.
    ///
    /// # Errors
    /// [`SegmentError::Shape`] if the slot has another size; it is freed.
    pub fn slot(slot: Slot, rows: usize, dimension: usize) -> Result<Self, SegmentError> {
        let slot_bytes = slot.len_bytes();
        if len_bytes(rows, dimension).is_none_or(|len| len as u64 != slot_bytes) {
            return Err(SegmentError::Shape { rows, dimension, slot_bytes });
        }
        Ok(Self::new(OutputMemory::Slot(slot), rows, dimension))
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Every row, in order, the first time; none after that.
    pub fn take_rows(&mut self) -> Vec<Row> {
        if std::mem::replace(&mut self.has_given_rows, true) {
            return Vec::new();
        }
        let Some(memory) = Arc::get_mut(&mut self.memory) else { return Vec::new() };
        let values = match memory {
            OutputMemory::Heap(buffer) => buffer.values_mut(),
            OutputMemory::Slot(slot) => bytemuck::cast_slice_mut(slot.bytes()),
        };
        // `chunks_exact_mut` is what makes the rows disjoint.
        let starts: Vec<NonNull<[f32]>> = if self.dimension == 0 {
            (0..self.rows).map(|_| NonNull::from(&mut [][..])).collect()
        } else {
            values.chunks_exact_mut(self.dimension).map(NonNull::from).collect()
        };
        let keep = |values| Row { values: RowValues(values), _memory: Arc::clone(&self.memory) };
        starts.into_iter().map(keep).collect()
    }

    /// The values, once every row is dropped; `None` before that.
    pub fn values(&mut self) -> Option<&[f32]> {
        Some(match Arc::get_mut(&mut self.memory)? {
            OutputMemory::Heap(buffer) => buffer.values_mut(),
            OutputMemory::Slot(slot) => bytemuck::cast_slice_mut(slot.bytes()),
        })
    }

    /// Turns the written rows into a result to send.
    ///
    /// # Errors
    /// The output itself, while there are rows.
    pub fn finish(self) -> Result<Finished, Self> {
        let Self { memory, rows, dimension, has_given_rows } = self;
        match Arc::try_unwrap(memory) {
            Ok(OutputMemory::Heap(buffer)) => Ok(Finished::Inline(buffer.into_bytes())),
            Ok(OutputMemory::Slot(slot)) => Ok(slot.hand_over()),
            Err(memory) => Err(Self { memory, rows, dimension, has_given_rows }),
        }
    }

    fn new(memory: OutputMemory, rows: usize, dimension: usize) -> Self {
        Self { memory: Arc::new(memory), rows, dimension, has_given_rows: false }
    }
}

/// One row of an [`Output`], to be written from any thread. Keeps its memory alive and reserved.
#[derive(Debug)]
pub struct Row {
    values: RowValues,
    _memory: Arc<OutputMemory>,
}

impl Row {
    /// The values: zero, or an earlier result, until they are written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: the pointer comes from a `&mut [f32]` of `take_rows`, which makes one for each
        // row, none overlapping (`chunks_exact_mut`), and does so once in an output's life. The
        // memory behind it is neither moved, freed nor reached in another way while `_memory`
        // is shared: `OutputMemory` is opened again by `Arc::try_unwrap` alone, after the last row is gone.
        unsafe { self.values.0.as_mut() }
    }
}

/// The memory of a result. While there are rows, it is accessed only through them.
#[derive(Debug)]
enum OutputMemory {
    Heap(Aligned),
    Slot(Slot),
}

fn len_bytes(rows: usize, dimension: usize) -> Option<usize> {
    rows.checked_mul(dimension)?.checked_mul(size_of::<f32>())
}

#[derive(Debug)]
struct RowValues(NonNull<[f32]>);

// SAFETY: stands for a `&mut [f32]`, which is `Send`: it was made from one by `take_rows`, its
// the `Arc` beside it keeps the memory, and nothing else points to the same values.
unsafe impl Send for RowValues {}
// SAFETY: `&RowValues` gives no access to the values.
unsafe impl Sync for RowValues {}

/// Bytes on the heap that are aligned for floats, and can be handed on without a copy.
struct Aligned {
    /// `padding` unused bytes, then the values.
    bytes: Vec<u8>,
    padding: usize,
}

/// Shows only the length: other threads may be writing the bytes through rows.
impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aligned").field("len_bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Aligned {
    fn new(len: usize) -> Self {
        // A `Vec<u8>` may begin at any address, and a `Vec<f32>` cannot become a `Vec<u8>`. In
        // practice allocators align allocations of this size, and the padding is 0.
        let mut bytes = vec![0; len.saturating_add(align_of::<f32>() - 1)];
        let padding = bytes.as_ptr().align_offset(align_of::<f32>());
        bytes.truncate(padding + len);
        Self { bytes, padding }
    }

    fn values_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.bytes[self.padding..])
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.padding);
        self.bytes
    }
}
