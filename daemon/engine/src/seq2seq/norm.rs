//! Normalisation of rows that lie in memory, with and without a mean.

use crate::kernels::vectorize::vectorize;
use crate::layers::{norm, rms_norm};

/// What makes a row comparable with others.
#[derive(Debug)]
pub(crate) enum Norm {
    /// Divides by the root mean square: T5.
    RootMeanSquare { weight: Vec<f32>, epsilon: f32 },
    /// Subtracts the mean too: BART.
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
}

impl Norm {
    /// Normalises rows where they lie.
    pub(crate) fn rows(&self, rows: &mut [f32]) {
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
