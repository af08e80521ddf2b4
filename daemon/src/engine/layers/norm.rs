//! Residual addition and layer normalisation in one pass over the row.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use pulp::Arch;

use super::math::sum_by;
use super::storage::{values, values_mut, with_values};

/// Layer normalisation with scale and shift.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) epsilon: f32,
}

impl LayerNorm {
    /// `hidden = norm(hidden + residual)`, row by row.
    pub(crate) fn forward(&self, residual: &Tensor, hidden: &Tensor) -> Result<()> {
        hidden.inplace_op2(residual, self)
    }

    /// Normalises rows that lie in memory; for layers that end in a norm.
    pub(crate) fn rows(&self, rows: &mut [f32], residual: Option<&[f32]>) -> Result<()> {
        with_values(&self.weight, |weight| {
            with_values(&self.bias, |bias| {
                let width = weight.len();
                Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                            if let Some(residual) = residual {
                                for (x, r) in row.iter_mut().zip(&residual[i * width..][..width]) {
                                    *x += r;
                                }
                            }
                            normalize(row, weight, bias, self.epsilon);
                        }
                    },
                );
                Ok(())
            })
        })
    }
}

impl InplaceOp2 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        to: &Layout,
        x: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        let (_, width) = to.shape().dims2()?;
        if to.shape() != from.shape() || self.weight.dims1()? != width {
            bail!("layer norm of {:?}: got {:?} -> {:?}", self.weight.shape(), from, to);
        }
        self.rows(values_mut(out, to)?, Some(values(x, from)?))
    }
}

#[inline(always)]
fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let len = width_as_f32(row.len());
    let mean = sum_by(row, |x| x) / len;
    // Two passes: the difference of two large sums would lose the digits that are asked for.
    let variance = sum_by(row, |x| (x - mean) * (x - mean)) / len;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * scale * w + b;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
#[inline(always)]
fn width_as_f32(width: usize) -> f32 {
    width as f32
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::LayerNorm;

    #[test]
    fn the_sum_with_the_residual_is_normalised_scaled_and_shifted() {
        let device = Device::Cpu;
        let norm = LayerNorm {
            weight: Tensor::new(&[2f32, 2.0, 2.0, 2.0], &device).unwrap(),
            bias: Tensor::new(&[1f32, 1.0, 1.0, 1.0], &device).unwrap(),
            epsilon: 1e-12,
        };
        let hidden = Tensor::new(&[[0f32, 1.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0]], &device).unwrap();
        let residual = Tensor::new(&[[1f32, 2.0, 3.0, 7.0], [0.0; 4]], &device).unwrap();
        norm.forward(&residual, &hidden).unwrap();
        // 1, 3, 5, 7 have mean 4 and deviation sqrt(5); equal values have none, and must not divide by 0.
        let unit = 1.0 / 5f32.sqrt();
        let want =
            [[1.0 - 6.0 * unit, 1.0 - 2.0 * unit, 1.0 + 2.0 * unit, 1.0 + 6.0 * unit], [1.0; 4]];
        for (got, want) in
            hidden.to_vec2::<f32>().unwrap().iter().flatten().zip(want.iter().flatten())
        {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }
}
