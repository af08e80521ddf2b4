//! Reads the tensors of a network by name, and keeps account of them.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};

use crate::api::embedding::WeightType;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::layers::activation::Activation;
use crate::layers::linear::{Linear, LinearBuilder};
use crate::layers::narrowed;
use crate::layers::norm::{LayerNorm, Norm};
use crate::layers::rms_norm::RmsNorm;

/// Values of a table that are read at a time on their way to 16 bits.
const TABLE_VALUES: usize = 1 << 18;

/// Reads the tensors of one model.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    /// As what matrices and tables of tokens are held.
    held_as: WeightType,
    /// Stands before the names of the encoder's tensors where it was saved with a head around it.
    prefix: &'static str,
    /// Weights on their way into panels.
    buffer: Vec<f32>,
    bytes_held: u64,
    names_read: BTreeSet<String>,
}

/// Whether the linear layers of a model add something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    /// They do not, and the file has nothing to be added.
    None,
    /// They do.
    Each,
}

impl From<bool> for Bias {
    fn from(has_bias: bool) -> Self {
        if has_bias { Self::Each } else { Self::None }
    }
}

impl<'a> Reader<'a> {
    /// Nothing is read yet.
    pub(crate) fn new(weights: &'a Weights, device: &'a Device) -> Self {
        Self {
            weights,
            device,
            held_as: WeightType::F32,
            prefix: "",
            buffer: Vec::new(),
            bytes_held: 0,
            names_read: BTreeSet::new(),
        }
    }

    /// The same, with matrices and tables of tokens held as that; on a GPU nothing changes.
    pub(crate) fn holding(self, held_as: WeightType) -> Self {
        let held_as = if self.device.is_cpu() { held_as } else { WeightType::F32 };
        Self { held_as, ..self }
    }

    /// From here on names have the first of these prefixes with which `tensor` is there.
    pub(crate) fn enter(&mut self, prefixes: &[&'static str], tensor: &str) {
        let is_there = |prefix: &&&str| self.weights.contains(&format!("{prefix}{tensor}"));
        self.prefix = prefixes.iter().find(is_there).copied().unwrap_or_default();
    }

    /// From here on names are as the file has them.
    pub(crate) fn leave(&mut self) {
        self.prefix = "";
    }

    /// Whether the file has the tensor.
    pub(crate) fn contains(&self, tensor: &str) -> bool {
        self.weights.contains(&format!("{}{tensor}", self.prefix))
    }

    /// Bytes that what was read takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_held
    }

    /// Refuses a file that has more of an encoder than was read, in the named parts: its
    /// configuration is another model's, and would make wrong rows.
    pub(crate) fn check_extra(&self, parts: &[&str]) -> Result<(), LoadError> {
        let is_extra = |name: &&str| {
            let own = name.strip_prefix(self.prefix).unwrap_or(name);
            let is_counted_up = ["position_ids", "token_type_ids", "inv_freq"]
                .iter()
                .any(|counted| own.ends_with(counted));
            let is_part = parts.iter().any(|part| own.starts_with(part));
            is_part && !is_counted_up && !self.names_read.contains(*name)
        };
        match self.weights.names().find(is_extra) {
            None => Ok(()),
            Some(tensor) => Err(LoadError::ExtraTensor {
                file: self.weights.file().to_owned(),
                tensor: tensor.to_owned(),
            }),
        }
    }

    /// Tells of tensors that nothing has read.
    pub(crate) fn tell_unread(&self) {
        let is_unread = |name: &&str| !self.names_read.contains(*name);
        let unread: Vec<&str> = self.weights.names().filter(is_unread).collect();
        if let Some(first) = unread.first() {
            let (file, count) = (self.weights.file().display(), unread.len());
            tracing::info!(%file, count, first, "tensors beside the model are not used");
        }
    }

    /// One layer of `inputs`, made of the named ones side by side, each with its outputs.
    pub(crate) fn linear(
        &mut self,
        parts: &[(String, usize)],
        inputs: usize,
        bias: Bias,
        activation: Activation,
    ) -> Result<Linear, LoadError> {
        for (name, outputs) in parts {
            self.check_shape(&format!("{name}.weight"), &[*outputs, inputs])?;
        }
        let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
        let mut builder = LinearBuilder::new(inputs, outputs);
        for (name, outputs) in parts {
            let bias = self.bias(name, *outputs, bias)?;
            self.fetch_matrix(&format!("{name}.weight"), &[*outputs, inputs])?;
            builder.push(&self.buffer, &bias);
        }
        let finished = builder.finish(activation, self.device, self.held_as);
        finished.map_err(|source| self.placing(source))
    }

