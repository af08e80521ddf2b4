//! One step of a changing batch of hypotheses: for each of them a token goes in and logits come out.
//!
//! Each member of the team goes through the whole network and keeps a residual stream of its own,
//! which is small. Products are split by columns, attention by heads. A step reads each weight from
//! memory once, whatever the number of hypotheses.

use std::sync::Arc;

use crate::kernels::team::Member;
use crate::seq2seq::attend::{
    AttentionHead, HeadQueries, attend_to_hypothesis, attend_to_input, pack_token,
};
use crate::seq2seq::exchange::{Exchange, MemberExchange};
use crate::seq2seq::kv_cache::{BLOCK, KvCache};
use crate::seq2seq::matrix::Matrix;
use crate::seq2seq::network::{
    CrossAttentionWeights, DecoderLayer, SelfAttentionWeights, Seq2SeqNetwork,
};
use crate::seq2seq::norm::RowNorm;

/// One hypothesis in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepRow {
    pub(super) hypothesis: u32,
    /// The input that it attends to.
    pub(super) input: u32,
    /// The token to append.
    pub(super) token: u32,
    /// The position of that token in the hypothesis.
    pub(super) position: usize,
}

/// Activations of one member, reused from step to step.
#[derive(Debug, Default)]
pub(super) struct StepScratch {
    /// The residual stream.
    x: Vec<f32>,
    /// Its normalised copy.
    copy: Vec<f32>,
    /// The joined parts of all members.
    whole: Vec<f32>,
    /// Queries, keys and values, from which contexts are computed.
    qkv: Vec<f32>,
    wide: Vec<f32>,
}

/// One member's pass through a step. The logits of its share of the vocabulary go to `logits`.
pub(super) fn step(
    network: &Seq2SeqNetwork,
    rows: &[StepRow],
    exchange: &Exchange,
    member: Member<'_>,
    (cache, scratch): (&mut KvCache, &mut StepScratch),
    logits: &mut Vec<f32>,
) {
    let mut pass = StepPass { network, rows, exchange: exchange.of_member(member), cache, scratch };
    pass.embed();
    for (index, layer) in network.decoder.layers.iter().enumerate() {
        pass.layer(index, layer);
    }
    pass.finish(logits);
}

struct StepPass<'a> {
    network: &'a Seq2SeqNetwork,
    rows: &'a [StepRow],
    exchange: MemberExchange<'a>,
    cache: &'a mut KvCache,
    scratch: &'a mut StepScratch,
}

