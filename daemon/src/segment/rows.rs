//! Where the engine writes a result: row by row, from any thread, into its last home.

use crate::segment::{SegmentError, Slot};
use emberd_protocol::SlotRef;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// The home of one result: a slot of shared memory, or the heap for one that goes inline.
///
/// Its rows are given out once, written by whoever has them, and gone before it is finished.
/// Dropped before that, it frees its slot as soon as the last row is gone too.
#[derive(Debug)]
pub struct Output {
    /// Shared with every row that is out.
    home: Arc<Home>,
    rows: usize,
    dimension: usize,
    has_given_rows: bool,
}

/// The memory of a result. While rows are out, the `Arc`s around it are all that is ever touched.
#[derive(Debug)]
enum Home {
    Heap(Aligned),
    Slot(Slot),
}

/// A finished result.
#[derive(Debug)]
pub enum Finished {
    /// The values as they go behind the message.
    Inline(Vec<u8>),
    /// The client's from now on. It must be told, or the slot is lost until the connection ends.
    Slot(SlotRef),
    /// The rows could not be written where the client would read them.
    Lost(SegmentError),
}

impl Output {
    /// A home on the heap, all zero.
    ///
    /// # Panics
    /// When so many values have no place in any address space. The caller has checked the size.
    #[must_use]
    pub fn heap(rows: usize, dimension: usize) -> Self {
        let len = len_bytes(rows, dimension).unwrap_or(usize::MAX);
        Self::new(Home::Heap(Aligned::new(len)), rows, dimension)
    }

    /// A home in a slot that was reserved for just these rows.
    ///
    /// # Errors
    /// [`SegmentError::Shape`] for a slot of another size, which is freed.
    pub fn slot(slot: Slot, rows: usize, dimension: usize) -> Result<Self, SegmentError> {
        let slot_bytes = slot.len_bytes();
        if len_bytes(rows, dimension).is_none_or(|len| len as u64 != slot_bytes) {
            return Err(SegmentError::Shape { rows, dimension, slot_bytes });
        }
        Ok(Self::new(Home::Slot(slot), rows, dimension))
    }

    fn new(home: Home, rows: usize, dimension: usize) -> Self {
        Self { home: Arc::new(home), rows, dimension, has_given_rows: false }
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

    /// Every row, in order, the first time; afterwards none.
    pub fn take_rows(&mut self) -> Vec<Row> {
        if std::mem::replace(&mut self.has_given_rows, true) {
            return Vec::new();
        }
        let Some(home) = Arc::get_mut(&mut self.home) else { return Vec::new() };
        let values = match home {
            Home::Heap(buffer) => buffer.values_mut(),
            Home::Slot(slot) => bytemuck::cast_slice_mut(slot.bytes()),
        };
        // `chunks_exact_mut` is what makes the rows disjoint.
        let starts: Vec<NonNull<[f32]>> = if self.dimension == 0 {
            (0..self.rows).map(|_| NonNull::from(&mut [][..])).collect()
        } else {
            values.chunks_exact_mut(self.dimension).map(NonNull::from).collect()
        };
        let keep = |values| Row { values: RowValues(values), _home: Arc::clone(&self.home) };
        starts.into_iter().map(keep).collect()
    }

    /// The values, once every row is gone; `None` while one is out.
    pub fn values(&mut self) -> Option<&[f32]> {
        Some(match Arc::get_mut(&mut self.home)? {
            Home::Heap(buffer) => buffer.values_mut(),
            Home::Slot(slot) => bytemuck::cast_slice_mut(slot.bytes()),
        })
    }

    /// Turns the written rows into what is sent.
    ///
    /// # Errors
    /// Itself, while rows are still out.
    pub fn finish(self) -> Result<Finished, Self> {
        let Self { home, rows, dimension, has_given_rows } = self;
        match Arc::try_unwrap(home) {
            Ok(Home::Heap(buffer)) => Ok(Finished::Inline(buffer.into_bytes())),
            Ok(Home::Slot(slot)) => Ok(slot.hand_over()),
            Err(home) => Err(Self { home, rows, dimension, has_given_rows }),
        }
    }
}

fn len_bytes(rows: usize, dimension: usize) -> Option<usize> {
    rows.checked_mul(dimension)?.checked_mul(size_of::<f32>())
}

/// One row of an [`Output`], to be written from any thread. Keeps its memory alive and reserved.
#[derive(Debug)]
pub struct Row {
    values: RowValues,
    _home: Arc<Home>,
}

#[derive(Debug)]
struct RowValues(NonNull<[f32]>);

// SAFETY: stands for a `&mut [f32]`, which is `Send`: it was made from one by `take_rows`, its
// memory is kept by the `Arc` beside it, and there is no second one to the same values.
unsafe impl Send for RowValues {}
// SAFETY: `&RowValues` gives no access to the values.
unsafe impl Sync for RowValues {}

impl Row {
    /// The values: zero or an earlier result until they are written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: the pointer comes from a `&mut [f32]` of `take_rows`, which makes one for each
        // row, none overlapping (`chunks_exact_mut`), and does so once in an output's life. The
        // memory behind it is neither moved, freed nor reached in another way while `_home` is
        // shared: `Home` is opened again by `Arc::try_unwrap` alone, after the last row is gone.
        unsafe { self.values.0.as_mut() }
    }
}

