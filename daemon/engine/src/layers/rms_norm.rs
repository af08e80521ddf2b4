//! Normalisation by the root mean square, of whole rows and of single heads.

use candle_core::{Result, Tensor, bail};

use crate::kernels::math::sum_by;
use crate::kernels::vectorize::vectorize;
use crate::layers::in_place::in_place;
use crate::layers::portable;
use crate::layers::storage::with_values;

/// `x / sqrt(mean(x²) + epsilon) · weight`.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Tensor,
    pub(crate) epsilon: f32,
}

impl RmsNorm {
    /// Normalises rows in a slice, after adding the residual to them.
    pub(crate) fn rows(&self, rows: &mut [f32], residual: Option<&[f32]>) -> Result<()> {
        with_values(&self.weight, |weight| {
            let width = weight.len();
            vectorize(
                #[inline(always)]
                || {
                    for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                        if let Some(residual) = residual {
                            for (x, r) in row.iter_mut().zip(&residual[i * width..][..width]) {
                                *x += r;
                            }
                        }
                        normalize(row, weight, self.epsilon);
                    }
                },
            );
            Ok(())
        })
    }
}

/// Normalises one row. Call it inside [`vectorize`].
#[inline(always)]
pub(crate) fn normalize(row: &mut [f32], weight: &[f32], epsilon: f32) {
    let mean_square = sum_by(row, |x| x * x) / width_as_f32(row.len());
    let scale = 1.0 / (mean_square + epsilon).sqrt();
    for (x, w) in row.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

/// Normalises each head of the queries and of the keys by itself.
#[derive(Debug)]
pub(crate) struct HeadNorm {
    pub(crate) queries: RmsNorm,
    pub(crate) keys: RmsNorm,
    pub(crate) heads: usize,
    pub(crate) key_heads: usize,
}

impl HeadNorm {
    /// Normalises the heads of `qkv`, the input of
    /// [`Attention`](crate::layers::attention_shape::Attention).
    pub(crate) fn forward(&self, qkv: &Tensor) -> Result<()> {
        if portable::is_for(qkv.device()) {
            return self.forward_portable(qkv);
        }
        let (_, stride) = qkv.dims2()?;
        let head_width = self.queries.weight.dims1()?;
        let (queries, keys) = (self.heads * head_width, self.key_heads * head_width);
        if self.keys.weight.dims1()? != head_width || stride != queries + 2 * keys {
            bail!("head norm of {} + 2 x {}: got {:?}", self.heads, self.key_heads, qkv.shape());
        }
        in_place("head-norm", qkv, |rows| {
            for row in rows.chunks_exact_mut(stride) {
                let (query, rest) = row.split_at_mut(queries);
                self.queries.rows(query, None)?;
                self.keys.rows(&mut rest[..keys], None)?;
            }
            Ok(())
        })
    }

    fn forward_portable(&self, qkv: &Tensor) -> Result<()> {
        let tokens = qkv.dim(0)?;
        let mut at = 0;
        for (norm, heads) in [(&self.queries, self.heads), (&self.keys, self.key_heads)] {
            let head_width = norm.weight.dims1()?;
            let part = qkv.narrow(1, at, heads * head_width)?.contiguous()?;
            let part = part.reshape((tokens * heads, head_width))?;
            let normed = portable::rms_norm(&part, &norm.weight, norm.epsilon)?;
            qkv.slice_set(&normed.reshape((tokens, heads * head_width))?, 1, at)?;
            at += heads * head_width;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
#[inline(always)]
pub(crate) fn width_as_f32(width: usize) -> f32 {
    width as f32
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{HeadNorm, RmsNorm};

    fn norm(weight: &[f32]) -> RmsNorm {
        RmsNorm { weight: Tensor::new(weight, &Device::Cpu).unwrap(), epsilon: 0.0 }
    }

    #[test]
    fn a_row_is_scaled_by_the_root_of_its_mean_square() {
        // 3 and 4 with the residual; the mean square is 12.5.
        let mut row = [1.0, 2.0];
        norm(&[2.0, 1.0]).rows(&mut row, Some(&[2.0, 2.0])).unwrap();
        let unit = 1.0 / 12.5f32.sqrt();
        assert!((row[0] - 6.0 * unit).abs() < 1e-6 && (row[1] - 4.0 * unit).abs() < 1e-6);
    }

    #[test]
    fn heads_are_normalised_one_by_one_and_values_are_left_alone() {
        let layer = HeadNorm { queries: norm(&[1.0]), keys: norm(&[10.0]), heads: 2, key_heads: 1 };
        let qkv = Tensor::new(&[[3f32, -5.0, 2.0, 7.0], [1.0, 1.0, 1.0, 1.0]], &Device::Cpu);
        let qkv = qkv.unwrap();
        layer.forward(&qkv).unwrap();
        assert_eq!(qkv.to_vec2::<f32>().unwrap(), [[1.0, -1.0, 10.0, 7.0], [1.0, 1.0, 10.0, 1.0]]);
    }
}
