//! `activation(x · Wᵀ + b)`, over packed weights.

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, bail};

use super::activation::{Activation, Gelu, GeluTanh, Plain, Relu, Silu, Tanh};
use super::packed::{PANEL, Product, pack_transposed, packed_len, unpack_transposed};
use super::portable;
use super::storage::{values, values_mut, with_values};

/// A linear layer with the activation that follows it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Tensor,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

/// As the device of its layer wants it.
#[derive(Debug)]
enum Weight {
    /// Panels as [`super::packed`] lays them out: `[panels, inputs, PANEL]`.
    Panels(Tensor),
    /// `[outputs, inputs]`
    Rows(Tensor),
}

impl Linear {
    /// Values that it writes for each row.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Writes `activation(x · Wᵀ + b)` of the rows of `x` to the rows of `out`.
    pub(crate) fn forward(&self, x: &Tensor, out: &Tensor) -> Result<()> {
        match &self.weight {
            Weight::Panels(panels) => out.inplace_op2(x, &PackedLinear { layer: self, panels }),
            Weight::Rows(rows) => portable::linear(x, rows, &self.bias, self.activation, out),
        }
    }

    /// As [`forward`](Self::forward), of `count` rows that lie in memory.
    ///
    /// # Panics
    /// When a slice is shorter than that.
    pub(crate) fn rows(&self, x: &[f32], count: usize, out: &mut [f32]) -> Result<()> {
        match &self.weight {
            Weight::Panels(panels) => self.rows_by(panels, x, count, out),
            Weight::Rows(_) => bail!("a layer on a GPU was given rows in memory"),
        }
    }

    fn rows_by(&self, panels: &Tensor, x: &[f32], count: usize, out: &mut [f32]) -> Result<()> {
        with_values(panels, |panels| {
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

/// The layer on the CPU.
struct PackedLinear<'a> {
    layer: &'a Linear,
    panels: &'a Tensor,
}

impl InplaceOp2 for PackedLinear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        to: &Layout,
        x: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        let &Linear { inputs, outputs, .. } = self.layer;
        let (count, found) = from.shape().dims2()?;
        if found != inputs || to.shape().dims2()? != (count, outputs) {
            bail!("linear {inputs} -> {outputs}: got {from:?} -> {to:?}");
        }
        self.layer.rows_by(self.panels, values(x, from)?, count, values_mut(out, to)?)
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
    /// A layer of these sizes, still without weights.
    pub(crate) fn new(inputs: usize, outputs: usize) -> Self {
        let panels = vec![0.0; packed_len(inputs, outputs)];
        Self { panels, bias: Vec::with_capacity(outputs), inputs, outputs }
    }

    /// Adds the next outputs: `weight` is `[bias.len(), inputs]`, row-major.
    pub(crate) fn push(&mut self, weight: &[f32], bias: &[f32]) {
        pack_transposed(weight, self.inputs, self.inputs, self.bias.len(), &mut self.panels);
        self.bias.extend_from_slice(bias);
    }

    /// The layer, once as many outputs were added as [`new`](Self::new) was told.
    pub(crate) fn finish(self, activation: Activation, device: &Device) -> Result<Linear> {
        let Self { panels, inputs, outputs, .. } = self;
        let weight = if portable::is_for(device) {
            // A pass more than need be, once: whoever reads weights need not know of devices.
            let rows = unpack_transposed(&panels, inputs, outputs);
            Weight::Rows(Tensor::from_vec(rows, (outputs, inputs), device)?)
        } else {
            let count = outputs.div_ceil(PANEL);
            Weight::Panels(Tensor::from_vec(panels, (count, inputs, PANEL), device)?)
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{Activation, LinearBuilder};

    /// `[[1, 2], [3, 4]] · x + [10, -20]`, built from two matrices as QKV is from three.
    fn layer(activation: Activation) -> super::Linear {
        let mut builder = LinearBuilder::new(2, 2);
        builder.push(&[1.0, 2.0], &[10.0]);
        builder.push(&[3.0, 4.0], &[-20.0]);
        builder.finish(activation, &Device::Cpu).unwrap()
    }

    #[test]
    fn weights_pushed_one_by_one_stand_side_by_side() {
        let x = Tensor::new(&[[1f32, 1.0], [2.0, 0.0]], &Device::Cpu).unwrap();
        let out = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        layer(Activation::None).forward(&x, &out).unwrap();
        assert_eq!(out.to_vec2::<f32>().unwrap(), [[13.0, -13.0], [12.0, -14.0]]);
        layer(Activation::Relu).forward(&x, &out).unwrap();
        assert_eq!(out.to_vec2::<f32>().unwrap(), [[13.0, 0.0], [12.0, 0.0]]);
    }

    #[test]
    fn an_operand_of_another_width_is_refused() {
        let x = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let out = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(layer(Activation::None).forward(&x, &out).is_err());
    }
}
