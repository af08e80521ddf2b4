//! A block of an encoder: its layers with their weights, and the position of its norms.

use crate::layers::attention_shape::Attention;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::rms_norm::HeadNorm;

/// Attention and feed-forward.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention: SelfAttention,
    pub(crate) feed_forward: FeedForward,
    pub(crate) norms: Norms,
}

/// Attention with its weights.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    /// Queries, keys and values, side by side.
    pub(crate) qkv: Linear,
    pub(crate) head_norm: Option<HeadNorm>,
    /// Index of the rotary embedding that is applied to queries and keys.
    pub(crate) rotary: Option<usize>,
    pub(crate) shape: Attention,
    pub(crate) output: Linear,
}

/// Two linear layers with an activation between them, and an optional gate.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) up: Linear,
    /// Its output multiplies the output of `up`.
    pub(crate) gate: Option<Linear>,
    pub(crate) down: Linear,
}

/// Where a block normalises.
#[derive(Debug)]
pub(crate) enum Norms {
    /// After each residual addition, as in BERT.
    After {
        /// After attention.
        attention: Norm,
        /// After the feed-forward.
        feed_forward: Norm,
    },
    /// Before each layer; the residual stream itself stays as it is.
    Before {
        /// The input of attention.
        attention: Option<Norm>,
        /// The output of attention, before it is added.
        attended: Option<Norm>,
        /// The input of the feed-forward.
        feed_forward: Norm,
        /// The output of the feed-forward, before it is added.
        fed: Option<Norm>,
    },
}
