//! Sums and products of activations, value by value.

use candle_core::{Result, Tensor, bail};

use crate::layers::in_place::in_place_from;
use crate::layers::portable;

/// `x += y`.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<()> {
    if portable::is_for(x.device()) {
        return portable::add(x, y);
    }
    each("add", x, y, |x, y| *x += y)
}

/// `x *= y`, as for a gate.
pub(crate) fn multiply(x: &Tensor, y: &Tensor) -> Result<()> {
    if portable::is_for(x.device()) {
        return portable::multiply(x, y);
    }
    each("multiply", x, y, |x, y| *x *= y)
}

fn each(name: &'static str, x: &Tensor, y: &Tensor, combine: impl Fn(&mut f32, f32)) -> Result<()> {
    if x.shape() != y.shape() {
        bail!("{name}: got {:?} -> {:?}", y.shape(), x.shape());
    }
    in_place_from(name, x, y, |x, y| {
        x.iter_mut().zip(y).for_each(|(x, &y)| combine(x, y));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{add, multiply};

    #[test]
    fn values_are_combined_at_the_same_position() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let y = Tensor::new(&[[10f32, 20.0], [30.0, 40.0]], &Device::Cpu).unwrap();
        add(&x, &y).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[11.0, 22.0], [33.0, 44.0]]);
        multiply(&x, &y).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[110.0, 440.0], [990.0, 1760.0]]);
        assert!(add(&x, &y.narrow(0, 0, 1).unwrap()).is_err());
    }
}
