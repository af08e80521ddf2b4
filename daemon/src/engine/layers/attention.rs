//! Self-attention over packed sequences, each attending to itself alone.
//!
//! Per sequence and head: keys and values are packed as panels, and for a block of queries the
//! scores, their softmax and the weighted values are computed while the scores are in the cache.
//! Memory grows with the length of a sequence, never with its square.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use pulp::Arch;

use super::activation::Plain;
use super::math::softmax;
use super::packed::{PANEL, Product, pack_rows, pack_transposed, packed_len};
use super::storage::{values, values_mut};

/// Queries whose scores are kept at once.
const QUERIES: usize = 48;

/// The shape of multi-head self-attention. It has no weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) head_width: usize,
}

/// Memory that attention needs beside its operands. Belongs to one worker; grows as needed.
#[derive(Debug, Default)]
pub(crate) struct AttentionScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

impl Attention {
    /// Writes the context of every token to `context` (`[tokens, heads * head_width]`), from the
    /// product `qkv` (`[tokens, 3 * heads * head_width]`: all queries, all keys, all values).
    ///
    /// `lengths` are those of the packed sequences, in order.
    pub(crate) fn forward(
        self,
        qkv: &Tensor,
        context: &Tensor,
        lengths: &[usize],
        scratch: &mut AttentionScratch,
    ) -> Result<()> {
        let scratch = RefCell::new(scratch);
        context.inplace_op2(qkv, &Attend { shape: self, lengths, scratch })
    }

    fn width(self) -> usize {
        self.heads * self.head_width
    }

    /// Attends within one sequence: `qkv` and `context` hold its tokens only.
    fn sequence(self, qkv: &[f32], context: &mut [f32], scratch: &mut AttentionScratch) {
        let (width, head_width) = (self.width(), self.head_width);
        let stride = 3 * width;
        let len = context.len() / width;
        let score_stride = len.next_multiple_of(PANEL);
        scratch.reserve(len, head_width);
        let AttentionScratch { keys, values, scores } = scratch;
        let scale = 1.0 / as_f32(head_width).sqrt();
        for head in 0..self.heads {
            let at = head * head_width;
            pack_transposed(&qkv[width + at..], stride, head_width, 0, keys);
            pack_rows(&qkv[2 * width + at..], stride, head_width, values);
            for first in (0..len).step_by(QUERIES) {
                let count = QUERIES.min(len - first);
                Product {
                    rows: &qkv[first * stride + at..],
                    row_stride: stride,
                    count,
                    depth: head_width,
                    panels: keys,
                    columns: len,
                    bias: None,
                }
                .write(scores, score_stride, Plain);
                Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for row in scores.chunks_exact_mut(score_stride).take(count) {
                            softmax(&mut row[..len], scale);
                        }
                    },
                );
                Product {
                    rows: scores,
                    row_stride: score_stride,
                    count,
                    depth: len,
                    panels: values,
                    columns: head_width,
                    bias: None,
                }
                .write(&mut context[first * width + at..], width, Plain);
            }
        }
    }
}

impl AttentionScratch {
    fn reserve(&mut self, len: usize, head_width: usize) {
        let padded = len.next_multiple_of(PANEL);
        for (buffer, need) in [
            (&mut self.keys, packed_len(head_width, len)),
            (&mut self.values, packed_len(len, head_width)),
            (&mut self.scores, QUERIES.min(len) * padded),
        ] {
            if buffer.len() < need {
                buffer.resize(need, 0.0);
            }
        }
    }
}

/// Attention together with the sequences that it is to compute.
struct Attend<'a> {
    shape: Attention,
    lengths: &'a [usize],
    scratch: RefCell<&'a mut AttentionScratch>,
}

impl InplaceOp2 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        to: &Layout,
        qkv: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        let width = self.shape.width();
        let count: usize = self.lengths.iter().sum();
        if to.shape().dims2()? != (count, width) || from.shape().dims2()? != (count, 3 * width) {
            bail!("attention {width} wide over {count} tokens: got {from:?} -> {to:?}");
        }
        let (mut qkv, mut context) = (values(qkv, from)?, values_mut(out, to)?);
        let mut scratch = self.scratch.borrow_mut();
        for &len in self.lengths.iter().filter(|&&len| len > 0) {
            let (rows, rest) = qkv.split_at(len * 3 * width);
            let (written, unwritten) = context.split_at_mut(len * width);
            self.shape.sequence(rows, written, &mut scratch);
            (qkv, context) = (rest, unwritten);
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a head is far below 2^24 values wide")]
fn as_f32(width: usize) -> f32 {
    width as f32
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Result, Tensor};

    use super::{Attention, AttentionScratch};

    /// Attention as candle's own operations spell it, one sequence at a time.
    fn reference(qkv: &Tensor, shape: Attention) -> Result<Tensor> {
        let (len, width) = (qkv.dim(0)?, shape.width());
        let part = |i: usize| {
            qkv.narrow(1, i * width, width)?
                .reshape((len, shape.heads, shape.head_width))?
                .transpose(0, 1)?
                .contiguous()
        };
        let scale = 1.0 / (shape.head_width as f64).sqrt();
        let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? * scale)?;
        let scores = scores.broadcast_sub(&scores.max_keepdim(2)?)?.exp()?;
        let weights = scores.broadcast_div(&scores.sum_keepdim(2)?)?;
        weights.matmul(&part(2)?)?.transpose(0, 1)?.contiguous()?.reshape((len, width))
    }

    /// Values between -3 and 3 without a pattern that a row or a head could share.
    fn waves(rows: usize, columns: usize) -> Result<Tensor> {
        let count = u32::try_from(rows * columns).unwrap();
        let numbers = Tensor::arange(0, count, &Device::Cpu)?.to_dtype(DType::F64)?;
        let waves = ((numbers * 12.9898)?.sin()? * 3.0)?;
        waves.to_dtype(DType::F32)?.reshape((rows, columns))
    }

    #[test]
    fn each_sequence_attends_to_itself_alone() {
        let device = Device::Cpu;
        for shape in
            [Attention { heads: 3, head_width: 12 }, Attention { heads: 2, head_width: 64 }]
        {
            let lengths = [1, 33, 0, 2, 130, 7];
            let width = shape.width();
            let total: usize = lengths.iter().sum();
            let qkv = waves(total, 3 * width).unwrap();
            let context = Tensor::full(f32::NAN, (total, width), &device).unwrap();
            let mut scratch = AttentionScratch::default();
            // Used before for a longer text: what is left of it must not shine through.
            scratch.reserve(500, 64);
            scratch.keys.fill(f32::NAN);
            scratch.values.fill(f32::NAN);
            scratch.scores.fill(f32::NAN);
            shape.forward(&qkv, &context, &lengths, &mut scratch).unwrap();
            let mut start = 0;
            for len in lengths.into_iter().filter(|&len| len > 0) {
                let want = reference(&qkv.narrow(0, start, len).unwrap(), shape).unwrap();
                let got = context.narrow(0, start, len).unwrap();
                let off = (got - want).unwrap().abs().unwrap().max_all().unwrap();
                let off = off.to_scalar::<f32>().unwrap();
                assert!(off < 5e-6, "a sequence of {len} is off by {off:e}");
                start += len;
            }
        }
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let shape = Attention { heads: 1, head_width: 4 };
        let qkv = Tensor::zeros((3, 12), DType::F32, &Device::Cpu).unwrap();
        let context = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        let mut scratch = AttentionScratch::default();
        assert!(shape.forward(&qkv, &context, &[2], &mut scratch).is_err());
    }
}
