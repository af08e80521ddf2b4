//! The network of an encoder-decoder: what T5, BART and Marian have in common, and where they differ.

use std::sync::Arc;

use crate::layers::relative_bias::RelativeBias;
use crate::seq2seq::feed::FeedForward;
use crate::seq2seq::matrix::{Matrix, Table};
use crate::seq2seq::norm::Norm;

/// Weights of an encoder and a decoder, with what is fixed about their shape.
#[derive(Debug)]
pub(crate) struct Network {
    /// Values of a token's row.
    pub(crate) width: usize,
    pub(crate) order: Order,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
    /// From rows to logits.
    pub(crate) output: Arc<Matrix>,
    /// What rows are multiplied with before that.
    pub(crate) output_scale: f32,
    /// Bytes that the weights hold in memory.
    pub(crate) weight_bytes: u64,
}

/// Where a layer's norms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Before each part of a layer, beside the residual stream, and once at the end: T5.
    NormFirst,
    /// Behind each part, in the residual stream: BART.
    NormLast,
}

#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) embedding: Embedding,
    pub(crate) heads: Heads,
    pub(crate) bias: Option<RelativeBias>,
    pub(crate) layers: Vec<EncoderLayer>,
    pub(crate) last_norm: Option<Norm>,
}

#[derive(Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) feed: FeedForward,
}

#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) embedding: Embedding,
    pub(crate) heads: Heads,
    pub(crate) bias: Option<RelativeBias>,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) last_norm: Option<Norm>,
}

#[derive(Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) cross: CrossAttention,
    pub(crate) feed: FeedForward,
}

/// The heads of a stack's attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) width: usize,
    /// What scores are multiplied with.
    pub(crate) scale: f32,
}

impl Heads {
    /// Values of all heads together.
    pub(crate) fn inner(self) -> usize {
        self.count * self.width
    }
}

#[derive(Debug)]
pub(crate) struct SelfAttention {
    pub(crate) norm: Norm,
    /// All queries, all keys, all values.
    pub(crate) qkv: Matrix,
    pub(crate) out: Matrix,
}

#[derive(Debug)]
pub(crate) struct CrossAttention {
    pub(crate) norm: Norm,
    pub(crate) query: Matrix,
    /// All keys, all values.
    pub(crate) key_value: Matrix,
    pub(crate) out: Matrix,
}

/// From tokens to rows.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub(crate) tokens: Table,
    pub(crate) scale: f32,
    /// Added to the row at each position, one after the other; `None`: positions count elsewhere.
    pub(crate) positions: Option<Vec<f32>>,
    pub(crate) norm: Option<Norm>,
}

impl Embedding {
    /// How many tokens of one text it has positions for.
    pub(crate) fn reach(&self, width: usize) -> Option<usize> {
        self.positions.as_ref().map(|positions| positions.len() / width)
    }

    /// Writes one token's row, but for the norm.
    pub(crate) fn row(&self, token: u32, position: usize, row: &mut [f32]) {
        self.tokens.copy(usize::try_from(token).unwrap_or(usize::MAX), row);
        if self.scale != 1.0 {
            row.iter_mut().for_each(|x| *x *= self.scale);
        }
        if let Some(positions) = &self.positions {
            let added = &positions[position * row.len()..][..row.len()];
            row.iter_mut().zip(added).for_each(|(x, p)| *x += p);
        }
    }

    /// Normalises rows, where the model does so.
    pub(crate) fn finish(&self, rows: &mut [f32]) {
        if let Some(norm) = &self.norm {
            norm.rows(rows);
        }
    }
}

impl Order {
    /// What a part of a layer is given: `x`, or its normalised copy.
    pub(crate) fn enter<'a>(self, norm: &Norm, x: &'a [f32], copy: &'a mut Vec<f32>) -> &'a [f32] {
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

    /// Adds what a part of a layer came to.
    pub(crate) fn leave(self, norm: &Norm, x: &mut [f32], came: &[f32]) {
        x.iter_mut().zip(came).for_each(|(x, y)| *x += y);
        if self == Self::NormLast {
            norm.rows(x);
        }
    }
}
