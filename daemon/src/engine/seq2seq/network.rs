//! The network of an encoder-decoder: what T5, BART and Marian have in common, and where they differ.

use std::sync::Arc;

use super::feed::FeedForward;
use super::matrix::{Matrix, Table};
use super::norm::Norm;
use crate::engine::layers::relative_bias::RelativeBias;

/// Weights of an encoder and a decoder, with what is fixed about their shape.
#[derive(Debug)]
pub(super) struct Network {
    /// Values of a token's row.
    pub(super) width: usize,
    pub(super) order: Order,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    /// From rows to logits.
    pub(super) output: Arc<Matrix>,
    /// What rows are multiplied with before that.
    pub(super) output_scale: f32,
    /// Bytes that the weights hold in memory.
    pub(super) weight_bytes: u64,
}

/// Where a layer's norms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Before each part of a layer, beside the residual stream, and once at the end: T5.
    NormFirst,
    /// Behind each part, in the residual stream: BART.
    NormLast,
}

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) embedding: Embedding,
    pub(super) heads: Heads,
    pub(super) bias: Option<RelativeBias>,
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) last_norm: Option<Norm>,
}

#[derive(Debug)]
pub(super) struct EncoderLayer {
    pub(super) attention: SelfAttention,
    pub(super) feed: FeedForward,
}

#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) embedding: Embedding,
    pub(super) heads: Heads,
    pub(super) bias: Option<RelativeBias>,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) last_norm: Option<Norm>,
}

#[derive(Debug)]
pub(super) struct DecoderLayer {
    pub(super) attention: SelfAttention,
    pub(super) cross: CrossAttention,
    pub(super) feed: FeedForward,
}

/// The heads of a stack's attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) count: usize,
    pub(super) width: usize,
    /// What scores are multiplied with.
    pub(super) scale: f32,
}

impl Heads {
    /// Values of all heads together.
    pub(super) fn inner(self) -> usize {
        self.count * self.width
    }
}

#[derive(Debug)]
pub(super) struct SelfAttention {
    pub(super) norm: Norm,
    /// All queries, all keys, all values.
    pub(super) qkv: Matrix,
    pub(super) out: Matrix,
}

#[derive(Debug)]
pub(super) struct CrossAttention {
    pub(super) norm: Norm,
    pub(super) query: Matrix,
    /// All keys, all values.
    pub(super) key_value: Matrix,
    pub(super) out: Matrix,
}

/// From tokens to rows.
#[derive(Debug)]
pub(super) struct Embedding {
    pub(super) tokens: Table,
    pub(super) scale: f32,
    /// Added to the row at each position, one after the other; `None`: positions count elsewhere.
    pub(super) positions: Option<Vec<f32>>,
    pub(super) norm: Option<Norm>,
}

impl Embedding {
    /// How many tokens of one text it has positions for.
    pub(super) fn reach(&self, width: usize) -> Option<usize> {
        self.positions.as_ref().map(|positions| positions.len() / width)
    }

    /// Writes one token's row, but for the norm.
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

    /// Normalises rows, where the model does so.
    pub(super) fn finish(&self, rows: &mut [f32]) {
        if let Some(norm) = &self.norm {
            norm.rows(rows);
        }
    }
}

impl Order {
    /// What a part of a layer is given: `x`, or its normalised copy.
    pub(super) fn enter<'a>(self, norm: &Norm, x: &'a [f32], copy: &'a mut Vec<f32>) -> &'a [f32] {
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
    pub(super) fn leave(self, norm: &Norm, x: &mut [f32], came: &[f32]) {
        x.iter_mut().zip(came).for_each(|(x, y)| *x += y);
        if self == Self::NormLast {
            norm.rows(x);
        }
    }
}
