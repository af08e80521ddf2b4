//! The network of an encoder-decoder, as T5, BART and Marian have it, and where they differ.

use std::sync::Arc;

use crate::layers::relative_bias::RelativeBias;
use crate::seq2seq::feed_forward::FeedForwardWeights;
use crate::seq2seq::matrix::{Matrix, Table};
use crate::seq2seq::norm::RowNorm;

/// The weights of an encoder and a decoder.
#[derive(Debug)]
pub(super) struct Seq2SeqNetwork {
    /// Values of a token's row.
    pub(super) width: usize,
    pub(super) order: NormOrder,
    pub(super) encoder: EncoderStack,
    pub(super) decoder: DecoderStack,
    /// From rows to logits.
    pub(super) output: Arc<Matrix>,
    /// Rows are multiplied with this before the output layer.
    pub(super) output_scale: f32,
    /// Bytes that the weights hold in memory.
    pub(super) weight_bytes: u64,
}

/// Where a layer normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormOrder {
    /// Before each part of a layer, on a copy of the residual stream, and once at the end, as in T5.
    NormFirst,
    /// Behind each part of a layer, in the residual stream, as in BART.
    NormLast,
}

/// The encoder.
#[derive(Debug)]
pub(super) struct EncoderStack {
    pub(super) embedding: StackEmbedding,
    pub(super) heads: AttentionHeads,
    pub(super) bias: Option<RelativeBias>,
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) last_norm: Option<RowNorm>,
}

/// A layer of the encoder.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    pub(super) attention: SelfAttentionWeights,
    pub(super) feed: FeedForwardWeights,
}

/// The decoder.
#[derive(Debug)]
pub(super) struct DecoderStack {
    pub(super) embedding: StackEmbedding,
    pub(super) heads: AttentionHeads,
    pub(super) bias: Option<RelativeBias>,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) last_norm: Option<RowNorm>,
}

/// A layer of the decoder.
#[derive(Debug)]
pub(super) struct DecoderLayer {
    pub(super) attention: SelfAttentionWeights,
    pub(super) cross: CrossAttentionWeights,
    pub(super) feed: FeedForwardWeights,
}

/// The heads of a stack's attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionHeads {
    pub(super) count: usize,
    pub(super) width: usize,
    /// Scores are multiplied with this.
    pub(super) scale: f32,
}

impl AttentionHeads {
    /// Values of all heads together.
    pub(super) fn inner(self) -> usize {
        self.count * self.width
    }
}

/// Attention to the other tokens of the same text.
#[derive(Debug)]
pub(super) struct SelfAttentionWeights {
    pub(super) norm: RowNorm,
    /// To queries, then keys, then values of all heads.
    pub(super) qkv: Matrix,
    pub(super) out: Matrix,
}

/// The decoder's attention to the rows of the encoder.
#[derive(Debug)]
pub(super) struct CrossAttentionWeights {
    pub(super) norm: RowNorm,
    pub(super) query: Matrix,
    /// To keys, then values of all heads.
    pub(super) key_value: Matrix,
    pub(super) out: Matrix,
}

/// From tokens to the first rows of a stack.
#[derive(Debug)]
pub(super) struct StackEmbedding {
    pub(super) tokens: Table,
    pub(super) scale: f32,
    /// Learned or sinusoidal rows, one for each position, row-major; `None` if only the attention
    /// knows positions.
    pub(super) positions: Option<Vec<f32>>,
    pub(super) norm: Option<RowNorm>,
}

impl StackEmbedding {
    /// How many tokens of a text have a position; `None` if there is no limit.
    pub(super) fn positions(&self, width: usize) -> Option<usize> {
        self.positions.as_ref().map(|positions| positions.len() / width)
    }

    /// Writes one token's row, not normalised yet.
    pub(super) fn row(&self, token: u32, position: usize, row: &mut [f32]) {
        self.tokens.copy(usize::try_from(token).unwrap_or(usize::MAX), row);
        if self.scale != 1.0 {
            row.iter_mut().for_each(|x| *x *= self.scale);
        }
        if let Some(positions) = &self.positions {
            let added = &positions[position * row.len()..][..row.len()];
            row.iter_mut().zip(added).for_each(|(x, p)| *x += p);
        }
    }

    /// Normalises rows if the model does so.
    pub(super) fn finish(&self, rows: &mut [f32]) {
        if let Some(norm) = &self.norm {
            norm.rows(rows);
        }
    }
}

impl NormOrder {
    /// The input of a part of a layer: `x`, or its normalised copy.
    pub(super) fn input<'a>(
        self,
        norm: &RowNorm,
        x: &'a [f32],
        copy: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        match self {
            Self::NormFirst => {
                copy.clear();
                copy.extend_from_slice(x);
                norm.rows(copy);
                copy
            }
            Self::NormLast => x,
        }
    }

    /// Adds the output of a part of a layer to the residual stream `x`.
    pub(super) fn join(self, norm: &RowNorm, x: &mut [f32], output: &[f32]) {
        x.iter_mut().zip(output).for_each(|(x, y)| *x += y);
        if self == Self::NormLast {
            norm.rows(x);
        }
    }
}
