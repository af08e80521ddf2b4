//! Self-attention over packed sequences. The tokens of a sequence attend to each other alone.
//!
//! Per sequence and head: keys and values are packed as panels, and for a block of queries the
//! scores, their softmax and the weighted values are computed while the scores are in the cache.
//! Memory grows with the length of a sequence, never with its square.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use crate::kernels::epilogue::Plain;
use crate::kernels::math::softmax;
use crate::kernels::panels::{PANEL, Panels, pack_rows, pack_transposed, packed_len};
use crate::kernels::product::Product;
use crate::kernels::vectorize::vectorize;
use crate::layers::attention_shape::Attention;
use crate::layers::in_place::in_place_from;
use crate::layers::portable;
use crate::layers::relative_bias::RelativeBias;

/// Scratch memory of one worker. Grows to the longest sequence seen.
#[derive(Debug, Default)]
pub(crate) struct AttentionScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

impl Attention {
    /// Writes the context of every token to `context` (`[tokens, heads * head_width]`), from the
    /// product `qkv` (`[tokens, (heads + 2 * key_heads) * head_width]`: all queries, all keys, all
    /// values).
    ///
    /// `lengths` has the lengths of the packed sequences, in order.
    pub(crate) fn forward(
        self,
        qkv: &Tensor,
        context: &Tensor,
        lengths: &[usize],
        bias: Option<&RelativeBias>,
        scratch: &mut AttentionScratch,
    ) -> Result<()> {
        if portable::is_for(context.device()) {
            return portable::attention(self, qkv, context, lengths, bias);
        }
        let (width, stride) = (self.width(), self.qkv_width());
        let count: usize = lengths.iter().sum();
        if context.dims2()? != (count, width) || qkv.dims2()? != (count, stride) {
            let (from, to) = (qkv.shape(), context.shape());
            bail!("attention {width} wide over {count} tokens: got {from:?} -> {to:?}");
        }
        in_place_from("attention", context, qkv, |mut context, mut qkv| {
            for &len in lengths.iter().filter(|&&len| len > 0) {
                let (rows, rest) = qkv.split_at(len * stride);
                let (written, unwritten) = context.split_at_mut(len * width);
                self.sequence(rows, written, bias, scratch);
                (qkv, context) = (rest, unwritten);
            }
            Ok(())
        })
    }

    /// Computes one sequence: `qkv` and `context` hold the rows of its tokens.
    fn sequence(
        self,
        qkv: &[f32],
        context: &mut [f32],
        bias: Option<&RelativeBias>,
        scratch: &mut AttentionScratch,
    ) {
        let (width, head_width, stride) = (self.width(), self.head_width, self.qkv_width());
        let len = context.len() / width;
        scratch.reserve(len, head_width);
        let group = self.heads / self.key_heads;
        for key_head in 0..self.key_heads {
            let key = width + key_head * head_width;
            let value = key + self.key_heads * head_width;
            pack_transposed(&qkv[key..], stride, head_width, 0, &mut scratch.keys);
            pack_rows(&qkv[value..], stride, head_width, &mut scratch.values);
            for head in key_head * group..(key_head + 1) * group {
                for first in (0..len).step_by(QUERIES) {
                    let queries = first..len.min(first + QUERIES);
                    self.queries(qkv, context, QueryBlock { head, queries }, bias, scratch);
                }
            }
        }
    }

    /// Computes some queries of one head, whose keys and values are packed in `scratch`.
    fn queries(
        self,
        qkv: &[f32],
        context: &mut [f32],
        QueryBlock { head, queries }: QueryBlock,
        bias: Option<&RelativeBias>,
        scratch: &mut AttentionScratch,
    ) {
        let (width, head_width, stride) = (self.width(), self.head_width, self.qkv_width());
        let (len, count, at) = (context.len() / width, queries.len(), head * head_width);
        let AttentionScratch { keys, values, scores } = scratch;
        // Panels of keys that no query of the block attends to are left out.
        let seen = self.reach.keys(queries.clone(), len);
        let from = seen.start / PANEL * PANEL;
        let columns = seen.end - from;
        let score_stride = columns.next_multiple_of(PANEL);
        Product {
            rows: &qkv[queries.start * stride + at..],
            row_stride: stride,
            count,
            depth: head_width,
            panels: Panels::F32(&keys[from * head_width..]),
            columns,
            bias: None,
        }
        .write(scores, score_stride, Plain);
        vectorize(
            #[inline(always)]
            || {
                for (query, row) in queries.clone().zip(scores.chunks_exact_mut(score_stride)) {
                    let own = self.reach.keys(query..query + 1, len);
                    let (unseen, row) = row[..columns].split_at_mut(own.start - from);
                    unseen.fill(0.0);
                    let (row, unseen) = row.split_at_mut(own.len());
                    unseen.fill(0.0);
                    match bias {
                        None => softmax(row, self.scale),
                        Some(bias) => {
                            bias.add(head, query, own.start, self.scale, row);
                            softmax(row, 1.0);
                        }
                    }
                }
            },
        );
        for first in (0..head_width).step_by(PANEL) {
            Product {
                rows: scores,
                row_stride: score_stride,
                count,
                depth: columns,
                panels: Panels::F32(&values[first * len + from * PANEL..]),
                columns: PANEL.min(head_width - first),
                bias: None,
            }
            .write(&mut context[queries.start * width + at + first..], width, Plain);
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

/// Some queries of one head.
struct QueryBlock {
    head: usize,
    queries: Range<usize>,
}

/// Queries whose scores are computed at a time.
const QUERIES: usize = 48;

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "test values are rounded to f32")]

