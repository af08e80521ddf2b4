//! Residual addition and normalisation in one pass over the row.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};

use crate::kernels::math::sum_by;
use crate::kernels::vectorize::vectorize;
use crate::layers::portable;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::storage::{values, values_mut, with_values};

/// Layer normalisation with scale and shift.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) epsilon: f32,
}

/// A normalisation of one of the kinds that models are trained with.
#[derive(Debug)]
pub(crate) enum Norm {
    /// By mean and deviation.
    Layer(LayerNorm),
    /// By the root of the mean square.
    Rms(RmsNorm),
}

impl Norm {
    /// `hidden = norm(hidden + residual)`, row by row.
    pub(crate) fn add(&self, residual: &Tensor, hidden: &Tensor) -> Result<()> {
        if portable::is_for(hidden.device()) {
            return portable::add_norm(self, residual, hidden);
        }
        hidden.inplace_op2(residual, &AddNorm(self))
    }

    /// `out = norm(x)`, row by row.
    pub(crate) fn write(&self, x: &Tensor, out: &Tensor) -> Result<()> {
        if portable::is_for(out.device()) {
            return portable::norm(self, x, out);
        }
        out.inplace_op2(x, &WriteNorm(self))
    }

    /// `x = norm(x)`, row by row.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<()> {
        if portable::is_for(x.device()) {
            return portable::norm(self, x, x);
        }
        x.inplace_op1(&ApplyNorm(self))
    }

    /// Normalises rows that lie in memory, after the residual was added to them.
    pub(crate) fn rows(&self, rows: &mut [f32], residual: Option<&[f32]>) -> Result<()> {
        match self {
            Self::Layer(norm) => norm.rows(rows, residual),
            Self::Rms(norm) => norm.rows(rows, residual),
        }
    }

    fn check(&self, to: &Layout, from: &Layout) -> Result<()> {
        let weight = match self {
            Self::Layer(norm) => &norm.weight,
            Self::Rms(norm) => &norm.weight,
        };
        let (_, width) = to.shape().dims2()?;
        if to.shape() != from.shape() || weight.dims1()? != width {
            bail!("norm of {:?}: got {from:?} -> {to:?}", weight.shape());
        }
        Ok(())
    }
}

struct AddNorm<'a>(&'a Norm);

struct WriteNorm<'a>(&'a Norm);

struct ApplyNorm<'a>(&'a Norm);

impl InplaceOp2 for AddNorm<'_> {
    fn name(&self) -> &'static str {
        "add-norm"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        to: &Layout,
        x: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        self.0.check(to, from)?;
        self.0.rows(values_mut(out, to)?, Some(values(x, from)?))
    }
}

impl InplaceOp2 for WriteNorm<'_> {
    fn name(&self) -> &'static str {
        "write-norm"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        to: &Layout,
        x: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        self.0.check(to, from)?;
        let rows = values_mut(out, to)?;
        rows.copy_from_slice(values(x, from)?);
        self.0.rows(rows, None)
    }
}

impl InplaceOp1 for ApplyNorm<'_> {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0.check(layout, layout)?;
        self.0.rows(values_mut(x, layout)?, None)
    }
}

impl LayerNorm {
    /// Normalises rows that lie in memory, after the residual was added to them.
    pub(crate) fn rows(&self, rows: &mut [f32], residual: Option<&[f32]>) -> Result<()> {
        with_values(&self.weight, |weight| {
            with_values(&self.bias, |bias| {
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
                            normalize(row, weight, bias, self.epsilon);
                        }
                    },
                );
                Ok(())
            })
        })
    }
}

/// Normalises one row; for code that the caller dispatches.
#[inline(always)]
pub(crate) fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
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
pub(crate) fn width_as_f32(width: usize) -> f32 {
    width as f32
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{LayerNorm, Norm};

    #[test]
    fn the_sum_with_the_residual_is_normalised_scaled_and_shifted() {
        let device = Device::Cpu;
        let norm = Norm::Layer(LayerNorm {
            weight: Tensor::new(&[2f32, 2.0, 2.0, 2.0], &device).unwrap(),
            bias: Tensor::new(&[1f32, 1.0, 1.0, 1.0], &device).unwrap(),
            epsilon: 1e-12,
        });
        let hidden = Tensor::new(&[[0f32, 1.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0]], &device).unwrap();
        let residual = Tensor::new(&[[1f32, 2.0, 3.0, 7.0], [0.0; 4]], &device).unwrap();
        norm.add(&residual, &hidden).unwrap();
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

    #[test]
    fn the_ways_to_normalise_agree() {
        let device = Device::Cpu;
        let norm = Norm::Layer(LayerNorm {
            weight: Tensor::new(&[1f32, 2.0, 3.0], &device).unwrap(),
            bias: Tensor::new(&[0f32, 1.0, 0.0], &device).unwrap(),
            epsilon: 1e-5,
        });
        let x = Tensor::new(&[[1f32, 5.0, -3.0], [0.5, 0.0, 8.0]], &device).unwrap();
        let out = Tensor::full(f32::NAN, (2, 3), &device).unwrap();
        norm.write(&x, &out).unwrap();
        let sum = Tensor::zeros((2, 3), candle_core::DType::F32, &device).unwrap();
        norm.add(&x, &sum).unwrap();
        norm.apply(&x).unwrap();
        let out = out.to_vec2::<f32>().unwrap();
        assert_eq!(out, sum.to_vec2::<f32>().unwrap());
        assert_eq!(out, x.to_vec2::<f32>().unwrap());
        assert!(
            norm.apply(&Tensor::zeros((2, 2), candle_core::DType::F32, &device).unwrap()).is_err()
        );
    }
}
