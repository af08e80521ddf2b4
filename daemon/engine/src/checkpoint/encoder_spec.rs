//! What a configuration says about an encoder: its limits, and the widths of its activations.

use crate::layers::attention_shape::Attention;

/// The description of an encoder, from its configuration alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncoderSpec {
    /// Its name, such as `bert`.
    pub(crate) name: &'static str,
    /// Rows of the token table.
    pub(crate) vocabulary: usize,
    /// The longest sequence in tokens, unless the folder sets another limit.
    pub(crate) positions: usize,
    /// Whether positions are rows of a table, so that `positions` cannot be exceeded.
    pub(crate) positions_end: bool,
    /// Sizes of its activations.
    pub(crate) widths: Widths,
}

/// Values of one token in each of the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Widths {
    /// In the rows of the token table.
    pub(crate) embedding: usize,
    /// In the residual stream.
    pub(crate) hidden: usize,
    /// In the queries, keys and values together.
    pub(crate) qkv: usize,
    /// In the context that attention computes.
    pub(crate) context: usize,
    /// Between the layers of the feed-forward.
    pub(crate) inner: usize,
    /// Whether the feed-forward is gated and so computes `inner` values twice.
    pub(crate) gated: bool,
}

impl Widths {
    /// The widths of blocks with this attention, on embeddings as wide as the residual stream.
    pub(crate) fn new(hidden: usize, attention: Attention, inner: usize, gated: bool) -> Self {
        let (qkv, context) = (attention.qkv_width(), attention.width());
        Self { embedding: hidden, hidden, qkv, context, inner, gated }
    }

    /// Widths of the buffers that a forward pass computes in: the residual stream, the input or output
    /// of a layer beside it, the widest product, and the gate.
    pub(crate) fn buffers(self) -> [usize; 4] {
        let joining = self.hidden.max(self.context).max(self.embedding);
        let widest = self.qkv.max(self.inner).max(self.hidden);
        [self.hidden, joining, widest, if self.gated { self.inner } else { 0 }]
    }

    /// The sum of [`buffers`](Self::buffers).
    pub(crate) fn total(self) -> u64 {
        self.buffers().iter().map(|&width| width as u64).fold(0, u64::saturating_add)
    }
}