impl StepPass<'_> {
    fn embed(&mut self) {
        let (width, embedding) = (self.network.width, &self.network.decoder.embedding);
        let x = &mut self.scratch.x;
        x.resize(self.rows.len() * width, 0.0);
        for (row, x) in self.rows.iter().zip(x.chunks_exact_mut(width)) {
            embedding.row(row.token, row.position, x);
            self.cache.prepare(row.hypothesis, row.position);
        }
        embedding.finish(x);
    }

    fn layer(&mut self, index: usize, layer: &DecoderLayer) {
        let order = self.network.order;
        self.self_attention(index, &layer.attention);
        self.cross_attention(index, &layer.cross);

        let (feed, count, member) = (&layer.feed, self.rows.len(), self.exchange.member);
        let StepScratch { x, copy, whole, wide, .. } = &mut *self.scratch;
        let entering = order.input(&feed.norm, x, copy);
        let panels = member.part(feed.panels());
        let parts = self.exchange.share(count * feed.columns(&panels).len(), |own| {
            feed.widen(entering, count, panels, wide, own);
        });
        parts.join_columns(count, whole);
        drop(parts);
        self.product(&feed.down);
        order.join(&feed.norm, &mut self.scratch.x, &self.scratch.whole);
    }

    /// Replaces the joined rows with their product.
    fn product(&mut self, matrix: &Matrix) {
        let (count, whole) = (self.rows.len(), &mut self.scratch.whole);
        let panels = self.exchange.member.part(matrix.panels());
        let parts = self.exchange.share(count * matrix.columns(&panels).len(), |own| {
            matrix.part(whole, count, panels, own);
        });
        parts.join_columns(count, whole);
    }

    /// Computes queries, and keys and values if `matrix` has them, from the input of an attention.
    fn project(&mut self, norm: &RowNorm, matrix: &Matrix) {
        let (count, order, member) = (self.rows.len(), self.network.order, self.exchange.member);
        let StepScratch { x, copy, qkv, .. } = &mut *self.scratch;
        let entering = order.input(norm, x, copy);
        let panels = member.part(matrix.panels());
        let parts = self.exchange.share(count * matrix.columns(&panels).len(), |own| {
            matrix.part(entering, count, panels, own);
        });
        parts.join_columns(count, qkv);
    }

    fn self_attention(&mut self, layer: usize, attention: &SelfAttentionWeights) {
        self.project(&attention.norm, &attention.qkv);
        let decoder = &self.network.decoder;
        let (heads, inner, rows) = (decoder.heads, decoder.heads.inner(), self.rows);
        let StepScratch { qkv, whole, .. } = &mut *self.scratch;
        let own_heads = self.cache.heads.clone();
        let cache = &mut *self.cache;
        let own_width = own_heads.len() * heads.width;
        let parts = self.exchange.share(rows.len() * own_width, |out| {
            for (r, row) in rows.iter().enumerate() {
                let qkv = &qkv[r * 3 * inner..][..3 * inner];
                let out = &mut out[r * own_width..][..own_width];
                let Some((blocks, scores)) = cache.hypothesis(row.hypothesis) else { continue };
                for (own, index) in own_heads.clone().enumerate() {
                    let at =
                        |part: usize| &qkv[part * inner + index * heads.width..][..heads.width];
                    if let Some(block) = blocks.last_mut().and_then(Arc::get_mut) {
                        let packed = block.head_mut(layer, own);
                        pack_token(packed, BLOCK, row.position % BLOCK, at(1), at(2));
                    }
                    let head =
                        AttentionHead { heads, layer, index, own, bias: decoder.bias.as_ref() };
                    let out = &mut out[own * heads.width..][..heads.width];
                    attend_to_hypothesis(head, at(0), blocks, row.position, scores, out);
                }
            }
        });
        parts.join_columns(rows.len(), whole);
        drop(parts);
        self.add_projected(&attention.norm, &attention.out);
    }

    fn cross_attention(&mut self, layer: usize, attention: &CrossAttentionWeights) {
        self.project(&attention.norm, &attention.query);
        let (heads, rows) = (self.network.decoder.heads, self.rows);
        let inner = heads.inner();
        let StepScratch { qkv: all_queries, whole, .. } = &mut *self.scratch;
        let own_heads = self.cache.heads.clone();
        let cache = &mut *self.cache;
        let own_width = own_heads.len() * heads.width;
        let parts = self.exchange.share(rows.len() * own_width, |out| {
            let mut first = 0;
            // Neighbouring hypotheses of one input, such as beams, read its keys and values once.
            for group in rows.chunk_by(|a, b| a.input == b.input) {
                let Some((input, scores)) = cache.input(group[0].input) else { continue };
                for (own, index) in own_heads.clone().enumerate() {
                    let head = AttentionHead { heads, layer, index, own, bias: None };
                    let queries = HeadQueries {
                        rows: &all_queries[first * inner + index * heads.width..],
                        stride: inner,
                        count: group.len(),
                    };
                    let out = &mut out[first * own_width + own * heads.width..];
                    attend_to_input(head, queries, input, scores, (out, own_width));
                }
                first += group.len();
            }
        });
        parts.join_columns(rows.len(), whole);
        drop(parts);
        self.add_projected(&attention.norm, &attention.out);
    }

    /// Adds the product of the joined contexts to the residual stream.
    fn add_projected(&mut self, norm: &RowNorm, out: &Matrix) {
        self.product(out);
        self.network.order.join(norm, &mut self.scratch.x, &self.scratch.whole);
    }

    fn finish(self, logits: &mut Vec<f32>) {
        let Self { network, rows, exchange, scratch, .. } = self;
        let x = &mut scratch.x;
        if let Some(norm) = &network.decoder.last_norm {
            norm.rows(x);
        }
        if network.output_scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= network.output_scale);
        }
        let panels = exchange.member.part(network.output.panels());
        logits.resize(rows.len() * network.output.columns(&panels).len(), 0.0);
        network.output.part(x, rows.len(), panels, logits);
    }
}