    use candle_core::{DType, Device, Tensor};

    use super::{Attention, AttentionScratch};
    use crate::layers::attention_shape::Reach;
    use crate::layers::relative_bias::{Buckets, RelativeBias};

    /// The context of one token, as the formula spells it, in f64.
    fn reference(
        qkv: &[Vec<f32>],
        shape: Attention,
        bias: impl Fn(usize, usize, usize) -> f32,
        query: usize,
    ) -> Vec<f64> {
        let (width, depth) = (shape.width(), shape.head_width);
        let mut context = Vec::new();
        for head in 0..shape.heads {
            let key_head = head / (shape.heads / shape.key_heads);
            let key_at = width + key_head * depth;
            let value_at = key_at + shape.key_heads * depth;
            let is_seen = |key: usize| match shape.reach {
                Reach::All => true,
                Reach::Before => key <= query,
                Reach::Near(far) => key.abs_diff(query) <= far,
            };
            let weight = |key: usize| {
                let product: f64 = (0..depth)
                    .map(|i| {
                        f64::from(qkv[query][head * depth + i]) * f64::from(qkv[key][key_at + i])
                    })
                    .sum();
                (product * f64::from(shape.scale) + f64::from(bias(head, query, key))).exp()
            };
            let keys: Vec<usize> = (0..qkv.len()).filter(|&key| is_seen(key)).collect();
            let total: f64 = keys.iter().map(|&key| weight(key)).sum();
            context.extend((0..depth).map(|i| {
                let sum: f64 =
                    keys.iter().map(|&key| weight(key) * f64::from(qkv[key][value_at + i])).sum();
                sum / total
            }));
        }
        context
    }

    /// Values between -3 and 3 without a pattern that a row or a head could share.
    fn waves(rows: usize, columns: usize) -> Tensor {
        let wave = |i: usize| ((i as f64 * 12.9898).sin() * 3.0) as f32;
        let values: Vec<f32> = (0..rows * columns).map(wave).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    fn check(shape: Attention, with_bias: bool) {
        const BUCKETS: Buckets = Buckets { count: 32, max_distance: 128 };
        let lengths = [1, 33, 0, 2, 130, 7];
        let total: usize = lengths.iter().sum();
        let qkv = waves(total, shape.qkv_width());
        let context = Tensor::full(f32::NAN, (total, shape.width()), &Device::Cpu).unwrap();
        let table: Vec<f32> = (0..32 * shape.heads).map(|i| (i as f32).sin()).collect();
        let bias = with_bias.then(|| RelativeBias::new(&table, shape.heads, BUCKETS));
        let mut scratch = AttentionScratch::default();
        // Used before for a longer text: what is left of it must not shine through.
        scratch.reserve(500, 64);
        scratch.keys.fill(f32::NAN);
        scratch.values.fill(f32::NAN);
        scratch.scores.fill(f32::NAN);
        shape.forward(&qkv, &context, &lengths, bias.as_ref(), &mut scratch).unwrap();
        let (qkv, context) = (qkv.to_vec2().unwrap(), context.to_vec2::<f32>().unwrap());
        let bias_of = |head, query: usize, key: usize| match &bias {
            None => 0.0,
            Some(bias) => {
                let mut score = [0.0];
                bias.add(head, query, key, 1.0, &mut score);
                score[0]
            }
        };
        let mut start = 0;
        for len in lengths {
            for query in 0..len {
                let want = reference(&qkv[start..start + len], shape, bias_of, query);
                for (got, want) in context[start + query].iter().zip(want) {
                    let off = (f64::from(*got) - want).abs();
                    assert!(off < 1e-5, "{shape:?}: token {query} of {len} is off by {off:e}");
                }
            }
            start += len;
        }
    }

    #[test]
    fn each_sequence_attends_to_itself_alone() {
        check(Attention::full(3, 12), false);
        check(Attention::full(2, 64), false);
    }

    #[test]
    fn a_token_looks_no_further_than_it_may() {
        for reach in [Reach::Before, Reach::Near(0), Reach::Near(5), Reach::Near(64)] {
            check(Attention { reach, ..Attention::full(2, 40) }, false);
        }
    }

    #[test]
    fn heads_of_queries_share_keys_and_a_bias_is_added() {
        let grouped = Attention { key_heads: 2, scale: 0.3, ..Attention::full(6, 10) };
        check(grouped, false);
        check(grouped, true);
        check(Attention { reach: Reach::Near(9), ..grouped }, true);
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let shape = Attention::full(1, 4);
        let qkv = Tensor::zeros((3, 12), DType::F32, &Device::Cpu).unwrap();
        let context = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        let mut scratch = AttentionScratch::default();
        assert!(shape.forward(&qkv, &context, &[2], None, &mut scratch).is_err());
    }
}
