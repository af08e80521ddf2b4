//! One step of a changing batch of answers: a token in, logits out, for each of them.
//!
//! Every member of the team goes through the whole network and keeps the whole residual stream for
//! itself, which is small. Products are split by their columns, attention by heads. Weights stream
//! through each processor once, whatever the number of answers.

use std::sync::Arc;

use crate::kernels::team::Member;
use crate::seq2seq::attend;
use crate::seq2seq::attend::{Head, Query};
use crate::seq2seq::exchange::{Exchange, Turns};
use crate::seq2seq::kv_cache::{BLOCK, Cache};
use crate::seq2seq::matrix::Matrix;
use crate::seq2seq::network::{CrossAttention, DecoderLayer, Network, SelfAttention};
use crate::seq2seq::norm::Norm;

/// One answer's part in a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) answer: u32,
    pub(crate) source: u32,
    /// The token to append.
    pub(crate) token: u32,
    /// Which of the answer's tokens it is.
    pub(crate) position: usize,
}

/// Activations of one member, kept from step to step.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The residual stream, and its normalised copy.
    x: Vec<f32>,
    copy: Vec<f32>,
    /// What was gathered from all members.
    whole: Vec<f32>,
    /// Queries, keys and values together, while contexts are made of them.
    qkv: Vec<f32>,
    wide: Vec<f32>,
}

/// One member's way through a step. The logits of its share of the vocabulary go to `logits`.
pub(crate) fn step(
    network: &Network,
    rows: &[Row],
    exchange: &Exchange,
    member: Member<'_>,
    (cache, scratch): (&mut Cache, &mut Scratch),
    logits: &mut Vec<f32>,
) {
    let mut way = Way { network, rows, turns: exchange.turns(member), cache, scratch };
    way.embed();
    for (index, layer) in network.decoder.layers.iter().enumerate() {
        way.layer(index, layer);
    }
    way.finish(logits);
}

struct Way<'a> {
    network: &'a Network,
    rows: &'a [Row],
    turns: Turns<'a>,
    cache: &'a mut Cache,
    scratch: &'a mut Scratch,
}

