//! The encoder over packed inputs, and the keys and values that cross-attention reads.
//!
//! Each member of the team computes its own share of the tokens. Members exchange the queries, keys
//! and values of each layer. A share starts and ends at any token: an input may lie in several shares.

use std::ops::Range;

use crate::kernels::epilogue::Plain;
use crate::kernels::panels::{Panels, packed_len};
use crate::kernels::product::{Product, ROWS_AT_ONCE};
use crate::kernels::team::Member;
use crate::seq2seq::attend::{pack_token, softmax_scores};
use crate::seq2seq::exchange::{Exchange, MemberExchange, Parts};
use crate::seq2seq::kv_cache::KvCache;
use crate::seq2seq::network::{AttentionHeads, EncoderLayer, EncoderStack, Seq2SeqNetwork};

/// An input to encode.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// Its number in the cache.
    pub(super) number: u32,
    /// Its tokens.
    pub(super) ids: Vec<u32>,
}

/// Activations of one member, reused from task to task.
#[derive(Debug, Default)]
pub(super) struct EncodeScratch {
    /// The residual stream of the member's own tokens.
    pub(super) x: Vec<f32>,
    /// A normalised block of it.
    copy: Vec<f32>,
    context: Vec<f32>,
    wide: Vec<f32>,
    inner: Vec<f32>,
    /// A product that joins the residual stream.
    joining: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

/// One member's pass through the encoder. The last rows of its own tokens stay in `scratch.x`.
pub(super) fn encode(
    network: &Seq2SeqNetwork,
    inputs: &[Input],
    exchange: &Exchange,
    member: Member<'_>,
    (cache, scratch): (&mut KvCache, &mut EncodeScratch),
) {
    let mut spans = Vec::with_capacity(inputs.len());
    let mut tokens = 0;
    for input in inputs {
        spans.push(tokens..tokens + input.ids.len());
        tokens += input.ids.len();
    }
    let own = member.part(tokens);
    let mut pass =
        EncodePass { network, spans: &spans, own, exchange: exchange.of_member(member), scratch };
    pass.embed(inputs);
    for layer in &network.encoder.layers {
        pass.layer(&network.encoder, layer);
    }
    if let Some(norm) = &network.encoder.last_norm {
        norm.rows(&mut pass.scratch.x);
    }
    pass.fill(inputs, cache);
}

struct EncodePass<'a> {
    network: &'a Seq2SeqNetwork,
    /// Where the inputs lie among all tokens.
    spans: &'a [Range<usize>],
    /// The member's own tokens.
    own: Range<usize>,
    exchange: MemberExchange<'a>,
    scratch: &'a mut EncodeScratch,
}

