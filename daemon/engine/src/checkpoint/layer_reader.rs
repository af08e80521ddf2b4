//! From tensors to the layers of an encoder.

use candle_core::Tensor;

use crate::api::weight_type::WeightType;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::layers::activation::Activation;
use crate::layers::linear::{Linear, LinearBuilder};
use crate::layers::narrowed;
use crate::layers::norm::{LayerNorm, Norm};
use crate::layers::rms_norm::RmsNorm;

/// Whether a layer has a bias in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    /// It has none; zeros are added.
    None,
    /// It has one for each output.
    Each,
}

impl From<bool> for Bias {
    fn from(has_bias: bool) -> Self {
        if has_bias { Self::Each } else { Self::None }
    }
}

impl TensorReader<'_> {
    /// One linear layer of several parts that read the same `inputs`: name and number of outputs of
    /// each, in the order of their outputs.
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
            let weight = self.matrix_values(&format!("{name}.weight"), &[*outputs, inputs])?;
            builder.push(weight, &bias);
        }
        let finished = builder.finish(activation, self.device(), self.held_as());
        finished.map_err(|source| self.placing(source))
    }

    /// Two linear layers that the file keeps as one: its first `outputs` outputs, and its last.
    pub(crate) fn halves(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: Bias,
        activations: [Activation; 2],
    ) -> Result<[Linear; 2], LoadError> {
        let weight_name = format!("{name}.weight");
        self.check_shape(&weight_name, &[2 * outputs, inputs])?;
        let bias = self.bias(name, 2 * outputs, bias)?;
        let (device, held_as) = (self.device(), self.held_as());
        let weight = self.matrix_values(&weight_name, &[2 * outputs, inputs])?;
        let half = |i: usize| {
            let mut builder = LinearBuilder::new(inputs, outputs);
            let weight = &weight[i * outputs * inputs..][..outputs * inputs];
            builder.push(weight, &bias[i * outputs..][..outputs]);
            builder.finish(activations[i], device, held_as)
        };
        let halves = half(0).and_then(|first| Ok([first, half(1)?]));
        halves.map_err(|source| self.placing(source))
    }

    /// A layer normalisation; one without bias adds zeros.
    pub(crate) fn layer_norm(
        &mut self,
        name: &str,
        width: usize,
        bias: Bias,
        epsilon: f32,
    ) -> Result<Norm, LoadError> {
        // Files that were converted from TensorFlow have other names.
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

    /// A normalisation by the root mean square. `offset` is added to the weights of the file.
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

    /// A tensor of `f32`.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let values = self.values(name, shape)?;
        self.place(values, shape)
    }

    /// A table with a row for each token, `[tokens, width]`.
    pub(crate) fn table(&mut self, name: &str, shape: &[usize; 2]) -> Result<Tensor, LoadError> {
        if self.held_as() == WeightType::F32 {
            return self.tensor(name, shape);
        }
        // The table is the largest tensor: only pieces of it are in memory as f32.
        self.check_shape(name, shape)?;
        let mut narrow = Vec::with_capacity(shape[0] * shape[1]);
        self.for_rows(name, *shape, |_, values| narrow.extend_from_slice(&narrowed(values)))?;
        Tensor::from_vec(narrow, &shape[..], self.device()).map_err(|source| self.placing(source))
    }

    fn bias(&mut self, name: &str, outputs: usize, bias: Bias) -> Result<Vec<f32>, LoadError> {
        match bias {
            Bias::None => Ok(vec![0.0; outputs]),
            Bias::Each => self.values(&format!("{name}.bias"), &[outputs]),
        }
    }

    fn place(&self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor, LoadError> {
        Tensor::from_vec(values, shape, self.device()).map_err(|source| self.placing(source))
    }
}
