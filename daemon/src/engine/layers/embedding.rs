//! Token and position rows, added and normalised.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};

use super::norm::LayerNorm;
use super::storage::{values_mut, with_values};

/// The embedding layer of BERT. Segment ids are all 0 for single texts, so that the segment's row
/// is added to the position table when the model is loaded.
#[derive(Debug)]
pub(crate) struct Embedding {
    /// `[vocabulary, width]`
    pub(crate) tokens: Tensor,
    /// `[positions, width]`, the row of segment 0 included.
    pub(crate) positions: Tensor,
    pub(crate) norm: LayerNorm,
}

impl Embedding {
    /// Writes the normalised rows of packed sequences to `hidden`.
    pub(crate) fn forward(&self, sequences: &[&[u32]], hidden: &Tensor) -> Result<()> {
        hidden.inplace_op1(&Lookup { layer: self, sequences })
    }
}

/// The layer together with what it is to look up.
struct Lookup<'a> {
    layer: &'a Embedding,
    sequences: &'a [&'a [u32]],
}

impl InplaceOp1 for Lookup<'_> {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, hidden: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (count, width) = layout.shape().dims2()?;
        let tokens: usize = self.sequences.iter().map(|ids| ids.len()).sum();
        if count != tokens {
            bail!("embedding: {count} rows for {tokens} tokens");
        }
        let hidden = values_mut(hidden, layout)?;
        with_values(&self.layer.tokens, |tokens| {
            with_values(&self.layer.positions, |positions| {
                let mut rows = hidden.chunks_exact_mut(width);
                for ids in self.sequences {
                    let mut positions = positions.chunks_exact(width);
                    for &id in *ids {
                        let at = usize::try_from(id).unwrap_or(usize::MAX).saturating_mul(width);
                        let Some(token) = tokens.get(at..at.saturating_add(width)) else {
                            bail!("token {id} is beyond the vocabulary of the weights");
                        };
                        let (Some(row), Some(position)) = (rows.next(), positions.next()) else {
                            bail!(
                                "a sequence of {} tokens is longer than the model reads",
                                ids.len()
                            );
                        };
                        for ((x, t), p) in row.iter_mut().zip(token).zip(position) {
                            *x = t + p;
                        }
                    }
                }
                Ok(())
            })
        })?;
        self.layer.norm.rows(hidden, None)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{Embedding, LayerNorm};

    fn layer() -> Embedding {
        let device = &Device::Cpu;
        Embedding {
            tokens: Tensor::new(&[[0f32, 0.0], [1.0, 0.0]], device).unwrap(),
            positions: Tensor::new(&[[0f32, 3.0], [3.0, 0.0]], device).unwrap(),
            norm: LayerNorm {
                weight: Tensor::ones(2, DType::F32, device).unwrap(),
                bias: Tensor::zeros(2, DType::F32, device).unwrap(),
                epsilon: 0.0,
            },
        }
    }

    fn run(sequences: &[&[u32]], rows: usize) -> candle_core::Result<Vec<Vec<f32>>> {
        let hidden = Tensor::zeros((rows, 2), DType::F32, &Device::Cpu)?;
        layer().forward(sequences, &hidden)?;
        hidden.to_vec2()
    }

    #[test]
    fn positions_start_anew_with_each_sequence() {
        let rows = run(&[&[0, 1], &[], &[1]], 3).unwrap();
        assert_eq!(rows, [[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]);
    }

    #[test]
    fn ids_and_lengths_beyond_the_tables_are_errors() {
        for (sequence, rows, word) in [
            (&[2][..], 1, "vocabulary"),
            (&[u32::MAX], 1, "vocabulary"),
            (&[0, 0, 0], 3, "longer"),
            (&[0], 2, "rows"),
        ] {
            let error = run(&[sequence], rows).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
