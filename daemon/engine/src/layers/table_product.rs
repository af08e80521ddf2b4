//! Scores of all tokens: a product with the token table.

use candle_core::{Result, Tensor, bail};

use crate::kernels::epilogue::Plain;
use crate::kernels::panels::{PANEL, Panels, pack_transposed};
use crate::kernels::product::Product;
use crate::layers::in_place::in_place_from;
use crate::layers::storage::with_values;

/// `x · tableᵀ + bias`. The table keeps the layout of a lookup. Each product packs it panel by panel in
/// the cache, so that it is in memory once.
#[derive(Debug)]
pub(crate) struct TableProduct {
    /// `[tokens, width]`
    pub(crate) table: Tensor,
    /// `[tokens]`
    pub(crate) bias: Option<Tensor>,
}

impl TableProduct {
    /// Writes a row of scores, one for each token, for each row of `x`.
    pub(crate) fn forward(&self, x: &Tensor, out: &Tensor) -> Result<()> {
        let ((tokens, width), (count, found)) = (self.table.dims2()?, x.dims2()?);
        if found != width || out.dims2()? != (count, tokens) {
            let (from, to) = (x.shape(), out.shape());
            bail!("product with a table of {tokens} x {width}: got {from:?} -> {to:?}");
        }
        if count == 0 {
            return Ok(());
        }
        in_place_from("table-product", out, x, |out, x| match &self.bias {
            None => self.rows(x, width, out, None),
            Some(bias) => with_values(bias, |bias| self.rows(x, width, out, Some(bias))),
        })
    }

    fn rows(&self, x: &[f32], width: usize, out: &mut [f32], bias: Option<&[f32]>) -> Result<()> {
        let (tokens, count) = (self.table.dim(0)?, x.len() / width);
        let mut panel = vec![0.0; PANEL * width];
        with_values(&self.table, |table| {
            for first in (0..tokens).step_by(PANEL) {
                let columns = PANEL.min(tokens - first);
                pack_transposed(
                    &table[first * width..][..columns * width],
                    width,
                    width,
                    0,
                    &mut panel,
                );
                Product {
                    rows: x,
                    row_stride: width,
                    count,
                    depth: width,
                    panels: Panels::F32(&panel),
                    columns,
                    bias: bias.map(|bias| &bias[first..first + columns]),
                }
                .write(&mut out[first..], tokens, Plain);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{PANEL, TableProduct};

    #[test]
    fn every_token_gets_its_product_and_its_bias() {
        let (tokens, device) = (2 * PANEL + 3, &Device::Cpu);
        let table: Vec<f32> = (0..2 * tokens).map(|i| i as f32).collect();
        let bias: Vec<f32> = (0..tokens).map(|i| i as f32 * 0.5).collect();
        let layer = TableProduct {
            table: Tensor::from_vec(table, (tokens, 2), device).unwrap(),
            bias: Some(Tensor::from_vec(bias, tokens, device).unwrap()),
        };
        let x = Tensor::new(&[[1f32, 0.0], [-1.0, 2.0]], device).unwrap();
        let out = Tensor::full(f32::NAN, (2, tokens), device).unwrap();
        layer.forward(&x, &out).unwrap();
        let out = out.to_vec2::<f32>().unwrap();
        for (i, (first, second)) in out[0].iter().zip(&out[1]).enumerate() {
            let (row, bias) = (2.0 * i as f32, i as f32 * 0.5);
            assert_eq!([*first, *second], [row + bias, row + 2.0 + bias], "token {i}");
        }
        assert!(layer.forward(&x, &x).is_err());
    }
}
