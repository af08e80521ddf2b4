//! Tensors that do not lie row by row: transposed ones, and parts of larger ones.
//!
//! Their values are taken in the order in which they lie in the file and go to their places from
//! there: each byte is read once at most, whatever the strides, and in large pieces.

use std::ops::Range;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::file::{Entry, PIECE_BYTES, TensorFile, len_u64};

/// Where so many bytes are wanted one after the other no more than these are read; else what follows
/// is probably wanted, too.
const LONG_RUN_BYTES: u64 = 4096;

/// How the values of a tensor lie. No two of them share their place, so that there are never more of
/// them than the file has memory for.
#[derive(Debug, Clone)]
pub(crate) struct Strides {
    /// Elements from one step of a dimension to the next.
    strides: Vec<usize>,
    /// Elements from the first to the last, both included.
    extent: usize,
}

/// A dimension of a tensor, or of some rows of it.
#[derive(Debug, Clone, Copy)]
struct Dimension {
    size: usize,
    /// Elements from one step to the next where it lies.
    stride: usize,
    /// The same among the values that are read.
    step: usize,
}

/// Some rows of a tensor, as runs of elements at equal distances.
#[derive(Debug)]
struct Walk {
    /// Where the first element lies.
    first: usize,
    run: Dimension,
    /// The dimensions around it, ascending by their stride.
    around: Vec<Dimension>,
}

impl Strides {
    /// `None`: values share their place, or lie too far from each other for any file.
    pub(crate) fn of(shape: &[usize], strides: &[usize]) -> Option<Self> {
        if shape.len() != strides.len() {
            return None;
        }
        let mut dimensions: Vec<(usize, usize)> =
            strides.iter().copied().zip(shape.iter().copied()).filter(|(_, n)| *n > 1).collect();
        dimensions.sort_unstable();
        let mut extent: usize = 1;
        for (stride, size) in dimensions {
            if stride < extent {
                return None;
            }
            extent = stride.checked_mul(size - 1)?.checked_add(extent)?;
        }
        Some(Self { strides: strides.to_vec(), extent })
    }

    /// Elements from the first to the last, both included.
    pub(crate) fn extent(&self) -> u64 {
        len_u64(self.extent)
    }

    fn walk(&self, shape: &[usize], rows: Range<usize>) -> Walk {
        let mut first = 0;
        let mut step = 1;
        let mut dimensions = Vec::new();
        for (at, (&size, &stride)) in shape.iter().zip(&self.strides).enumerate().rev() {
            let size = if at == 0 { rows.len() } else { size };
            first = if at == 0 { rows.start * stride } else { first };
            if size != 1 {
                dimensions.push(Dimension { size, stride, step });
            }
            step *= size;
        }
        dimensions.sort_unstable_by_key(|dimension| dimension.stride);
        let around = dimensions.split_off(dimensions.len().min(1));
        let one = Dimension { size: 1, stride: 1, step: 1 };
        Walk { first, run: dimensions.pop().unwrap_or(one), around }
    }
}

impl Walk {
    /// Where each run begins, in the file and among the values that are read; ascending in the file.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.around.iter().map(|dimension| dimension.size).product();
        (0..count).map(|mut number: usize| {
            let mut run = (self.first, 0);
            for Dimension { size, stride, step } in &self.around {
                run.0 += number % size * stride;
                run.1 += number % size * step;
                number /= size;
            }
            run
        })
    }
}

impl TensorFile {
    /// Reads some rows of a tensor whose elements are `T`, and converts them one by one.
    ///
    /// `values` has as many as there are in these rows, which are rows of the tensor.
    pub(crate) fn gather<T: bytemuck::AnyBitPattern, V>(
        &self,
        entry: &Entry,
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
        // All places were compared with the file's length when the tensor was found.
        let place_of = |element: usize| entry.start + len_u64(element) * len_u64(size_of::<T>());
        let end = place_of(strides.extent);
        let mut piece = Vec::new();
        let mut piece_start = 0;
        for (first, place) in walk.runs() {
            let run_end = place_of(first + (size - 1) * stride + 1);
            for i in 0..size {
                let start = place_of(first + i * stride);
                if start + len_u64(size_of::<T>()) > piece_start + len_u64(piece.len()) {
                    let is_long = run_end - start >= LONG_RUN_BYTES;
                    let left = if is_long { run_end } else { end } - start;
                    piece.resize(usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES), 0);
                    self.read_at(&mut piece, start)?;
                    piece_start = start;
                }
                let at = usize::try_from(start - piece_start).unwrap_or(usize::MAX);
                let element = bytemuck::pod_read_unaligned(&piece[at..at + size_of::<T>()]);
                values[place + i * step] = convert(element);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, prop_assert, prop_assert_eq, proptest};
    use proptest::strategy::Strategy;

    /// A shape, an order of its dimensions, gaps between their steps, and rows.
    fn tensors() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, Vec<usize>, (usize, usize))> {
        proptest::collection::vec(1usize..6, 1..5).prop_flat_map(|shape| {
            let order = Just((0..shape.len()).collect::<Vec<_>>()).prop_shuffle();
            let gaps = proptest::collection::vec(0usize..3, shape.len());
            let rows = (0..=shape[0], 0..=shape[0]);
            (Just(shape), order, gaps, rows)
        })
    }

