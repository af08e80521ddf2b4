//! Attention to packed keys and values, one head at a time.

use std::sync::Arc;

use crate::kernels::epilogue::Plain;
use crate::kernels::math::softmax;
use crate::kernels::panels::{PANEL, Panels, pack_transposed};
use crate::kernels::product::Product;
use crate::kernels::vectorize::vectorize;
use crate::layers::relative_bias::RelativeBias;
use crate::seq2seq::kv_cache::{BLOCK, InputKv, KvBlock};
use crate::seq2seq::network::AttentionHeads;

/// One head of one layer, as one member of the team sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionHead<'a> {
    /// All heads of the layer.
    pub(super) heads: AttentionHeads,
    pub(super) layer: usize,
    /// Its index among all heads.
    pub(super) index: usize,
    /// Its index among the member's own heads, whose keys and values the member keeps.
    pub(super) own: usize,
    pub(super) bias: Option<&'a RelativeBias>,
}

/// The queries of one head, in one row or several.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadQueries<'a> {
    /// Starts with the head's first value in the first row.
    pub(super) rows: &'a [f32],
    /// Values from one row to the next.
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// Packs the key and the value of token `at` of `tokens`, as products need them: keys as columns,
/// values as rows.
pub(super) fn pack_token(
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

/// Turns the scores of one query, one for each key from the first on, into weights. The bias comes
/// with the index of the head and the position of the query.
pub(super) fn softmax_scores(
    scores: &mut [f32],
    scale: f32,
    bias: Option<(&RelativeBias, usize, usize)>,
) {
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

/// Attends to all tokens of an input. The context of row `r` goes to `out[r * out_stride..]`.
pub(super) fn attend_to_input(
    head: AttentionHead<'_>,
    queries: HeadQueries<'_>,
    input: &InputKv,
    scores: &mut Vec<f32>,
    (out, out_stride): (&mut [f32], usize),
) {
    let (keys, values) = input.head(head.layer, head.own);
    let heads = head.heads;
    let tokens = input.tokens();
    scores.resize(queries.count * tokens, 0.0);
    Product {
        rows: queries.rows,
        row_stride: queries.stride,
        count: queries.count,
        depth: heads.width,
        panels: Panels::F32(keys),
        columns: tokens,
        bias: None,
    }
    .write(scores, tokens, Plain);
    for row in scores.chunks_exact_mut(tokens) {
        softmax_scores(row, heads.scale, None);
    }
    Product {
        rows: scores,
        row_stride: tokens,
        count: queries.count,
        depth: tokens,
        panels: Panels::F32(values),
        columns: heads.width,
        bias: None,
    }
    .write(out, out_stride, Plain);
}

/// Attends to the tokens of a hypothesis up to and including `position`.
pub(super) fn attend_to_hypothesis(
    head: AttentionHead<'_>,
    query: &[f32],
    blocks: &[Arc<KvBlock>],
    position: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let heads = head.heads;
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
    softmax_scores(scores, heads.scale, head.bias.map(|bias| (bias, head.index, position)));
    let mut sum = [0.0; PANEL];
    for (panel, out) in out.chunks_mut(PANEL).enumerate() {
        for (b, (block, scores)) in blocks.iter().zip(scores.chunks(BLOCK)).enumerate() {
            let values = &block.head(head.layer, head.own).1[panel * BLOCK * PANEL..];
            sum[..out.len()].copy_from_slice(out);
            // Each block starts from the sum of the blocks before it: values are added in the same
            // order as over all tokens at once.
            let before = (b > 0).then(|| &sum[..out.len()]);
            Product {
                rows: scores,
                row_stride: scores.len(),
                count: 1,
                depth: scores.len(),
                panels: Panels::F32(values),
                columns: out.len(),
                bias: before,
            }
            .write(out, out.len(), Plain);
        }
    }
}
