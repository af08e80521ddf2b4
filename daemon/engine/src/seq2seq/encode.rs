//! The encoder over packed inputs, and the keys and values that answers look at.
//!
//! Every member computes its own share of the tokens; what they tell each other is the queries, keys
//! and values of each layer. Shares are cut anywhere: an input may lie in several.

use std::ops::Range;

use crate::kernels::packed::{Panels, Product, ROWS_AT_ONCE, packed_len};
use crate::kernels::team::Member;
use crate::layers::activation::Plain;
use crate::seq2seq::attend;
use crate::seq2seq::exchange::{Exchange, Parts, Turns};
use crate::seq2seq::kv_cache::Cache;
use crate::seq2seq::network::{Encoder, EncoderLayer, Heads, Network};

/// Queries whose scores are kept at once.
const QUERIES: usize = 48;

/// An input to encode.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Where its keys and values go.
    pub(crate) source: u32,
    pub(crate) ids: Vec<u32>,
}

/// Activations of one member, kept from task to task.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The residual stream of the member's own tokens.
    pub(crate) x: Vec<f32>,
    /// A block of it, normalised.
    copy: Vec<f32>,
    context: Vec<f32>,
    wide: Vec<f32>,
    inner: Vec<f32>,
    came: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

/// One member's way through the encoder. Its own rows of the last layer stay in `scratch.x`.
pub(crate) fn encode(
    network: &Network,
    inputs: &[Input],
    exchange: &Exchange,
    member: Member<'_>,
    (cache, scratch): (&mut Cache, &mut Scratch),
) {
    let mut spans = Vec::with_capacity(inputs.len());
    let mut tokens = 0;
    for input in inputs {
        spans.push(tokens..tokens + input.ids.len());
        tokens += input.ids.len();
    }
    let own = member.part(tokens);
    let mut way = Way { network, spans: &spans, own, turns: exchange.turns(member), scratch };
    way.embed(inputs);
    for layer in &network.encoder.layers {
        way.layer(&network.encoder, layer);
    }
    if let Some(norm) = &network.encoder.last_norm {
        norm.rows(&mut way.scratch.x);
    }
    way.fill(inputs, cache);
}

struct Way<'a> {
    network: &'a Network,
    /// Where the inputs lie among all tokens.
    spans: &'a [Range<usize>],
    /// The member's own tokens.
    own: Range<usize>,
    turns: Turns<'a>,
    scratch: &'a mut Scratch,
}

impl Way<'_> {
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

    fn layer(&mut self, encoder: &Encoder, layer: &EncoderLayer) {
        let (order, width, inner) = (self.network.order, self.network.width, encoder.heads.inner());
        let (attention, feed) = (&layer.attention, &layer.feed);
        let Scratch { x, copy, .. } = &mut *self.scratch;
        let parts = self.turns.share(self.own.len() * 3 * inner, |own| {
            let blocks =
                x.chunks(ROWS_AT_ONCE * width).zip(own.chunks_mut(ROWS_AT_ONCE * 3 * inner));
            for (x, own) in blocks {
                attention.qkv.rows(order.enter(&attention.norm, x, copy), x.len() / width, own);
            }
        });
        self.attend(encoder, &parts);
        drop(parts);

        // A block of tokens goes through the rest of the layer before the next one does: what is
        // made of it stays in the second-level cache.
        let Scratch { x, copy, context, wide, inner: wider, came, .. } = &mut *self.scratch;
        let blocks = x.chunks_mut(ROWS_AT_ONCE * width).zip(context.chunks(ROWS_AT_ONCE * inner));
        for (x, context) in blocks {
            let count = x.len() / width;
            came.resize(x.len(), 0.0);
            attention.out.rows(context, count, came);
            order.leave(&attention.norm, x, came);
            wider.resize(count * feed.inner(), 0.0);
            feed.widen(order.enter(&feed.norm, x, copy), count, 0..feed.pieces(), wide, wider);
            feed.down.rows(wider, count, came);
            order.leave(&feed.norm, x, came);
        }
    }

    /// Each of the member's own tokens attends to all tokens of its input.
    fn attend(&mut self, encoder: &Encoder, parts: &Parts<'_>) {
        let Scratch { keys, values, .. } = &mut *self.scratch;
        let (mut keys, mut values) = (std::mem::take(keys), std::mem::take(values));
        let Heads { count, width, .. } = encoder.heads;
        let inner = encoder.heads.inner();
        let shape = RowShape { heads: encoder.heads, stride: 3 * inner, keys: inner };
        let queries = parts.iter().nth(self.turns.member.index).unwrap_or_default();
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

    /// The context of one head for a block of the member's tokens, all of one input. `queries` are
    /// those of all of its tokens, with keys and values.
    fn attend_block(
        &mut self,
        encoder: &Encoder,
        head: usize,
        span: &Range<usize>,
        (queries, block): (&[f32], Range<usize>),
        (keys, values): (&[f32], &[f32]),
    ) {
        let Heads { width, scale, .. } = encoder.heads;
        let (inner, len) = (encoder.heads.inner(), span.len());
        let Scratch { context, scores, .. } = &mut *self.scratch;
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
            attend::weigh(row, scale, bias);
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

    /// Computes the keys and values that each decoder layer looks at, and packs those of the
    /// member's own heads.
    fn fill(&mut self, inputs: &[Input], cache: &mut Cache) {
        let (count, heads) = (self.own.len(), self.network.decoder.heads);
        let shape = RowShape { heads, stride: 2 * heads.inner(), keys: 0 };
        for (layer, weights) in self.network.decoder.layers.iter().enumerate() {
            let x = &self.scratch.x;
            let parts = self.turns.share(count * 2 * heads.inner(), |own| {
                weights.cross.key_value.rows(x, count, own);
            });
            for (input, span) in inputs.iter().zip(self.spans) {
                let own_heads = cache.heads.clone();
                let Some(source) = cache.source_mut(input.source) else { continue };
                for (own, head) in own_heads.enumerate() {
                    pack(&parts, shape, head, span, source.head_mut(layer, own));
                }
            }
        }
    }
}

/// How the rows of tokens lie in the parts: all keys, and then all values.
#[derive(Debug, Clone, Copy)]
struct RowShape {
    heads: Heads,
    /// Values of a row.
    stride: usize,
    /// Where in a row the keys begin.
    keys: usize,
}

/// Packs the keys and values of one head for the tokens of one input. The rows of all members
/// together are those of all tokens.
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
        attend::place((keys, values), span.len(), at, of(first), of(first + heads.inner()));
    }
}
