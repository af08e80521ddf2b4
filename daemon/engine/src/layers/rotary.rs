//! Rotary positions: pairs of values of a head are rotated by an angle that grows with the position.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Tensor, bail};

use crate::layers::portable;
use crate::layers::storage::values_mut;

/// The angles of one base frequency. Sines and cosines are computed up to the longest text seen, and
/// shared by the workers.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// The angle between neighbouring positions, for each pair of values.
    steps: Vec<f32>,
    table: Mutex<Arc<RotaryTable>>,
}

/// Cosines and sines, by position.
#[derive(Debug, Default)]
pub(crate) struct RotaryTable {
    /// Pairs of values that are rotated.
    pairs: usize,
    /// For each position, a cosine and a sine for each pair.
    cosines: Vec<f32>,
    sines: Vec<f32>,
    /// The same as tensors, `[positions, pairs]`, once a layer has needed them. All layers of a model are
    /// on one device.
    tensors: OnceLock<[Tensor; 2]>,
}

/// The heads of a row that are rotated: the first `heads` heads, of `head_width` values each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RotatedHeads {
    pub(crate) heads: usize,
    pub(crate) head_width: usize,
}

impl Rotary {
    /// Rotates the first `width` values of a head; the slowest pair by almost `1 / base` a position.
    pub(crate) fn new(base: f32, width: usize) -> Self {
        // In f32 and in this order, as the models were trained.
        let step = |pair: usize| 1.0 / base.powf(as_f32(2 * pair) / as_f32(width));
        Self { steps: (0..width / 2).map(step).collect(), table: Mutex::default() }
    }

    /// The table for sequences of up to `positions` tokens.
    pub(crate) fn table(&self, positions: usize) -> Arc<RotaryTable> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = self.steps.len();
        if table.cosines.len() < positions * pairs {
            // Rounded up, so that texts that grow by one token do not recompute the table each time.
            let positions = positions.next_power_of_two();
            let angles = || {
                (0..positions).flat_map(|at| self.steps.iter().map(move |step| as_f32(at) * step))
            };
            let cosines = angles().map(f32::cos).collect();
            let sines = angles().map(f32::sin).collect();
            *table = Arc::new(RotaryTable { pairs, cosines, sines, tensors: OnceLock::new() });
        }
        Arc::clone(&table)
    }
}

impl RotaryTable {
    /// Rotates heads of packed sequences of these lengths, in place.
    pub(crate) fn forward(
        &self,
        rows: &Tensor,
        rotated: RotatedHeads,
        lengths: &[usize],
    ) -> Result<()> {
        let rotation = Rotation { table: self, rotated, lengths };
        if portable::is_for(rows.device()) {
            rotation.check(rows.layout())?;
            let [cosines, sines] = self.tensors(rows.device())?;
            let mut positions = Vec::with_capacity(rows.dim(0)?);
            for &len in lengths {
                positions.extend(0..u32::try_from(len)?);
            }
            let cosines = portable::rows(cosines, positions.clone())?;
            let sines = portable::rows(sines, positions)?;
            return portable::rotary(rows, rotated.heads, rotated.head_width, &cosines, &sines);
        }
        rows.inplace_op1(&rotation)
    }

    fn tensors(&self, device: &Device) -> Result<&[Tensor; 2]> {
        if let Some(tables) = self.tensors.get() {
            return Ok(tables);
        }
        let shape = (self.cosines.len() / self.pairs.max(1), self.pairs);
        let table = |values: &[f32]| Tensor::from_slice(values, shape, device);
        let tables = [table(&self.cosines)?, table(&self.sines)?];
        Ok(self.tensors.get_or_init(|| tables))
    }
}

struct Rotation<'a> {
    table: &'a RotaryTable,
    rotated: RotatedHeads,
    lengths: &'a [usize],
}

impl Rotation<'_> {
    /// Checks the shapes. Returns the number of values of a row.
    fn check(&self, layout: &Layout) -> Result<usize> {
        let (count, stride) = layout.shape().dims2()?;
        let RotatedHeads { heads, head_width } = self.rotated;
        let RotaryTable { pairs, cosines, .. } = self.table;
        let longest = self.lengths.iter().max().copied().unwrap_or(0);
        let is_empty = count == 0 && longest == 0;
        if !is_empty
            && (count != self.lengths.iter().sum::<usize>()
                || stride < heads * head_width
                || !(1..=head_width / 2).contains(pairs)
                || cosines.len() < longest * pairs)
        {
            bail!("rotary of {heads} heads of {head_width}: got {layout:?}");
        }
        Ok(stride)
    }
}

impl InplaceOp1 for Rotation<'_> {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, rows: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let RotatedHeads { heads, head_width } = self.rotated;
        let RotaryTable { pairs, cosines, sines, .. } = self.table;
        let stride = self.check(layout)?;
        if self.lengths.iter().all(|&len| len == 0) {
            return Ok(());
        }
        let mut rows = values_mut(rows, layout)?.chunks_exact_mut(stride);
        for &len in self.lengths {
            let angles = cosines.chunks_exact(*pairs).zip(sines.chunks_exact(*pairs));
            for (row, (cosines, sines)) in rows.by_ref().take(len).zip(angles) {
                for head in row.chunks_exact_mut(head_width).take(heads) {
                    let (first, second) = head[..2 * pairs].split_at_mut(*pairs);
                    for (((x, y), cos), sin) in first.iter_mut().zip(second).zip(cosines).zip(sines)
                    {
                        (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
                    }
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "positions and widths are far below 2^24")]
fn as_f32(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{Device, Tensor};

    use super::{Rotary, RotatedHeads};

    #[test]
    fn pairs_are_rotated_by_position_and_other_columns_are_unchanged() {
        let rotary = Rotary::new(100.0, 4);
        let row = [1f32, 0.0, 0.0, 1.0, 7.0, 1.0, 0.0, 0.0, 0.0, 7.0, 3.0, 3.0];
        let rows = Tensor::new(&[row, row, row], &Device::Cpu).unwrap();
        let rotated = RotatedHeads { heads: 2, head_width: 5 };
        rotary.table(2).forward(&rows, rotated, &[1, 2]).unwrap();
        let rows = rows.to_vec2::<f32>().unwrap();
        assert_eq!(rows[0], row);
        assert_eq!(rows[1], row, "a sequence starts anew");
        // At position 1 the first pair is rotated by 1, the second by 1 / sqrt(100).
        let (a, b) = (1f32.sin_cos(), 0.1f32.sin_cos());
        let want = [a.1, -b.0, a.0, b.1, 7.0, a.1, 0.0, a.0, 0.0, 7.0, 3.0, 3.0];
        for (got, want) in rows[2].iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{:?} is not {want:?}", rows[2]);
        }
    }

    #[test]
    fn angles_are_computed_once_for_all_lengths_that_they_reach() {
        let rotary = Rotary::new(100.0, 4);
        let table = rotary.table(5);
        assert!(Arc::ptr_eq(&table, &rotary.table(8)));
        assert!(!Arc::ptr_eq(&table, &rotary.table(9)));
        let rows = Tensor::zeros((9, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(table.forward(&rows, RotatedHeads { heads: 1, head_width: 4 }, &[9]).is_err());
    }
}