impl Way<'_> {
    fn embed(&mut self) {
        let (width, embedding) = (self.network.width, &self.network.decoder.embedding);
        let x = &mut self.scratch.x;
        x.resize(self.rows.len() * width, 0.0);
        for (row, x) in self.rows.iter().zip(x.chunks_exact_mut(width)) {
            embedding.row(row.token, row.position, x);
            self.cache.prepare(row.answer, row.position);
        }
        embedding.finish(x);
    }

    fn layer(&mut self, index: usize, layer: &DecoderLayer) {
        let order = self.network.order;
        self.attend_to_answers(index, &layer.attention);
        self.attend_to_sources(index, &layer.cross);

        let (feed, count, member) = (&layer.feed, self.rows.len(), self.turns.member);
        let Scratch { x, copy, whole, wide, .. } = &mut *self.scratch;
        let entering = order.enter(&feed.norm, x, copy);
        let pieces = member.part(feed.pieces());
        let parts = self.turns.share(count * feed.columns(&pieces).len(), |own| {
            feed.widen(entering, count, pieces, wide, own);
        });
        parts.beside(count, whole);
        drop(parts);
        self.product(&feed.down);
        order.leave(&feed.norm, &mut self.scratch.x, &self.scratch.whole);
    }

    /// Puts the product of what was gathered in its place.
    fn product(&mut self, matrix: &Matrix) {
        let (count, whole) = (self.rows.len(), &mut self.scratch.whole);
        let panels = self.turns.member.part(matrix.panels());
        let parts = self.turns.share(count * matrix.columns(&panels).len(), |own| {
            matrix.part(whole, count, panels, own);
        });
        parts.beside(count, whole);
    }

    /// The product of the residual stream, normalised if that is the order.
    fn enter(&mut self, norm: &Norm, matrix: &Matrix) {
        let (count, order, member) = (self.rows.len(), self.network.order, self.turns.member);
        let Scratch { x, copy, qkv, .. } = &mut *self.scratch;
        let entering = order.enter(norm, x, copy);
        let panels = member.part(matrix.panels());
        let parts = self.turns.share(count * matrix.columns(&panels).len(), |own| {
            matrix.part(entering, count, panels, own);
        });
        parts.beside(count, qkv);
    }

    fn attend_to_answers(&mut self, layer: usize, attention: &SelfAttention) {
        self.enter(&attention.norm, &attention.qkv);
        let decoder = &self.network.decoder;
        let (shape, inner, rows) = (decoder.heads, decoder.heads.inner(), self.rows);
        let Scratch { qkv, whole, .. } = &mut *self.scratch;
        let own_heads = self.cache.heads.clone();
        let cache = &mut *self.cache;
        let own_width = own_heads.len() * shape.width;
        let parts = self.turns.share(rows.len() * own_width, |out| {
            for (r, row) in rows.iter().enumerate() {
                let qkv = &qkv[r * 3 * inner..][..3 * inner];
                let out = &mut out[r * own_width..][..own_width];
                let Some((blocks, scores)) = cache.answer(row.answer) else { continue };
                for (own, index) in own_heads.clone().enumerate() {
                    let at =
                        |part: usize| &qkv[part * inner + index * shape.width..][..shape.width];
                    if let Some(block) = blocks.last_mut().and_then(Arc::get_mut) {
                        let place = block.head_mut(layer, own);
                        attend::place(place, BLOCK, row.position % BLOCK, at(1), at(2));
                    }
                    let head = Head { shape, layer, index, own, bias: decoder.bias.as_ref() };
                    let out = &mut out[own * shape.width..][..shape.width];
                    attend::to_answer(head, at(0), blocks, row.position, scores, out);
                }
            }
        });
        parts.beside(rows.len(), whole);
        drop(parts);
        self.leave(&attention.norm, &attention.out);
    }

    fn attend_to_sources(&mut self, layer: usize, attention: &CrossAttention) {
        self.enter(&attention.norm, &attention.query);
        let (shape, rows) = (self.network.decoder.heads, self.rows);
        let inner = shape.inner();
        let Scratch { qkv: queries, whole, .. } = &mut *self.scratch;
        let own_heads = self.cache.heads.clone();
        let cache = &mut *self.cache;
        let own_width = own_heads.len() * shape.width;
        let parts = self.turns.share(rows.len() * own_width, |out| {
            let mut first = 0;
            // Answers to one input that stand beside each other, such as beams, go through its
            // keys and values together.
            for group in rows.chunk_by(|a, b| a.source == b.source) {
                let Some((source, scores)) = cache.source(group[0].source) else { continue };
                for (own, index) in own_heads.clone().enumerate() {
                    let head = Head { shape, layer, index, own, bias: None };
                    let query = Query {
                        rows: &queries[first * inner + index * shape.width..],
                        stride: inner,
                        count: group.len(),
                    };
                    let out = &mut out[first * own_width + own * shape.width..];
                    attend::to_source(head, query, source, scores, (out, own_width));
                }
                first += group.len();
            }
        });
        parts.beside(rows.len(), whole);
        drop(parts);
        self.leave(&attention.norm, &attention.out);
    }

    fn leave(&mut self, norm: &Norm, out: &Matrix) {
        self.product(out);
        self.network.order.leave(norm, &mut self.scratch.x, &self.scratch.whole);
    }

    fn finish(self, logits: &mut Vec<f32>) {
        let Self { network, rows, turns, scratch, .. } = self;
        let x = &mut scratch.x;
        if let Some(norm) = &network.decoder.last_norm {
            norm.rows(x);
        }
        if network.output_scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= network.output_scale);
        }
        let panels = turns.member.part(network.output.panels());
        logits.resize(rows.len() * network.output.columns(&panels).len(), 0.0);
        network.output.part(x, rows.len(), panels, logits);
    }
}
