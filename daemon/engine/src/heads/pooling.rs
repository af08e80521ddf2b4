//! Pooling: from token rows to one row a text.

use crate::api::sequence::Sequence;
use crate::checkpoint::pooling::{Pooling, PoolingMode};
use crate::kernels::math::sum_by;
use crate::kernels::vectorize::vectorize;

impl Pooling {
    /// Writes `rows[i]` from the token rows of `batch[i]`, which lie one text behind another in
    /// `hidden`. The row of a text without tokens to pool is zeros: an empty text, or a prompt alone that
    /// is left out.
    pub(super) fn write(
        &self,
        hidden: &[f32],
        width: usize,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) {
        vectorize(
            #[inline(always)]
            || {
                let mut rest = hidden;
                for (sequence, row) in batch.iter().zip(&mut *rows) {
                    let (tokens, behind) = rest.split_at(sequence.ids.len() * width);
                    rest = behind;
                    for (mode, part) in self.modes.iter().zip(row.chunks_exact_mut(width)) {
                        mode.write(tokens, sequence.unpooled, part);
                    }
                }
            },
        );
    }

    /// The same as weighted sums: for each way to pool, the weights of all tokens of the batch. `None` if
    /// a way is no weighted sum.
    pub(super) fn token_weights(&self, batch: &[&Sequence]) -> Option<Vec<Vec<f32>>> {
        let weights = |mode: &PoolingMode| {
            let each = batch.iter().map(|text| mode.token_weights(text.ids.len(), text.unpooled));
            each.collect::<Option<Vec<_>>>().map(|weights| weights.concat())
        };
        self.modes.iter().map(weights).collect()
    }
}

impl PoolingMode {
    /// The weights of one text's tokens; 0 for the first `unpooled`.
    fn token_weights(self, len: usize, unpooled: usize) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; len];
        let pooled = weights.get_mut(unpooled..).unwrap_or_default();
        let count = count_as_f32(pooled.len());
        match self {
            Self::Max => return None,
            Self::Cls => weights.iter_mut().take(1).for_each(|weight| *weight = 1.0),
            Self::LastToken => pooled.iter_mut().last().into_iter().for_each(|last| *last = 1.0),
            Self::Mean => pooled.fill(1.0 / count),
            Self::MeanSqrtLen => pooled.fill(1.0 / count.sqrt()),
            Self::WeightedMean => {
                let positions = || (unpooled + 1..=len).map(count_as_f32);
                let all: f32 = positions().sum();
                pooled.iter_mut().zip(positions()).for_each(|(weight, at)| *weight = at / all);
            }
        }
        Some(weights)
    }

    /// Pools the rows of one text's tokens without the first `unpooled`.
    #[inline(always)]
    fn write(self, tokens: &[f32], unpooled: usize, row: &mut [f32]) {
        let width = row.len();
        let pooled = tokens.get(unpooled.saturating_mul(width)..).unwrap_or_default();
        let count = pooled.len() / width;
        row.fill(0.0);
        match self {
            Self::Cls => {
                if let Some(first) = tokens.get(..width) {
                    row.copy_from_slice(first);
                }
            }
            Self::LastToken => {
                if let Some(last) = pooled.rchunks_exact(width).next() {
                    row.copy_from_slice(last);
                }
            }
            Self::Max => {
                let mut tokens = pooled.chunks_exact(width);
                if let Some(first) = tokens.next() {
                    row.copy_from_slice(first);
                }
                for token in tokens {
                    row.iter_mut().zip(token).for_each(|(x, &t)| *x = if t > *x { t } else { *x });
                }
            }
            Self::Mean | Self::MeanSqrtLen => {
                for token in pooled.chunks_exact(width) {
                    row.iter_mut().zip(token).for_each(|(x, t)| *x += t);
                }
                let count = count_as_f32(count.max(1));
                scale(row, 1.0 / if self == Self::Mean { count } else { count.sqrt() });
            }
            Self::WeightedMean => {
                let mut weights = 0.0;
                for (position, token) in (unpooled + 1..).zip(pooled.chunks_exact(width)) {
                    let weight = count_as_f32(position);
                    weights += weight;
                    row.iter_mut().zip(token).for_each(|(x, t)| *x += weight * t);
                }
                if weights > 0.0 {
                    scale(row, 1.0 / weights);
                }
            }
        }
    }
}

/// Scales a row to unit length (L2 normalisation). A row of zeros stays as it is.
#[inline(always)]
pub fn normalize(row: &mut [f32]) {
    let norm = sum_by(row, |x| x * x).sqrt();
    scale(row, 1.0 / norm.max(1e-12));
}

#[inline(always)]
fn scale(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a text has far fewer than 2^24 tokens")]
#[inline(always)]
fn count_as_f32(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests;
