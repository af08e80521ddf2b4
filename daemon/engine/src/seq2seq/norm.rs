//! Normalisation of rows in slices.

use crate::kernels::vectorize::vectorize;
use crate::layers::{norm, rms_norm};

/// A normalisation with its weights.
#[derive(Debug)]
pub(super) enum RowNorm {
    /// Divides by the root mean square, as in T5.
    RootMeanSquare { weight: Vec<f32>, epsilon: f32 },
    /// Subtracts the mean and divides by the standard deviation, as in BART.
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
}

impl RowNorm {
    /// Normalises rows in place.
    pub(super) fn rows(&self, rows: &mut [f32]) {
        vectorize(
            #[inline(always)]
            || match self {
                Self::RootMeanSquare { weight, epsilon } => {
                    for row in rows.chunks_exact_mut(weight.len()) {
                        rms_norm::normalize(row, weight, *epsilon);
                    }
                }
                Self::Layer { weight, bias, epsilon } => {
                    for row in rows.chunks_exact_mut(weight.len()) {
                        norm::normalize(row, weight, bias, *epsilon);
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::RowNorm;

    #[test]
    fn rows_are_divided_by_their_root_mean_square() {
        let norm = RowNorm::RootMeanSquare { weight: vec![1.0, 2.0], epsilon: 0.0 };
        let mut rows = [3.0, -3.0, 0.0, 2.0];
        norm.rows(&mut rows);
        assert_eq!(rows, [1.0, -2.0, 0.0, 2.0 * 2f32.sqrt()]);
    }

    #[test]
    fn rows_lose_their_mean_and_their_deviation() {
        let norm = RowNorm::Layer { weight: vec![2.0; 2], bias: vec![1.0; 2], epsilon: 0.0 };
        let mut rows = [3.0, 5.0, -1.0, 1.0];
        norm.rows(&mut rows);
        assert_eq!(rows, [-1.0, 3.0, -1.0, 3.0]);
    }
}
