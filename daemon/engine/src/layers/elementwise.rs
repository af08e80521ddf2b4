//! Sums and products of activations, value by value.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

use crate::layers::portable;
use crate::layers::storage::{values, values_mut};

/// `x += y`.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<()> {
    if portable::is_for(x.device()) {
        return portable::add(x, y);
    }
    x.inplace_op2(y, &Elementwise::Add)
}

/// `x *= y`: how a gate closes.
pub(crate) fn multiply(x: &Tensor, y: &Tensor) -> Result<()> {
    if portable::is_for(x.device()) {
        return portable::multiply(x, y);
    }
    x.inplace_op2(y, &Elementwise::Multiply)
}

enum Elementwise {
    Add,
    Multiply,
}

impl InplaceOp2 for Elementwise {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Multiply => "multiply",
        }
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        to: &Layout,
        y: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        if to.shape() != from.shape() {
            bail!("{}: got {from:?} -> {to:?}", self.name());
        }
        let pairs = values_mut(x, to)?.iter_mut().zip(values(y, from)?);
        match self {
            Self::Add => pairs.for_each(|(x, y)| *x += y),
            Self::Multiply => pairs.for_each(|(x, y)| *x *= y),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{add, multiply};

    #[test]
    fn values_meet_those_at_the_same_place() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let y = Tensor::new(&[[10f32, 20.0], [30.0, 40.0]], &Device::Cpu).unwrap();
        add(&x, &y).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[11.0, 22.0], [33.0, 44.0]]);
        multiply(&x, &y).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[110.0, 440.0], [990.0, 1760.0]]);
        assert!(add(&x, &y.narrow(0, 0, 1).unwrap()).is_err());
    }
}
