//! `activation(x · Wᵀ + b)`, over packed weights.

use candle_core::{Device, Result, Tensor, bail};

use crate::api::weight_type::WeightType;
use crate::kernels::epilogue::Plain;
use crate::kernels::panels::{PANEL, pack_transposed, packed_len, unpack_transposed};
use crate::kernels::product::Product;
use crate::layers::activation::{Activation, Gelu, GeluTanh, Relu, Silu, Tanh};
use crate::layers::in_place::in_place_from;
use crate::layers::portable;
use crate::layers::storage::{narrowed, with_panels, with_values};

/// A linear layer with the activation that follows it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Tensor,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

impl Linear {
    /// Values of an output row.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Writes `activation(x · Wᵀ + b)` of the rows of `x` to the rows of `out`.
    pub(crate) fn forward(&self, x: &Tensor, out: &Tensor) -> Result<()> {
        match &self.weight {
            Weight::Panels(panels) => {
                let (inputs, outputs, (count, found)) = (self.inputs, self.outputs, x.dims2()?);
                if found != inputs || out.dims2()? != (count, outputs) {
                    let (from, to) = (x.shape(), out.shape());
                    bail!("linear {inputs} -> {outputs}: got {from:?} -> {to:?}");
                }
                in_place_from("linear", out, x, |out, x| self.packed(panels, x, count, out))
            }
            Weight::Rows(rows) => portable::linear(x, rows, &self.bias, self.activation, out),
        }
    }

    /// As [`forward`](Self::forward), for `count` rows in a slice.
    ///
    /// # Panics
    /// If a slice is shorter than `count` rows.
    pub(crate) fn rows(&self, x: &[f32], count: usize, out: &mut [f32]) -> Result<()> {
        match &self.weight {
            Weight::Panels(panels) => self.packed(panels, x, count, out),
            Weight::Rows(rows) => {
                let x = &x[..count * self.inputs];
                let x = Tensor::from_slice(x, (count, self.inputs), rows.device())?;
                let made = portable::activated(&x, rows, &self.bias, self.activation)?;
                let made = made.flatten_all()?.to_vec1()?;
                out[..made.len()].copy_from_slice(&made);
                Ok(())
            }
        }
    }

    fn packed(&self, panels: &Tensor, x: &[f32], count: usize, out: &mut [f32]) -> Result<()> {
        with_panels(panels, |panels| {
            with_values(&self.bias, |bias| {
                let product = Product {
                    rows: x,
                    row_stride: self.inputs,
                    count,
                    depth: self.inputs,
                    panels,
                    columns: self.outputs,
                    bias: Some(bias),
                };
                match self.activation {
                    Activation::None => product.write(out, self.outputs, Plain),
                    Activation::Gelu => product.write(out, self.outputs, Gelu),
                    Activation::GeluTanh => product.write(out, self.outputs, GeluTanh),
                    Activation::Relu => product.write(out, self.outputs, Relu),
                    Activation::Silu => product.write(out, self.outputs, Silu),
                    Activation::Tanh => product.write(out, self.outputs, Tanh),
                }
                Ok(())
            })
        })
    }
}

