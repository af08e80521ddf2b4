//! The layers by candle's tensor operations, for tensors on a GPU.
//!
//! Each function computes the layer of its name on any device, and writes to a tensor that the caller
//! owns. Tests compare it with the kernel on the CPU, where both run.
//!
//! Indices are checked on the CPU: after an access beyond a table the GPU is lost to the process.

pub(crate) mod attention;
pub(crate) mod pooling;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use crate::layers::portable::attention::MAX_SCORES;
pub(crate) use crate::layers::portable::attention::attention;
pub(crate) use crate::layers::portable::pooling::pool;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops;

use crate::layers::activation::Activation;

/// Whether layers on a device compute by tensor operations.
pub(crate) fn is_for(device: &Device) -> bool {
    #[cfg(test)]
    if forced::is_on() {
        return true;
    }
    !device.is_cpu()
}

/// `out = activation(x · Wᵀ + b)`; the weight is `[outputs, inputs]`.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    out: &Tensor,
) -> Result<()> {
    write(out, &activated(x, weight, bias, activation)?)
}

/// `activation(x · Wᵀ + b)`
pub(crate) fn activated(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let product = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
    match activation {
        Activation::None => Ok(product),
        Activation::Gelu => product.gelu_erf(),
        Activation::GeluTanh => product.gelu(),
        Activation::Relu => product.relu(),
        Activation::Silu => product.silu(),
        Activation::Tanh => product.tanh(),
    }
}

/// Layer normalisation of each row.
///
/// Candle's kernel computes the variance as the difference of two means. That is exact enough unless a
/// row's mean is much larger than its deviation, which does not happen in trained models.
pub(crate) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    ops::layer_norm(x, weight, bias, epsilon)
}

/// Root-mean-square normalisation of each row.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    ops::rms_norm(x, weight, epsilon)
}

/// `x += y`.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<()> {
    write(x, &x.add(y)?)
}

/// `x *= y`.
pub(crate) fn multiply(x: &Tensor, y: &Tensor) -> Result<()> {
    write(x, &x.mul(y)?)
}

/// The rows of a table at these indices, which the caller has checked.
pub(crate) fn rows(table: &Tensor, indices: Vec<u32>) -> Result<Tensor> {
    let count = indices.len();
    table.index_select(&Tensor::from_vec(indices, count, table.device())?, 0)
}

/// Rotates pairs of values of the first `heads` heads of each row; `cosines` and `sines` are
/// `[tokens, pairs]`.
pub(crate) fn rotary(
    rows: &Tensor,
    heads: usize,
    head_width: usize,
    cosines: &Tensor,
    sines: &Tensor,
) -> Result<()> {
    let (tokens, pairs) = cosines.dims2()?;
    let rotated = rows.narrow(1, 0, heads * head_width)?.contiguous()?;
    let rotated = rotated.reshape((tokens, heads, head_width))?;
    let (first, second) = (rotated.narrow(2, 0, pairs)?, rotated.narrow(2, pairs, pairs)?);
    let (cosines, sines) = (cosines.unsqueeze(1)?, sines.unsqueeze(1)?);
    let x = first.broadcast_mul(&cosines)?.sub(&second.broadcast_mul(&sines)?)?;
    let y = second.broadcast_mul(&cosines)?.add(&first.broadcast_mul(&sines)?)?;
    let rest = rotated.narrow(2, 2 * pairs, head_width - 2 * pairs)?;
    let rotated = Tensor::cat(&[x, y, rest], D::Minus1)?;
    rows.slice_set(&rotated.reshape((tokens, heads * head_width))?, 1, 0)
}

/// Writes values to a tensor that the caller owns.
pub(crate) fn write(out: &Tensor, values: &Tensor) -> Result<()> {
    out.slice_set(values, 0, 0)
}

/// For tests: makes the layers of a thread compute by tensor operations on the CPU, too.
#[cfg(test)]
pub(crate) mod forced {
    use std::cell::Cell;

    thread_local! {
        static IS_ON: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn is_on() -> bool {
        IS_ON.get()
    }

    /// Runs `work` with models that are loaded and computed by tensor operations.
    pub(crate) fn on<T>(work: impl FnOnce() -> T) -> T {
        IS_ON.set(true);
        let result = work();
        IS_ON.set(false);
        result
    }
}
