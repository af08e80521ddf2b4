//! Single rows of the activations, or means of several.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use crate::layers::in_place::in_place_from;

/// Writes the mean of each span of rows of `hidden` to a row of `out`; zeros for an empty span.
pub(crate) fn span_means(hidden: &Tensor, spans: &[Range<usize>], out: &Tensor) -> Result<()> {
    let (count, width) = hidden.dims2()?;
    let is_within = |span: &Range<usize>| span.start <= span.end && span.end <= count;
    if out.dims2()? != (spans.len(), width) || !spans.iter().all(is_within) {
        bail!("spans {spans:?}: got {:?} -> {:?}", hidden.shape(), out.shape());
    }
    in_place_from("span-means", out, hidden, |out, hidden| {
        for (row, span) in out.chunks_exact_mut(width).zip(spans) {
            row.fill(0.0);
            for token in hidden[span.start * width..span.end * width].chunks_exact(width) {
                row.iter_mut().zip(token).for_each(|(x, t)| *x += t);
            }
            if span.len() > 1 {
                let weight = 1.0 / as_f32(span.len());
                row.iter_mut().for_each(|x| *x *= weight);
            }
        }
        Ok(())
    })
}

#[expect(clippy::cast_precision_loss, reason = "a text has far fewer than 2^24 tokens")]
fn as_f32(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::span_means;

    #[test]
    fn a_row_is_the_mean_of_its_span() {
        let hidden = Tensor::new(&[[1f32, 2.0], [3.0, 6.0], [5.0, 7.0]], &Device::Cpu).unwrap();
        let out = Tensor::full(f32::NAN, (3, 2), &Device::Cpu).unwrap();
        span_means(&hidden, &[0..2, 2..3, 1..1], &out).unwrap();
        assert_eq!(out.to_vec2::<f32>().unwrap(), [[2.0, 4.0], [5.0, 7.0], [0.0, 0.0]]);
        assert!(span_means(&hidden, &[0..2, 2..4, 1..1], &out).is_err());
    }
}