impl EncodePass<'_> {
    fn embed(&mut self, inputs: &[Input]) {
        let (width, embedding) = (self.network.width, &self.network.encoder.embedding);
        let x = &mut self.scratch.x;
        x.resize(self.own.len() * width, 0.0);
        let tokens = inputs.iter().flat_map(|input| input.ids.iter().enumerate());
        let own = tokens.skip(self.own.start).take(self.own.len());
        for ((position, id), row) in own.zip(x.chunks_exact_mut(width)) {
            embedding.row(*id, position, row);
        }
        embedding.finish(x);
    }

    fn layer(&mut self, encoder: &EncoderStack, layer: &EncoderLayer) {
        let (order, width, inner) = (self.network.order, self.network.width, encoder.heads.inner());
        let (attention, feed) = (&layer.attention, &layer.feed);
        let EncodeScratch { x, copy, .. } = &mut *self.scratch;
        let parts = self.exchange.share(self.own.len() * 3 * inner, |own| {
            let blocks =
                x.chunks(ROWS_AT_ONCE * width).zip(own.chunks_mut(ROWS_AT_ONCE * 3 * inner));
            for (x, own) in blocks {
                attention.qkv.rows(order.input(&attention.norm, x, copy), x.len() / width, own);
            }
        });
        self.attend(encoder, &parts);
        drop(parts);

        // A block of tokens goes through the rest of the layer before the next block starts: its
        // activations stay in the second-level cache.
        let EncodeScratch { x, copy, context, wide, inner: inner_values, joining, .. } =
            &mut *self.scratch;
        let blocks = x.chunks_mut(ROWS_AT_ONCE * width).zip(context.chunks(ROWS_AT_ONCE * inner));
        for (x, context) in blocks {
            let count = x.len() / width;
            joining.resize(x.len(), 0.0);
            attention.out.rows(context, count, joining);
            order.join(&attention.norm, x, joining);
            inner_values.resize(count * feed.inner(), 0.0);
            feed.widen(
                order.input(&feed.norm, x, copy),
                count,
                0..feed.panels(),
                wide,
                inner_values,
            );
            feed.down.rows(inner_values, count, joining);
            order.join(&feed.norm, x, joining);
        }
    }

    /// Each of the member's own tokens attends to all tokens of its input.
    fn attend(&mut self, encoder: &EncoderStack, parts: &Parts<'_>) {
        let EncodeScratch { keys, values, .. } = &mut *self.scratch;
        let (mut keys, mut values) = (std::mem::take(keys), std::mem::take(values));
        let AttentionHeads { count, width, .. } = encoder.heads;
        let inner = encoder.heads.inner();
        let shape = RowShape { heads: encoder.heads, stride: 3 * inner, keys: inner };
        let queries = parts.iter().nth(self.exchange.member.index).unwrap_or_default();
        self.scratch.context.resize(self.own.len() * inner, 0.0);
        for span in self.spans {
            let own = span.start.max(self.own.start)..span.end.min(self.own.end);
            if own.is_empty() {
                continue;
            }
            keys.resize(packed_len(width, span.len()), 0.0);
            values.resize(packed_len(span.len(), width), 0.0);
            for head in 0..count {
                pack(parts, shape, head, span, (&mut keys, &mut values));
                for first in own.clone().step_by(QUERIES) {
                    let block = first..own.end.min(first + QUERIES);
                    self.attend_block(encoder, head, span, (queries, block), (&keys, &values));
                }
            }
        }
        (self.scratch.keys, self.scratch.values) = (keys, values);
    }

    /// Computes the context of one head for `block`, tokens of the member that belong to one input.
    /// `queries` are the rows of all of the member's tokens: queries, keys and values.
    fn attend_block(
        &mut self,
        encoder: &EncoderStack,
        head: usize,
        span: &Range<usize>,
        (queries, block): (&[f32], Range<usize>),
        (keys, values): (&[f32], &[f32]),
    ) {
        let AttentionHeads { width, scale, .. } = encoder.heads;
        let (inner, len) = (encoder.heads.inner(), span.len());
        let EncodeScratch { context, scores, .. } = &mut *self.scratch;
        let first = block.start - self.own.start;
        scores.resize(block.len() * len, 0.0);
        Product {
            rows: &queries[first * 3 * inner + head * width..],
            row_stride: 3 * inner,
            count: block.len(),
            depth: width,
            panels: Panels::F32(keys),
            columns: len,
            bias: None,
        }
        .write(scores, len, Plain);
        for (query, row) in block.clone().zip(scores.chunks_exact_mut(len)) {
            let bias = encoder.bias.as_ref().map(|bias| (bias, head, query - span.start));
            softmax_scores(row, scale, bias);
        }
        Product {
            rows: scores,
            row_stride: len,
            count: block.len(),
            depth: len,
            panels: Panels::F32(values),
            columns: width,
            bias: None,
        }
        .write(&mut context[first * inner + head * width..], inner, Plain);
    }

    /// Computes the keys and values that the cross-attention of each decoder layer reads, and packs
    /// those of the member's own heads.
    fn fill(&mut self, inputs: &[Input], cache: &mut KvCache) {
        let (count, heads) = (self.own.len(), self.network.decoder.heads);
        let shape = RowShape { heads, stride: 2 * heads.inner(), keys: 0 };
        for (layer, weights) in self.network.decoder.layers.iter().enumerate() {
            let x = &self.scratch.x;
            let parts = self.exchange.share(count * 2 * heads.inner(), |own| {
                weights.cross.key_value.rows(x, count, own);
            });
            for (input, span) in inputs.iter().zip(self.spans) {
                let own_heads = cache.heads.clone();
                let Some(kv) = cache.input_mut(input.number) else { continue };
                for (own, head) in own_heads.enumerate() {
                    pack(&parts, shape, head, span, kv.head_mut(layer, own));
                }
            }
        }
    }
}

/// How keys and values lie in the rows of tokens: all keys, and then all values.
#[derive(Debug, Clone, Copy)]
struct RowShape {
    heads: AttentionHeads,
    /// Length of a row.
    stride: usize,
    /// Where the keys begin in a row.
    keys: usize,
}

/// Packs the keys and values of one head for the tokens of one input. The parts of all members
/// together have the rows of all tokens.
fn pack(
    parts: &Parts<'_>,
    shape: RowShape,
    head: usize,
    span: &Range<usize>,
    (keys, values): (&mut [f32], &mut [f32]),
) {
    let RowShape { heads, stride, keys: first } = shape;
    let rows = parts.iter().flat_map(|part| part.chunks_exact(stride));
    for (at, row) in rows.skip(span.start).take(span.len()).enumerate() {
        let of = |start: usize| &row[start + head * heads.width..][..heads.width];
        pack_token((keys, values), span.len(), at, of(first), of(first + heads.inner()));
    }
}

/// Queries whose scores are computed at a time.
const QUERIES: usize = 48;