    /// Two layers of `inputs` that the file keeps as one: the first half of its outputs, and the
    /// second.
    pub(crate) fn halves(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: Bias,
        activations: [Activation; 2],
    ) -> Result<[Linear; 2], LoadError> {
        self.check_shape(&format!("{name}.weight"), &[2 * outputs, inputs])?;
        let bias = self.bias(name, 2 * outputs, bias)?;
        self.fetch_matrix(&format!("{name}.weight"), &[2 * outputs, inputs])?;
        let half = |i: usize| {
            let mut builder = LinearBuilder::new(inputs, outputs);
            let weight = &self.buffer[i * outputs * inputs..][..outputs * inputs];
            builder.push(weight, &bias[i * outputs..][..outputs]);
            let finished = builder.finish(activations[i], self.device, self.held_as);
            finished.map_err(|source| self.placing(source))
        };
        Ok([half(0)?, half(1)?])
    }

    /// A layer normalisation; one without bias adds zeros.
    pub(crate) fn layer_norm(
        &mut self,
        name: &str,
        width: usize,
        bias: Bias,
        epsilon: f32,
    ) -> Result<Norm, LoadError> {
        // Files that began as ones of TensorFlow have other names.
        let weight_name = [format!("{name}.weight"), format!("{name}.gamma")];
        let is_old = !self.contains(&weight_name[0]) && self.contains(&weight_name[1]);
        let weight = self.tensor(&weight_name[usize::from(is_old)], &[width])?;
        let bias = if is_old {
            self.values(&format!("{name}.beta"), &[width])?
        } else {
            self.bias(name, width, bias)?
        };
        let bias = self.place(bias, &[width])?;
        Ok(Norm::Layer(LayerNorm { weight, bias, epsilon }))
    }

    /// A normalisation by the root of the mean square. `offset` is what the file's weights lack.
    pub(crate) fn rms_norm(
        &mut self,
        name: &str,
        width: usize,
        offset: f32,
        epsilon: f32,
    ) -> Result<RmsNorm, LoadError> {
        let mut weight = self.values(&format!("{name}.weight"), &[width])?;
        weight.iter_mut().for_each(|w| *w += offset);
        Ok(RmsNorm { weight: self.place(weight, &[width])?, epsilon })
    }

    /// A tensor as it is.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let values = self.values(name, shape)?;
        self.place(values, shape)
    }

    /// A table of token rows.
    pub(crate) fn table(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        if self.held_as == WeightType::F32 {
            return self.tensor(name, shape);
        }
        // Piece by piece: the table is the largest tensor, and need not be there as f32.
        self.check_shape(name, shape)?;
        let full = format!("{}{name}", self.prefix);
        let (rows, width) = (shape[0], shape[1..].iter().product::<usize>());
        let at_once = (TABLE_VALUES / width.max(1)).max(1);
        let mut narrow = Vec::with_capacity(rows * width);
        for first in (0..rows).step_by(at_once) {
            let part = first..rows.min(first + at_once);
            self.weights.read_rows(&full, shape, part, &mut self.buffer)?;
            narrow.extend_from_slice(&narrowed(&self.buffer));
        }
        self.note(full, narrow.len(), self.held_as);
        Tensor::from_vec(narrow, shape, self.device).map_err(|source| self.placing(source))
    }

    /// The values of a tensor.
    pub(crate) fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::new();
        self.read(name, shape, &mut values, WeightType::F32)?;
        Ok(values)
    }

    /// Checked before there is memory for a layer: the file's own size bounds what its tensors
    /// take, while settings may say anything.
    fn check_shape(&self, name: &str, wanted: &[usize]) -> Result<(), LoadError> {
        let tensor = format!("{}{name}", self.prefix);
        let found = self.weights.shape(&tensor)?;
        if found == wanted {
            return Ok(());
        }
        let (found, wanted) = (found.to_vec(), wanted.to_vec());
        Err(LoadError::TensorShape { file: self.weights.file().to_owned(), tensor, found, wanted })
    }

    fn bias(&mut self, name: &str, outputs: usize, bias: Bias) -> Result<Vec<f32>, LoadError> {
        match bias {
            Bias::None => Ok(vec![0.0; outputs]),
            Bias::Each => self.values(&format!("{name}.bias"), &[outputs]),
        }
    }

    /// Reads into the buffer that all layers share on their way.
    fn fetch_matrix(&mut self, name: &str, shape: &[usize]) -> Result<(), LoadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read(name, shape, &mut buffer, self.held_as);
        self.buffer = buffer;
        read
    }

    fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
        held_as: WeightType,
    ) -> Result<(), LoadError> {
        let name = format!("{}{name}", self.prefix);
        self.weights.read(&name, shape, values)?;
        self.note(name, values.len(), held_as);
        Ok(())
    }

    fn note(&mut self, name: String, values: usize, held_as: WeightType) {
        if self.names_read.insert(name) {
            self.bytes_held += held_as.bytes() * u64::try_from(values).unwrap_or(u64::MAX);
        }
    }

    fn place(&self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor, LoadError> {
        Tensor::from_vec(values, shape, self.device).map_err(|source| self.placing(source))
    }

    fn placing(&self, source: candle_core::Error) -> LoadError {
        LoadError::Tensor { file: self.weights.file().to_owned(), source }
    }
}
