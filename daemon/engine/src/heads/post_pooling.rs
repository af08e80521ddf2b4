//! The modules behind the pooling: what becomes of the one row of a text.

use std::path::{Path, PathBuf};

use candle_core::{Device, Result as TensorResult, Tensor};

use crate::api::weight_type::WeightType;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::heads::pooling::normalize;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::math::tanh;
use crate::kernels::vectorize::vectorize;
use crate::layers::activation::{Activation, Gelu, Relu};
use crate::layers::linear::{Linear, LinearBuilder};
use crate::layers::norm::LayerNorm;

/// A module behind the pooling, before its weights are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepLayout {
    /// A linear layer with an activation.
    Dense {
        folder: PathBuf,
        inputs: usize,
        outputs: usize,
        has_bias: bool,
        activation: DenseActivation,
    },
    /// A layer normalisation with scale and shift.
    Norm { folder: PathBuf, dimension: usize },
    /// Length 1.
    Normalize,
}

/// What follows a [`StepLayout::Dense`], with the defaults of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DenseActivation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Silu,
    Sigmoid,
}

/// The modules with their weights.
#[derive(Debug)]
pub(crate) struct Tail {
    steps: Vec<Step>,
    /// Values that it takes and gives.
    inputs: usize,
    outputs: usize,
    weight_bytes: u64,
    digest: blake3::Hash,
}

#[derive(Debug)]
enum Step {
    Dense { linear: Linear, activation: DenseActivation },
    Norm(LayerNorm),
    Normalize,
}

/// Rows between two modules, kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct TailScratch {
    now: Vec<f32>,
    next: Vec<f32>,
}

/// The epsilon of `torch.nn.LayerNorm`.
const NORM_EPSILON: f32 = 1e-5;

impl DenseActivation {
    pub(crate) const SUPPORTED: &str = "torch.nn's Identity, Tanh, ReLU, GELU, SiLU, Sigmoid";

    /// That of a class path, such as `torch.nn.modules.activation.Tanh`.
    pub(crate) fn of_class(path: &str) -> Option<Self> {
        if !path.starts_with("torch.nn.") {
            return None;
        }
        Some(match path.rsplit('.').next()? {
            "Identity" => Self::Identity,
            "Tanh" => Self::Tanh,
            "ReLU" => Self::Relu,
            "GELU" => Self::Gelu,
            "SiLU" => Self::Silu,
            "Sigmoid" => Self::Sigmoid,
            _ => return None,
        })
    }

