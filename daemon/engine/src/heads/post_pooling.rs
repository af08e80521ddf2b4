//! The modules behind pooling, which change the row of a text.

use std::path::Path;

use candle_core::{Device, Result as TensorResult, Tensor};

use crate::api::weight_type::WeightType;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::module_spec::{DenseActivation, ModuleSpec};
use crate::checkpoint::weights::Weights;
use crate::heads::pooling::normalize;
use crate::kernels::vectorize::vectorize;
use crate::layers::activation::Activation;
use crate::layers::linear::{Linear, LinearBuilder};
use crate::layers::norm::LayerNorm;

/// The modules with their weights.
#[derive(Debug)]
pub(super) struct PostPooling {
    modules: Vec<RowModule>,
    /// Values of a pooled row.
    inputs: usize,
    /// Values of a finished row.
    outputs: usize,
    weight_bytes: u64,
    digest: blake3::Hash,
}

/// Rows between two modules, kept from batch to batch.
#[derive(Debug, Default)]
pub(super) struct PostPoolingScratch {
    now: Vec<f32>,
    next: Vec<f32>,
}

impl PostPooling {
    /// Reads the weights of the modules behind pooled rows of `inputs` values.
    pub(super) fn load(specs: &[ModuleSpec], inputs: usize) -> Result<Self, LoadError> {
        let mut modules = Vec::with_capacity(specs.len());
        let (mut outputs, mut weight_bytes) = (inputs, 0);
        let mut hasher = blake3::Hasher::new();
        for spec in specs {
            hasher.update(format!("{:?}", spec.without_folder()).as_bytes());
            modules.push(match spec {
                ModuleSpec::Normalize => RowModule::Normalize,
                ModuleSpec::Dense { folder, inputs, outputs: own, has_bias, activation } => {
                    check_inputs(folder, "in_features", *inputs, outputs)?;
                    outputs = *own;
                    let mut weights = ModuleWeights::open(folder, &mut hasher)?;
                    let weight = weights.read("linear.weight", &[outputs, *inputs])?;
                    let bias = if *has_bias {
                        weights.read("linear.bias", &[outputs])?
                    } else {
                        vec![0.0; outputs]
                    };
                    weight_bytes += weights.bytes_read;
                    let mut builder = LinearBuilder::new(*inputs, outputs);
                    builder.push(&weight, &bias);
                    let linear = builder
                        .finish(Activation::None, &Device::Cpu, WeightType::F32)
                        .map_err(|source| weights.tensor_error(source))?;
                    RowModule::Dense { linear, activation: *activation }
                }
                ModuleSpec::Norm { folder, dimension } => {
                    check_inputs(folder, "dimension", *dimension, outputs)?;
                    let mut weights = ModuleWeights::open(folder, &mut hasher)?;
                    let weight = weights.tensor("norm.weight", *dimension)?;
                    let bias = weights.tensor("norm.bias", *dimension)?;
                    weight_bytes += weights.bytes_read;
                    RowModule::Norm(LayerNorm { weight, bias, epsilon: NORM_EPSILON })
                }
            });
        }
        Ok(Self { modules, inputs, outputs, weight_bytes, digest: hasher.finalize() })
    }

    /// Values of a finished row.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether finished rows have unit length.
    pub(super) fn normalizes(&self) -> bool {
        matches!(self.modules.last(), Some(RowModule::Normalize))
    }

    /// Bytes of its weights.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// A hash of the modules and their weights.
    pub(super) fn digest(&self) -> &[u8; 32] {
        self.digest.as_bytes()
    }

    /// Writes the finished rows of a batch to `rows`; `pool` writes the pooled ones. If no module
    /// changes the length of a row, all of them work in `rows`.
    pub(super) fn write<E: From<candle_core::Error>>(
        &self,
        rows: &mut [&mut [f32]],
        scratch: &mut PostPoolingScratch,
        pool: impl FnOnce(&mut [&mut [f32]]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.modules.iter().any(|module| matches!(module, RowModule::Dense { .. })) {
            pool(rows)?;
            for row in rows {
                for module in &self.modules {
                    module.rewrite(row, self.outputs)?;
                }
            }
            return Ok(());
        }
        let PostPoolingScratch { now, next } = scratch;
        let mut width = self.inputs;
        now.resize(rows.len() * width, 0.0);
        let mut pooled: Vec<&mut [f32]> = now.chunks_exact_mut(width).collect();
        pool(&mut pooled)?;
        for module in &self.modules {
            if let RowModule::Dense { linear, activation } = module {
                width = linear.outputs();
                next.resize(rows.len() * width, 0.0);
                linear.rows(now, rows.len(), next)?;
                activation.apply(next);
                std::mem::swap(now, next);
            } else {
                module.rewrite(now, width)?;
            }
        }
        for (row, finished) in rows.iter_mut().zip(now.chunks_exact(width)) {
            row.copy_from_slice(finished);
        }
        Ok(())
    }
}

/// A module with its weights.
#[derive(Debug)]
enum RowModule {
    Dense { linear: Linear, activation: DenseActivation },
    Norm(LayerNorm),
    Normalize,
}

impl RowModule {
    /// Changes rows of `width` values in place.
    fn rewrite(&self, rows: &mut [f32], width: usize) -> TensorResult<()> {
        match self {
            Self::Dense { .. } => candle_core::bail!("a dense layer cannot work in place"),
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

/// The weights of one module.
struct ModuleWeights {
    weights: Weights,
    bytes_read: u64,
}

impl ModuleWeights {
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
        Tensor::from_vec(values, width, &Device::Cpu).map_err(|source| self.tensor_error(source))
    }

    fn tensor_error(&self, source: candle_core::Error) -> LoadError {
        LoadError::Tensor { file: self.weights.file().to_owned(), source }
    }
}

/// Checks that a module takes rows as wide as those of the module before it.
fn check_inputs(
    folder: &Path,
    setting: &'static str,
    found: usize,
    before: usize,
) -> Result<(), LoadError> {
    if found == before {
        return Ok(());
    }
    let wanted = format!("{before}, the width of the rows of the module before it");
    Err(LoadError::Setting { file: folder.join("config.json"), setting, found, wanted })
}

/// The epsilon of `torch.nn.LayerNorm`.
const NORM_EPSILON: f32 = 1e-5;