    /// Elements of the file before the tensor.
    const BEFORE: usize = 5;

    fn file_of(elements: usize) -> (tempfile::NamedTempFile, TensorFile) {
        let numbers = (0..BEFORE + elements).map(|number| u32::try_from(number).unwrap());
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let opened = TensorFile::open(file.path()).unwrap();
        (file, opened)
    }

    fn read(
        file: &TensorFile,
        shape: &[usize],
        strides: &Strides,
        rows: Range<usize>,
    ) -> Vec<usize> {
        let entry = Entry {
            dtype: "U32".into(),
            shape: shape.to_vec(),
            strides: Some(strides.clone()),
            start: 4 * BEFORE as u64,
            len_bytes: 0,
        };
        let mut values = vec![usize::MAX; rows.len() * shape[1..].iter().product::<usize>()];
        let number = |element: u32| u32::from_le(element) as usize - BEFORE;
        file.gather(&entry, strides, rows, &mut values, number).unwrap();
        values
    }

    proptest! {
        #[test]
        fn every_value_comes_to_its_place(
            (shape, order, gaps, (from, to)) in tensors()
        ) {
            let mut sizes = vec![0; shape.len()];
            let mut next = 1;
            for (at, gap) in order.iter().zip(gaps) {
                sizes[*at] = next + gap;
                next = (next + gap) * shape[*at];
            }
            let strides = Strides::of(&shape, &sizes).unwrap();
            prop_assert!(strides.extent <= next);
            let (_kept, file) = file_of(strides.extent);
            let rows = from.min(to)..from.max(to);
            let mut want = vec![rows.clone().map(|row| row * sizes[0]).collect::<Vec<_>>()];
            for (size, stride) in shape.iter().zip(&sizes).skip(1) {
                let last = want.last().unwrap();
                let steps = |at: &usize| (0..*size).map(move |step| *at + step * stride).collect();
                want.push(last.iter().map(steps).collect::<Vec<Vec<usize>>>().concat());
            }
            prop_assert_eq!(read(&file, &shape, &strides, rows), want.pop().unwrap());
        }
    }

    #[test]
    fn values_far_from_each_other_and_close_together_are_read_in_pieces() {
        let shape = [700, 301];
        for strides in [[1, 700], [1, 50_000], [3, 2101], [50_001, 1], [301 * 7, 7]] {
            let (_kept, file) = file_of(Strides::of(&shape, &strides).unwrap().extent);
            let of = Strides::of(&shape, &strides).unwrap();
            for rows in [0..700, 0..1, 699..700, 100..350] {
                let place = |row| (0..301).map(move |i| row * strides[0] + i * strides[1]);
                let want: Vec<usize> = rows.clone().flat_map(place).collect();
                assert!(read(&file, &shape, &of, rows) == want, "{strides:?}");
            }
        }
    }

    #[test]
    fn values_that_share_their_place_are_none() {
        let extent = |shape: &[usize], strides: &[usize]| {
            Strides::of(shape, strides).map(|strides| strides.extent)
        };
        assert_eq!(extent(&[3, 4], &[1, 3]), Some(12));
        assert_eq!(extent(&[3, 4], &[9, 2]), Some(25));
        assert_eq!(extent(&[1, 4], &[0, 1]), Some(4));
        assert_eq!(extent(&[3, 4], &[1, 0]), None);
        assert_eq!(extent(&[3, 4], &[1, 2]), None);
        assert_eq!(extent(&[3, 4], &[3, 1]), None);
        assert_eq!(extent(&[2, 2], &[1]), None);
        assert_eq!(extent(&[2, 2], &[1, usize::MAX]), None);
        assert_eq!(extent(&[usize::MAX, 2], &[2, 1]), None);
    }
}