    fn apply(self, values: &mut [f32]) {
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

fn sigmoid(x: f32) -> f32 {
    0.5 * (1.0 + tanh(0.5 * x))
}

impl Tail {
    /// Reads the weights of the modules behind rows of `inputs` values.
    pub(crate) fn load(layout: &[StepLayout], inputs: usize) -> Result<Self, LoadError> {
        let mut tail = Self {
            steps: Vec::with_capacity(layout.len()),
            inputs,
            outputs: inputs,
            weight_bytes: 0,
            digest: blake3::hash(b""),
        };
        let mut hasher = blake3::Hasher::new();
        for step in layout {
            hasher.update(format!("{:?}", step.without_folder()).as_bytes());
            let step = match step {
                StepLayout::Normalize => Step::Normalize,
                StepLayout::Dense { folder, inputs, outputs, has_bias, activation } => {
                    tail.takes(folder, "in_features", *inputs)?;
                    tail.outputs = *outputs;
                    let mut weights = TailWeights::open(folder, &mut hasher)?;
                    let weight = weights.read("linear.weight", &[*outputs, *inputs])?;
                    let bias = if *has_bias {
                        weights.read("linear.bias", &[*outputs])?
                    } else {
                        vec![0.0; *outputs]
                    };
                    tail.weight_bytes += weights.bytes_read;
                    let mut builder = LinearBuilder::new(*inputs, *outputs);
                    builder.push(&weight, &bias);
                    let linear = builder
                        .finish(Activation::None, &Device::Cpu, WeightType::F32)
                        .map_err(|source| weights.placing(source))?;
                    Step::Dense { linear, activation: *activation }
                }
                StepLayout::Norm { folder, dimension } => {
                    tail.takes(folder, "dimension", *dimension)?;
                    let mut weights = TailWeights::open(folder, &mut hasher)?;
                    let weight = weights.tensor("norm.weight", *dimension)?;
                    let bias = weights.tensor("norm.bias", *dimension)?;
                    tail.weight_bytes += weights.bytes_read;
                    Step::Norm(LayerNorm { weight, bias, epsilon: NORM_EPSILON })
                }
            };
            tail.steps.push(step);
        }
        tail.digest = hasher.finalize();
        Ok(tail)
    }

    /// Whether the module at hand takes what the one before it gives.
    fn takes(&self, folder: &Path, setting: &'static str, found: usize) -> Result<(), LoadError> {
        if found == self.outputs {
            return Ok(());
        }
        let wanted = format!("{}, what the module before it gives", self.outputs);
        Err(LoadError::Setting { file: folder.join("config.json"), setting, found, wanted })
    }

    /// Values of a finished row.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether rows come out with length 1.
    pub(crate) fn normalizes(&self) -> bool {
        matches!(self.steps.last(), Some(Step::Normalize))
    }

    /// Bytes that its weights hold.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Of everything that it does to a row.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        self.digest.as_bytes()
    }

    /// Lets `pool` write the rows that it takes, and writes what becomes of them to `rows`. Where no
    /// module changes their length, they are worked on where they are.
    pub(crate) fn write<E: From<candle_core::Error>>(
        &self,
        rows: &mut [&mut [f32]],
        scratch: &mut TailScratch,
        pool: impl FnOnce(&mut [&mut [f32]]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.steps.iter().any(|step| matches!(step, Step::Dense { .. })) {
            pool(rows)?;
            for row in rows {
                for step in &self.steps {
                    step.rewrite(row, self.outputs)?;
                }
            }
            return Ok(());
        }
        let TailScratch { now, next } = scratch;
        let mut width = self.inputs;
        now.resize(rows.len() * width, 0.0);
        let mut pooled: Vec<&mut [f32]> = now.chunks_exact_mut(width).collect();
        pool(&mut pooled)?;
        for step in &self.steps {
            if let Step::Dense { linear, activation } = step {
                width = linear.outputs();
                next.resize(rows.len() * width, 0.0);
                linear.rows(now, rows.len(), next)?;
                activation.apply(next);
                std::mem::swap(now, next);
            } else {
                step.rewrite(now, width)?;
            }
        }
        for (row, finished) in rows.iter_mut().zip(now.chunks_exact(width)) {
            row.copy_from_slice(finished);
        }
        Ok(())
    }
}

impl Step {
    /// Changes rows of `width` values in their place.
    fn rewrite(&self, rows: &mut [f32], width: usize) -> TensorResult<()> {
        match self {
            Self::Dense { .. } => candle_core::bail!("a dense layer has no place of its own"),
            Self::Norm(norm) => norm.rows(rows, None),
            Self::Normalize => {
                vectorize(
                    #[inline(always)]
                    || rows.chunks_exact_mut(width).for_each(normalize),
                );
                Ok(())
            }
        }
    }
}

impl StepLayout {
    /// What it is, wherever its files are.
    fn without_folder(&self) -> Self {
        let mut step = self.clone();
        match &mut step {
            Self::Dense { folder, .. } | Self::Norm { folder, .. } => folder.clear(),
            Self::Normalize => {}
        }
        step
    }
}

/// The weights of one module.
struct TailWeights {
    weights: Weights,
    bytes_read: u64,
}

impl TailWeights {
    fn open(folder: &Path, hasher: &mut blake3::Hasher) -> Result<Self, LoadError> {
        let weights = Weights::of_folder(folder)?;
        hasher.update(&weights.digest()?);
        Ok(Self { weights, bytes_read: 0 })
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::new();
        self.weights.read(name, shape, &mut values)?;
        self.bytes_read += 4 * values.len() as u64;
        Ok(values)
    }

    fn tensor(&mut self, name: &str, width: usize) -> Result<Tensor, LoadError> {
        let values = self.read(name, &[width])?;
        Tensor::from_vec(values, width, &Device::Cpu).map_err(|source| self.placing(source))
    }

    fn placing(&self, source: candle_core::Error) -> LoadError {
        LoadError::Tensor { file: self.weights.file().to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::DenseActivation;

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