/// Bytes on the heap that can be seen as floats, and are given away without a copy.
struct Aligned {
    /// `padding` bytes that are not used, then the values.
    bytes: Vec<u8>,
    padding: usize,
}

/// Tells the length alone: the bytes may be in the hands of rows, which other threads write.
impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aligned").field("len_bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Aligned {
    fn new(len: usize) -> Self {
        // A `Vec<u8>` may begin anywhere, and a `Vec<f32>` cannot become one. In practice
        // allocators align everything of this size, and the padding is 0.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn rows_written_by_many_threads_come_out_in_order() {
        let mut output = Output::heap(1000, 3);
        let rows = output.take_rows();
        assert_eq!(rows.len(), 1000);
        assert!(output.take_rows().is_empty(), "each row once");
        thread::scope(|scope| {
            for (chunk, mut rows) in chunks(rows, 100).into_iter().enumerate() {
                scope.spawn(move || {
                    for (index, row) in rows.iter_mut().enumerate() {
                        row.as_mut_slice().fill((chunk * 100 + index) as f32);
                    }
                });
            }
        });
        let Ok(Finished::Inline(bytes)) = output.finish() else { panic!("not inline") };
        let expected: Vec<u8> =
            (0..1000).flat_map(|row| (row as f32).to_le_bytes().repeat(3)).collect();
        assert_eq!(bytes, expected);
    }

    fn chunks(rows: Vec<Row>, size: usize) -> Vec<Vec<Row>> {
        let mut rows = rows.into_iter();
        std::iter::from_fn(|| Some(rows.by_ref().take(size).collect::<Vec<_>>()))
            .take_while(|chunk| !chunk.is_empty())
            .collect()
    }

    #[test]
    fn an_output_is_not_finished_before_its_last_row() {
        let mut output = Output::heap(2, 1);
        let mut rows = output.take_rows();
        rows.pop();
        let mut output = output.finish().unwrap_err();
        assert_eq!(output.values(), None);
        rows.pop();
        assert_eq!(output.values(), Some(&[0.0; 2][..]));
        assert!(matches!(output.finish(), Ok(Finished::Inline(bytes)) if bytes == [0; 8]));
    }

    #[test]
    fn empty_shapes_are_well_behaved() {
        for (rows, dimension) in [(0, 0), (0, 5), (5, 0)] {
            let mut output = Output::heap(rows, dimension);
            let mut taken = output.take_rows();
            assert_eq!(taken.len(), rows);
            for row in &mut taken {
                assert_eq!(row.as_mut_slice().len(), 0);
            }
            drop(taken);
            assert!(matches!(output.finish(), Ok(Finished::Inline(bytes)) if bytes.is_empty()));
        }
    }

    #[test]
    fn unaligned_memory_is_moved_into_place() {
        let mut aligned = Aligned::new(8);
        // As if the allocator had given an odd address.
        aligned.bytes = vec![9, 1, 2, 3, 4, 5, 6, 7, 8];
        aligned.padding = 1;
        assert_eq!(aligned.into_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn debugging_an_output_does_not_read_its_values() {
        let mut output = Output::heap(1, 1000);
        let rows = output.take_rows();
        assert!(format!("{output:?} {rows:?}").len() < 400);
    }

    #[test]
    fn a_row_is_small() {
        assert_eq!(size_of::<Row>(), 3 * size_of::<usize>());
    }
}
