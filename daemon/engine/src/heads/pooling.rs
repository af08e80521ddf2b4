//! From token rows to one row a text.

use crate::api::sequence::Sequence;
use crate::kernels::math::sum_by;
use crate::kernels::vectorize::vectorize;

/// One way to make one row of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The first token's, that of `[CLS]`. It is taken even if it belongs to a prompt that is left
    /// out, as sentence-transformers did before version 6.
    Cls,
    /// The largest value of each column.
    Max,
    /// The mean of each column.
    Mean,
    /// The sum of each column, divided by the square root of the number of tokens.
    MeanSqrtLen,
    /// The mean of each column, each token counted as often as its position from 1 on.
    WeightedMean,
    /// The last token's.
    LastToken,
}

/// Ways to make one row, whose results are joined in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pooling {
    pub(crate) modes: Vec<Mode>,
}

impl Pooling {
    /// The one that is meant where nothing is said.
    pub(crate) fn mean() -> Self {
        Self { modes: vec![Mode::Mean] }
    }

    /// Values of a row that is made of token rows of this width.
    pub(crate) fn outputs(&self, width: usize) -> usize {
        self.modes.len() * width
    }

    /// Writes `rows[i]` from the token rows of `batch[i]`, its share of `hidden`.
    ///
    /// Zeros where there is nothing to pool: no token, or none behind a prompt that is left out.
    pub(crate) fn write(
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
}

impl Pooling {
    /// For each way the share that each token's row has in the row of its text: what [`write`](Self::write)
    /// does, as sums. `None` where a way is no sum.
    pub(crate) fn shares(&self, batch: &[&Sequence]) -> Option<Vec<Vec<f32>>> {
        let shares = |mode: &Mode| {
            let each = batch.iter().map(|text| mode.shares(text.ids.len(), text.unpooled));
            each.collect::<Option<Vec<_>>>().map(|shares| shares.concat())
        };
        self.modes.iter().map(shares).collect()
    }
}

impl Mode {
    /// The shares of one text's tokens, the first `unpooled` of which are left out.
    fn shares(self, len: usize, unpooled: usize) -> Option<Vec<f32>> {
        let mut shares = vec![0.0; len];
        let pooled = shares.get_mut(unpooled..).unwrap_or_default();
        let count = count_as_f32(pooled.len());
        match self {
            Self::Max => return None,
            Self::Cls => shares.iter_mut().take(1).for_each(|share| *share = 1.0),
            Self::LastToken => pooled.iter_mut().last().into_iter().for_each(|share| *share = 1.0),
            Self::Mean => pooled.fill(1.0 / count),
            Self::MeanSqrtLen => pooled.fill(1.0 / count.sqrt()),
            Self::WeightedMean => {
                let positions = || (unpooled + 1..=len).map(count_as_f32);
                let all: f32 = positions().sum();
                pooled.iter_mut().zip(positions()).for_each(|(share, at)| *share = at / all);
            }
        }
        Some(shares)
    }

    /// Pools the rows of one text's tokens but for the first `unpooled`.
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

/// Gives a row the length 1; a row of zeros stays one.
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
mod tests {
    use super::{Mode, Pooling, normalize};
    use crate::api::sequence::Sequence;
    use crate::layers::portable;
    use candle_core::{Device, Tensor};

    /// Tokens of three texts: two, none, three of which one is of a prompt.
    const HIDDEN: [f32; 10] = [1.0, 2.0, 3.0, 6.0, 0.0, -5.0, 8.0, 7.0, -4.0, -9.0];

    fn pool(modes: &[Mode]) -> Vec<Vec<f32>> {
        let pooling = Pooling { modes: modes.to_vec() };
        let mut out = vec![vec![f32::NAN; pooling.outputs(2)]; 3];
        let mut rows: Vec<&mut [f32]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        let sequence =
            |tokens, unpooled| Sequence { ids: vec![0; tokens], unpooled, ..Sequence::default() };
        let batch = [sequence(2, 0), sequence(0, 0), sequence(3, 1)];
        pooling.write(&HIDDEN, 2, &batch.each_ref(), &mut rows);
        out
    }

