//! The geometry of tensors that are not row-major: transposed ones, and parts of larger ones.

use std::ops::Range;

/// How the values of a tensor lie in the file. No two of them overlap, so a tensor never has more
/// values than the file has room for.
#[derive(Debug, Clone)]
pub(super) struct Strides {
    /// Elements from one step of a dimension to the next.
    strides: Vec<usize>,
    /// Elements from the first to the last, both included.
    extent: usize,
}

/// A dimension of a tensor, or of some rows of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dimension {
    pub(super) size: usize,
    /// Elements from one step to the next in the file.
    pub(super) stride: usize,
    /// Elements from one step to the next among the values that are read.
    pub(super) step: usize,
}

/// Some rows of a tensor, as runs of elements at equal distances.
#[derive(Debug)]
pub(super) struct Walk {
    /// The first element in the file.
    first: usize,
    pub(super) run: Dimension,
    /// The dimensions around it, ascending by their stride.
    around: Vec<Dimension>,
}

impl Strides {
    /// `None`: values overlap, or lie farther apart than in any file.
    pub(super) fn of(shape: &[usize], strides: &[usize]) -> Option<Self> {
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
    pub(super) fn extent(&self) -> u64 {
        u64::try_from(self.extent).unwrap_or(u64::MAX)
    }

    /// The runs that make up some rows of a tensor of this shape.
    pub(super) fn walk(&self, shape: &[usize], rows: Range<usize>) -> Walk {
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
    /// The first element of each run, in the file and among the values that are read. Ascending in
    /// the file.
    pub(super) fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
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