/// Packs one or more weight matrices over the same input into one layer.
#[derive(Debug)]
pub(crate) struct LinearBuilder {
    panels: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl LinearBuilder {
    /// A layer of these sizes without weights.
    pub(crate) fn new(inputs: usize, outputs: usize) -> Self {
        let panels = vec![0.0; packed_len(inputs, outputs)];
        Self { panels, bias: Vec::with_capacity(outputs), inputs, outputs }
    }

    /// Adds the next outputs: `weight` is `[bias.len(), inputs]`, row-major.
    pub(crate) fn push(&mut self, weight: &[f32], bias: &[f32]) {
        pack_transposed(weight, self.inputs, self.inputs, self.bias.len(), &mut self.panels);
        self.bias.extend_from_slice(bias);
    }

    /// The layer, once all of its outputs were added. On a GPU its weights are f32 in any case.
    pub(crate) fn finish(
        self,
        activation: Activation,
        device: &Device,
        held_as: WeightType,
    ) -> Result<Linear> {
        let Self { panels, inputs, outputs, .. } = self;
        let weight = if portable::is_for(device) {
            // Packed weights are unpacked again: one pass at load, and readers need not know the device.
            let rows = unpack_transposed(&panels, inputs, outputs);
            Weight::Rows(Tensor::from_vec(rows, (outputs, inputs), device)?)
        } else {
            let shape = (outputs.div_ceil(PANEL), inputs, PANEL);
            Weight::Panels(match held_as {
                WeightType::F32 => Tensor::from_vec(panels, shape, device)?,
                WeightType::Bf16 => Tensor::from_vec(narrowed(&panels), shape, device)?,
            })
        };
        Ok(Linear {
            weight,
            bias: Tensor::from_vec(self.bias, outputs, device)?,
            inputs,
            outputs,
            activation,
        })
    }
}

/// The weights, in the layout that the device needs.
#[derive(Debug)]
enum Weight {
    /// Panels in the layout of [`crate::kernels::panels`]: `[panels, inputs, PANEL]`, of f32 or bf16.
    Panels(Tensor),
    /// `[outputs, inputs]`
    Rows(Tensor),
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{Activation, LinearBuilder, WeightType};

    /// `[[1, 2], [3, 4]] · x + [10, -20]`, built from two matrices as QKV is from three.
    fn layer(activation: Activation) -> super::Linear {
        let mut builder = LinearBuilder::new(2, 2);
        builder.push(&[1.0, 2.0], &[10.0]);
        builder.push(&[3.0, 4.0], &[-20.0]);
        builder.finish(activation, &Device::Cpu, WeightType::F32).unwrap()
    }

    #[test]
    fn weights_pushed_one_by_one_are_adjacent() {
        let x = Tensor::new(&[[1f32, 1.0], [2.0, 0.0]], &Device::Cpu).unwrap();
        let out = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        layer(Activation::None).forward(&x, &out).unwrap();
        assert_eq!(out.to_vec2::<f32>().unwrap(), [[13.0, -13.0], [12.0, -14.0]]);
        layer(Activation::Relu).forward(&x, &out).unwrap();
        assert_eq!(out.to_vec2::<f32>().unwrap(), [[13.0, 0.0], [12.0, 0.0]]);
    }

    /// Weights that 16 bits hold exactly give the same products as in 32 bits, bit for bit.
    #[test]
    fn weights_of_16_bits_are_the_same_numbers() {
        let (inputs, outputs) = (37, 70);
        let weight: Vec<f32> =
            (0..inputs * outputs).map(|i| ((i * 37) % 255) as f32 - 127.0).collect();
        let bias: Vec<f32> = (0..outputs).map(|i| i as f32 / 3.0).collect();
        let layer = |held_as| {
            let mut builder = LinearBuilder::new(inputs, outputs);
            builder.push(&weight, &bias);
            builder.finish(Activation::Gelu, &Device::Cpu, held_as).unwrap()
        };
        let [wide, narrow] = [WeightType::F32, WeightType::Bf16].map(layer);
        for rows in [1, 13, 97, 200] {
            let x: Vec<f32> = (0..rows * inputs).map(|i| ((i * 13) % 101) as f32 / 101.0).collect();
            let rows_of = |layer: &super::Linear| {
                let mut out = vec![0.0; rows * outputs];
                layer.rows(&x, rows, &mut out).unwrap();
                out
            };
            assert_eq!(rows_of(&wide), rows_of(&narrow), "{rows} rows");
        }
    }

    #[test]
    fn an_operand_of_another_width_is_refused() {
        let x = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let out = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(layer(Activation::None).forward(&x, &out).is_err());
    }
}