    #[test]
    fn each_mode_pools_what_is_behind_the_prompt() {
        for (mode, first, third) in [
            (Mode::Cls, [1.0, 2.0], [0.0, -5.0]),
            (Mode::Max, [3.0, 6.0], [8.0, 7.0]),
            (Mode::Mean, [2.0, 4.0], [2.0, -1.0]),
            (
                Mode::MeanSqrtLen,
                [4.0 / 2f32.sqrt(), 8.0 / 2f32.sqrt()],
                [4.0 / 2f32.sqrt(), -2.0 / 2f32.sqrt()],
            ),
            (Mode::WeightedMean, [7.0 / 3.0, 14.0 / 3.0], [4.0 / 5.0, -13.0 / 5.0]),
            (Mode::LastToken, [3.0, 6.0], [-4.0, -9.0]),
        ] {
            let rows = pool(&[mode]);
            for (got, want) in [(&rows[0], first), (&rows[1], [0.0; 2]), (&rows[2], third)] {
                let close = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6);
                assert!(close, "{mode:?}: {got:?} is not {want:?}");
            }
        }
    }

    #[test]
    fn shares_of_tokens_add_up_to_what_a_mode_pools() {
        let sequence =
            |tokens, unpooled| Sequence { ids: vec![0; tokens], unpooled, ..Sequence::default() };
        // As in `pool`.
        let batch = [sequence(2, 0), sequence(0, 0), sequence(3, 1)];
        let hidden = Tensor::from_slice(&HIDDEN, (5, 2), &Device::Cpu).unwrap();
        for mode in [Mode::Cls, Mode::Mean, Mode::MeanSqrtLen, Mode::WeightedMean, Mode::LastToken]
        {
            let want = pool(&[mode, Mode::Cls]);
            let shares = Pooling { modes: vec![mode, Mode::Cls] }.shares(&batch.each_ref());
            for (i, shares) in shares.unwrap().into_iter().enumerate() {
                let got = portable::pool(&hidden, &[2, 0, 3], shares).unwrap();
                for (got, want) in got.to_vec2::<f32>().unwrap().iter().zip(&want) {
                    let close = got.iter().zip(&want[2 * i..]).all(|(a, b)| (a - b).abs() < 1e-6);
                    assert!(close, "{mode:?}: {got:?} is not {want:?}");
                }
            }
        }
        assert!(Pooling { modes: vec![Mode::Max] }.shares(&batch.each_ref()).is_none());
    }

    #[test]
    fn modes_are_joined_in_their_order() {
        let rows = pool(&[Mode::LastToken, Mode::Cls]);
        assert_eq!(rows[0], [3.0, 6.0, 1.0, 2.0]);
        assert_eq!(rows[1], [0.0; 4]);
    }

    #[test]
    fn a_prompt_without_a_text_leaves_nothing_to_pool() {
        let sequence = Sequence { ids: vec![0], unpooled: 7, ..Sequence::default() };
        for mode in [Mode::Max, Mode::Mean, Mode::WeightedMean, Mode::LastToken] {
            let mut row = [f32::NAN; 2];
            let pooling = Pooling { modes: vec![mode] };
            pooling.write(&HIDDEN[..2], 2, &[&sequence], &mut [&mut row]);
            assert_eq!(row, [0.0; 2], "{mode:?}");
        }
    }

    #[test]
    fn a_row_of_zeros_has_no_direction_to_keep() {
        let mut row = [3.0, 4.0];
        normalize(&mut row);
        assert!((row[0] - 0.6).abs() < 1e-6 && (row[1] - 0.8).abs() < 1e-6);
        let mut zero = [0.0; 2];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 2]);
    }
}
