//! Attention of single tokens to keys and values that are packed already.

use std::sync::Arc;

use crate::kernels::math::softmax;
use crate::kernels::packed::{PANEL, Panels, Product, pack_transposed};
use crate::kernels::vectorize::vectorize;
use crate::layers::activation::Plain;
use crate::layers::relative_bias::RelativeBias;
use crate::seq2seq::kv_cache::{BLOCK, Block, Source};
use crate::seq2seq::network::Heads;

/// One head of one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) shape: Heads,
    pub(crate) layer: usize,
    /// Its number among all heads.
    pub(crate) index: usize,
    /// Its number among the member's own, which are those that are kept.
    pub(crate) own: usize,
    pub(crate) bias: Option<&'a RelativeBias>,
}

/// What one head looks for, in one row or several.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    /// From the head's first value in the first row on.
    pub(crate) rows: &'a [f32],
    /// From one row to the next.
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

/// Puts the key and the value of the token `at` among those of `tokens` tokens, as the products
/// want them: keys as columns, values as rows.
pub(crate) fn place(
    (keys, values): (&mut [f32], &mut [f32]),
    tokens: usize,
    at: usize,
    key: &[f32],
    value: &[f32],
) {
    pack_transposed(key, key.len(), key.len(), at, keys);
    for (panel, value) in values.chunks_exact_mut(PANEL * tokens).zip(value.chunks(PANEL)) {
        panel[at * PANEL..][..value.len()].copy_from_slice(value);
    }
}

/// Turns the scores of one query into weights; they are those of all keys from the first on. The
/// bias goes with the number of the head and the place of the query.
pub(crate) fn weigh(scores: &mut [f32], scale: f32, bias: Option<(&RelativeBias, usize, usize)>) {
    vectorize(
        #[inline(always)]
        || match bias {
            None => softmax(scores, scale),
            Some((bias, head, query)) => {
                bias.add(head, query, 0, scale, scores);
                softmax(scores, 1.0);
            }
        },
    );
}

/// Attends to an input. The context of row `r` goes to `out[r * out_stride..]`.
pub(crate) fn to_source(
    head: Head<'_>,
    query: Query<'_>,
    source: &Source,
    scores: &mut Vec<f32>,
    (out, out_stride): (&mut [f32], usize),
) {
    let (keys, values) = source.head(head.layer, head.own);
    let heads = head.shape;
    let tokens = source.tokens();
    scores.resize(query.count * tokens, 0.0);
    Product {
        rows: query.rows,
        row_stride: query.stride,
        count: query.count,
        depth: heads.width,
        panels: Panels::F32(keys),
        columns: tokens,
        bias: None,
    }
    .write(scores, tokens, Plain);
    for row in scores.chunks_exact_mut(tokens) {
        weigh(row, heads.scale, None);
    }
    Product {
        rows: scores,
        row_stride: tokens,
        count: query.count,
        depth: tokens,
        panels: Panels::F32(values),
        columns: heads.width,
        bias: None,
    }
    .write(out, out_stride, Plain);
}

/// Attends to the tokens of an answer up to this position, itself included.
pub(crate) fn to_answer(
    head: Head<'_>,
    query: &[f32],
    blocks: &[Arc<Block>],
    position: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let heads = head.shape;
    let tokens = position + 1;
    scores.resize(tokens, 0.0);
    for (block, scores) in blocks.iter().zip(scores.chunks_mut(BLOCK)) {
        Product {
            rows: query,
            row_stride: heads.width,
            count: 1,
            depth: heads.width,
            panels: Panels::F32(block.head(head.layer, head.own).0),
            columns: scores.len(),
            bias: None,
        }
        .write(scores, BLOCK, Plain);
    }
    weigh(scores, heads.scale, head.bias.map(|bias| (bias, head.index, position)));
    let mut sum = [0.0; PANEL];
    for (p, out) in out.chunks_mut(PANEL).enumerate() {
        for (b, (block, scores)) in blocks.iter().zip(scores.chunks(BLOCK)).enumerate() {
            let panel = &block.head(head.layer, head.own).1[p * BLOCK * PANEL..];
            sum[..out.len()].copy_from_slice(out);
            // What the blocks before came to is where this one starts: no other order of addition
            // than over all tokens at once.
            let before = (b > 0).then(|| &sum[..out.len()]);
            Product {
                rows: scores,
                row_stride: scores.len(),
                count: 1,
                depth: scores.len(),
                panels: Panels::F32(panel),
                columns: out.len(),
                bias: before,
            }
            .write(out, out.len(), Plain);
        }
    }
}
