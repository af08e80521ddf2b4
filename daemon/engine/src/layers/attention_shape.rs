//! The shape of attention, shared by its kernel and its tensor operations.

use std::ops::Range;

/// The shape of multi-head self-attention. It has no weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attention {
    /// Heads of the queries.
    pub(crate) heads: usize,
    /// Heads of the keys and values; each is shared by `heads / key_heads` heads of queries.
    pub(crate) key_heads: usize,
    pub(crate) head_width: usize,
    /// The factor of the scores before their softmax.
    pub(crate) scale: f32,
    pub(crate) reach: Reach,
}

/// Which tokens of its sequence a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All tokens.
    All,
    /// Itself and the tokens before it.
    Before,
    /// Tokens at most this many positions away, on either side.
    Near(usize),
}

impl Attention {
    /// BERT's attention: each head has its own keys, and each token attends to all.
    pub(crate) fn full(heads: usize, head_width: usize) -> Self {
        let scale = 1.0 / as_f32(head_width).sqrt();
        Self { heads, key_heads: heads, head_width, scale, reach: Reach::All }
    }

    /// Values of a token's context.
    pub(crate) fn width(self) -> usize {
        self.heads * self.head_width
    }

    /// Values of a token's queries, keys and values.
    pub(crate) fn qkv_width(self) -> usize {
        (self.heads + 2 * self.key_heads) * self.head_width
    }
}

impl Reach {
    /// The keys that a range of queries attends to, in a sequence of `len` tokens.
    #[inline(always)]
    pub(crate) fn keys(self, queries: Range<usize>, len: usize) -> Range<usize> {
        match self {
            Self::All => 0..len,
            Self::Before => 0..queries.end,
            Self::Near(far) => {
                queries.start.saturating_sub(far)..queries.end.saturating_add(far).min(len)
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a head is far below 2^24 values wide")]
fn as_f32(width: usize) -> f32 {
    width as f32
}
