//! From token rows to one row a text, written where the result is wanted.

use pulp::Arch;

use super::layers::math::sum_by;

/// Which token rows make the row of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's, that of `[CLS]`.
    Cls,
}

/// What happens to the token rows of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
}

impl Head {
    /// Writes `rows[i]` from the `lengths[i]` token rows that are its share of `hidden`.
    ///
    /// A text without tokens gets zeros.
    pub(super) fn write(
        self,
        hidden: &[f32],
        width: usize,
        lengths: &[usize],
        rows: &mut [&mut [f32]],
    ) {
        let mut tokens = hidden.chunks_exact(width);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, &len) in rows.iter_mut().zip(lengths) {
                    row.fill(0.0);
                    let used = match self.pooling {
                        Pooling::Mean => len,
                        Pooling::Cls => len.min(1),
                    };
                    for (i, token) in tokens.by_ref().take(len).enumerate() {
                        if i < used {
                            add(row, token);
                        }
                    }
                    if used > 1 {
                        scale(row, 1.0 / count_as_f32(used));
                    }
                    if self.normalize {
                        normalize(row);
                    }
                }
            },
        );
    }
}

/// Gives a row the length 1; a row of zeros stays one.
#[inline(always)]
pub(crate) fn normalize(row: &mut [f32]) {
    let norm = sum_by(row, |x| x * x).sqrt();
    scale(row, 1.0 / norm.max(1e-12));
}

#[inline(always)]
fn add(row: &mut [f32], token: &[f32]) {
    for (x, t) in row.iter_mut().zip(token) {
        *x += t;
    }
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
    use super::{Head, Pooling};

    const HIDDEN: [f32; 8] = [1.0, 2.0, 3.0, 6.0, 0.0, -5.0, 8.0, 8.0];

    fn pool(pooling: Pooling, normalize: bool) -> [[f32; 2]; 3] {
        let mut out = [[f32::NAN; 2]; 3];
        let mut rows: Vec<&mut [f32]> = out.iter_mut().map(<[f32; 2]>::as_mut_slice).collect();
        Head { pooling, normalize }.write(&HIDDEN, 2, &[2, 0, 2], &mut rows);
        out
    }

    #[test]
    fn an_empty_text_is_zero() {
        assert_eq!(pool(Pooling::Mean, false), [[2.0, 4.0], [0.0, 0.0], [4.0, 1.5]]);
        assert_eq!(pool(Pooling::Cls, false), [[1.0, 2.0], [0.0, 0.0], [0.0, -5.0]]);
        assert_eq!(pool(Pooling::Cls, true)[1..], [[0.0, 0.0], [0.0, -1.0]]);
        let [x, y] = pool(Pooling::Mean, true)[0];
        assert!((x - 0.2f32.sqrt()).abs() < 1e-6 && (y - 0.8f32.sqrt()).abs() < 1e-6);
    }
}
