//! Residual addition and normalisation in one pass over the row.

use candle_core::{Result, Tensor, bail};

use crate::kernels::math::sum_by;
use crate::kernels::vectorize::vectorize;
use crate::layers::in_place::{in_place, in_place_from};
use crate::layers::portable;
use crate::layers::rms_norm::{RmsNorm, width_as_f32};
use crate::layers::storage::with_values;

/// Layer normalisation with scale and shift.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) epsilon: f32,
}

/// A normalisation of any kind.
#[derive(Debug)]
pub(crate) enum Norm {
    /// By mean and standard deviation.
    Layer(LayerNorm),
    /// By the root mean square.
    Rms(RmsNorm),
}

impl Norm {
    /// `hidden = norm(hidden + residual)`, row by row.
    pub(crate) fn add(&self, residual: &Tensor, hidden: &Tensor) -> Result<()> {
        if portable::is_for(hidden.device()) {
            return portable::write(hidden, &self.portable(&hidden.add(residual)?)?);
        }
        self.check(hidden, residual)?;
        in_place_from("add-norm", hidden, residual, |rows, residual| {
            self.rows(rows, Some(residual))
        })
    }

    /// `out = norm(x)`, row by row.
    pub(crate) fn write(&self, x: &Tensor, out: &Tensor) -> Result<()> {
        if portable::is_for(out.device()) {
            return portable::write(out, &self.portable(x)?);
        }
        self.check(out, x)?;
        in_place_from("write-norm", out, x, |rows, x| {
            rows.copy_from_slice(x);
            self.rows(rows, None)
        })
    }

    /// `x = norm(x)`, row by row.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<()> {
        if portable::is_for(x.device()) {
            return portable::write(x, &self.portable(x)?);
        }
        self.check(x, x)?;
        in_place("norm", x, |rows| self.rows(rows, None))
    }

    /// Normalises rows in a slice, after adding the residual to them.
    pub(crate) fn rows(&self, rows: &mut [f32], residual: Option<&[f32]>) -> Result<()> {
        match self {
            Self::Layer(norm) => norm.rows(rows, residual),
            Self::Rms(norm) => norm.rows(rows, residual),
        }
    }

    /// By tensor operations.
    fn portable(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => portable::layer_norm(x, &norm.weight, &norm.bias, norm.epsilon),
            Self::Rms(norm) => portable::rms_norm(x, &norm.weight, norm.epsilon),
        }
    }

    fn check(&self, to: &Tensor, from: &Tensor) -> Result<()> {
        let weight = match self {
            Self::Layer(norm) => &norm.weight,
            Self::Rms(norm) => &norm.weight,
        };
        let (_, width) = to.shape().dims2()?;
        if to.shape() != from.shape() || weight.dims1()? != width {
            bail!("norm of {:?}: got {:?} -> {:?}", weight.shape(), from.shape(), to.shape());
        }
        Ok(())
    }
}

impl LayerNorm {
    /// Normalises rows in a slice, after adding the residual to them.
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

/// Normalises one row. Call it inside [`vectorize`].
#[inline(always)]
pub(crate) fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let len = width_as_f32(row.len());
    let mean = sum_by(row, |x| x) / len;
    // Two passes: the difference of two large sums would lose precision.
    let variance = sum_by(row, |x| (x - mean) * (x - mean)) / len;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * scale * w + b;
    }
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
