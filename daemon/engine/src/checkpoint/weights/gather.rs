//! Reads tensors that are not row-major.
//!
//! Values are taken in the order in which they lie in the file: each byte is read at most once,
//! whatever the strides, and in large pieces.

use std::ops::Range;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::entry::{TensorEntry, len_u64};
use crate::checkpoint::weights::file::{PIECE_BYTES, TensorFile};
use crate::checkpoint::weights::strides::{Dimension, Strides};

/// If a run of wanted bytes is this long, only the run is read. After a shorter one, the bytes that
/// follow are probably wanted as well.
const LONG_RUN_BYTES: u64 = 4096;

impl TensorFile {
    /// Reads some rows of a tensor with elements `T` and converts them one by one.
    ///
    /// The tensor has these rows, and `values` has the length of all of them together.
    pub(super) fn gather<T: bytemuck::AnyBitPattern, V>(
        &self,
        entry: &TensorEntry,
        strides: &Strides,
        rows: Range<usize>,
        values: &mut [V],
        mut convert: impl FnMut(T) -> V,
    ) -> Result<(), LoadError> {
        let walk = strides.walk(&entry.shape, rows);
        let Dimension { size, stride, step } = walk.run;
        if values.is_empty() {
            return Ok(());
        }
        // The bounds were checked against the file's length when the tensor was found.
        let offset_of = |element: u64| entry.start + element * len_u64(size_of::<T>());
        let end = offset_of(strides.extent());
        let mut piece = Vec::new();
        let mut piece_start = 0;
        for (first, target) in walk.runs() {
            let run_end = offset_of(len_u64(first + (size - 1) * stride + 1));
            for i in 0..size {
                let start = offset_of(len_u64(first + i * stride));
                if start + len_u64(size_of::<T>()) > piece_start + len_u64(piece.len()) {
                    let is_long = run_end - start >= LONG_RUN_BYTES;
                    let left = if is_long { run_end } else { end } - start;
                    piece.resize(usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES), 0);
                    self.read_at(&mut piece, start)?;
                    piece_start = start;
                }
                let at = usize::try_from(start - piece_start).unwrap_or(usize::MAX);
                let element = bytemuck::pod_read_unaligned(&piece[at..at + size_of::<T>()]);
                values[target + i * step] = convert(element);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
