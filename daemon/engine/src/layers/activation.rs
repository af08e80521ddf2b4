//! Activation functions, applied to the tiles of a product while they are in registers.

use crate::kernels::epilogue::Epilogue;
use crate::kernels::math::{erfc_nonnegative, sigmoid, tanh};

/// The exact GELU, absolute error below 5e-7.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gelu;

impl Epilogue for Gelu {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        let size = x.abs();
        let tail = erfc_nonnegative(size * std::f32::consts::FRAC_1_SQRT_2);
        x.max(0.0) - 0.5 * size * tail
    }
}

/// The GELU approximated by the hyperbolic tangent, for models trained with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GeluTanh;

impl Epilogue for GeluTanh {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        const SQRT_2_OVER_PI: f32 = 0.797_884_6;
        0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)))
    }
}

/// Zero for negative values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relu;

impl Epilogue for Relu {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        x.max(0.0)
    }
}

/// `x · sigmoid(x)`, absolute error below 3e-7 of its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silu;

impl Epilogue for Silu {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        x * sigmoid(x)
    }
}

/// The hyperbolic tangent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tanh;

impl Epilogue for Tanh {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        tanh(x)
    }
}

/// An activation chosen when the model was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// See [`Plain`](crate::kernels::epilogue::Plain).
    None,
    /// See [`Gelu`].
    Gelu,
    /// See [`GeluTanh`].
    GeluTanh,
    /// See [`Relu`].
    Relu,
    /// See [`Silu`].
    Silu,
    /// See [`Tanh`].
    Tanh,
}

impl Activation {
    /// The names that [`named`](Self::named) accepts, for messages.
    pub(crate) const NAMES: &str =
        "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu, silu, swish, tanh";

    /// The activation with this name in configurations.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            "tanh" => Some(Self::Tanh),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "test values are rounded to f32")]

    use super::{Epilogue, Gelu, GeluTanh, Relu, Silu, Tanh};

    #[test]
    fn gelu_is_exact_to_half_a_millionth() {
        for i in -80_000..=80_000i32 {
            let x = f64::from((f64::from(i) / 1e4) as f32);
            let want = 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt()));
            let error = f64::from(Gelu.apply(x as f32)) - want;
            assert!(error.abs() < 5e-7, "gelu({x}) is off by {error:e}");
        }
    }

    #[test]
    fn gelu_by_tanh_follows_its_formula() {
        for i in -800..=800i32 {
            let x = f64::from((f64::from(i) / 100.0) as f32);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            let error = f64::from(GeluTanh.apply(x as f32)) - 0.5 * x * (1.0 + inner.tanh());
            assert!(error.abs() < 2e-6, "gelu({x}) is off by {error:e}");
        }
    }

    #[test]
    fn relu_cuts_negative_values() {
        assert_eq!([-2.0, 0.0, 3.0].map(|x| Relu.apply(x)), [0.0, 0.0, 3.0]);
    }

    #[test]
    fn silu_and_tanh_follow_their_formulas() {
        for i in -3000..=3000i32 {
            let x = f64::from((f64::from(i) / 100.0) as f32);
            let error = f64::from(Silu.apply(x as f32)) - x / (1.0 + (-x).exp());
            assert!(error.abs() <= 3e-7 * x.abs().max(1.0), "silu({x}) is off by {error:e}");
            let error = f64::from(Tanh.apply(x as f32)) - x.tanh();
            assert!(error.abs() < 3e-7, "tanh({x}) is off by {error:e}");
        }
    }
}
