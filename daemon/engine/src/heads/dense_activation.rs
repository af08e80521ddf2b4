//! The activations of dense modules.

use crate::checkpoint::module_spec::DenseActivation;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::math::tanh;
use crate::layers::activation::{Gelu, Relu};

impl DenseActivation {
    /// Applies the activation to each value.
    pub(super) fn apply(self, values: &mut [f32]) {
        let each =
            |values: &mut [f32], f: fn(f32) -> f32| values.iter_mut().for_each(|x| *x = f(*x));
        match self {
            Self::Identity => {}
            Self::Tanh => each(values, tanh),
            Self::Relu => each(values, |x| Relu.apply(x)),
            Self::Gelu => each(values, |x| Gelu.apply(x)),
            Self::Silu => each(values, |x| x * sigmoid(x)),
            Self::Sigmoid => each(values, sigmoid),
        }
    }
}

/// Differs from `kernels::math::sigmoid` in the last bits. Rows that were computed with it keep them.
fn sigmoid(x: f32) -> f32 {
    0.5 * (1.0 + tanh(0.5 * x))
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::module_spec::DenseActivation;

    #[test]
    fn activations_are_known_by_their_class() {
        let values = |path: &str| {
            let mut values = [-2.0, 0.5];
            DenseActivation::of_class(path).unwrap().apply(&mut values);
            values
        };
        for (path, want) in [
            ("torch.nn.modules.linear.Identity", [-2.0, 0.5]),
            ("torch.nn.modules.activation.Tanh", [-0.964_027_6, 0.462_117_2]),
            ("torch.nn.modules.activation.ReLU", [0.0, 0.5]),
            ("torch.nn.modules.activation.GELU", [-0.045_500_3, 0.345_731_2]),
            ("torch.nn.modules.activation.SiLU", [-0.238_405_8, 0.311_229_7]),
            ("torch.nn.modules.activation.Sigmoid", [0.119_202_9, 0.622_459_3]),
        ] {
            for (got, want) in values(path).into_iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "{path}: {got} is not {want}");
            }
        }
        for path in ["torch.nn.modules.activation.Softmax", "os.system.Tanh", "Tanh", ""] {
            assert_eq!(DenseActivation::of_class(path), None, "{path}");
        }
    }
}
