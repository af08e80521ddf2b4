//! Normalisation of rows, with and without a mean.

use pulp::Arch;

use crate::engine::layers::math::sum_by;

/// What makes a row comparable with others.
#[derive(Debug)]
pub(super) enum Norm {
    /// Divides by the root mean square: T5.
    RootMeanSquare { weight: Vec<f32>, epsilon: f32 },
    /// Subtracts the mean too: BART.
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
}

impl Norm {
    /// Normalises rows where they lie.
    pub(super) fn rows(&self, rows: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || match self {
                Self::RootMeanSquare { weight, epsilon } => {
                    for row in rows.chunks_exact_mut(weight.len()) {
                        let mean = sum_by(row, |x| x * x) / as_f32(row.len());
                        let scale = 1.0 / (mean + epsilon).sqrt();
                        for (x, w) in row.iter_mut().zip(weight) {
                            *x *= scale * w;
                        }
                    }
                }
                Self::Layer { weight, bias, epsilon } => {
                    for row in rows.chunks_exact_mut(weight.len()) {
                        normalize(row, weight, bias, *epsilon);
                    }
                }
            },
        );
    }
}

/// In two passes: the difference of two large sums would lose the digits that are asked for.
#[inline(always)]
fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let len = as_f32(row.len());
    let mean = sum_by(row, |x| x) / len;
    let variance = sum_by(row, |x| (x - mean) * (x - mean)) / len;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * scale * w + b;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
#[inline(always)]
fn as_f32(width: usize) -> f32 {
    width as f32
}

#[cfg(test)]
mod tests {
    use super::Norm;

    #[test]
    fn rows_are_divided_by_their_root_mean_square() {
        let norm = Norm::RootMeanSquare { weight: vec![1.0, 2.0], epsilon: 0.0 };
        let mut rows = [3.0, -3.0, 0.0, 2.0];
        norm.rows(&mut rows);
        assert_eq!(rows, [1.0, -2.0, 0.0, 2.0 * 2f32.sqrt()]);
    }

    #[test]
    fn rows_lose_their_mean_and_their_deviation() {
        let norm = Norm::Layer { weight: vec![2.0; 2], bias: vec![1.0; 2], epsilon: 0.0 };
        let mut rows = [3.0, 5.0, -1.0, 1.0];
        norm.rows(&mut rows);
        assert_eq!(rows, [-1.0, 3.0, -1.0, 3.0]);
    }
}
