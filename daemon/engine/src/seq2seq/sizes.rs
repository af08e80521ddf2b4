//! How much memory a computation takes besides weights.

/// The sizes of a network that determine its memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetworkSizes {
    /// Rows of the output layer.
    pub(super) vocabulary: usize,
    /// Values of a token's row.
    pub(super) width: usize,
    /// Values of all attention heads together.
    pub(super) inner: usize,
    /// Values inside the feed-forward.
    pub(super) feed: usize,
    pub(super) decoder_layers: usize,
}

impl NetworkSizes {
    /// Bytes of keys, values and activations for [`INPUTS`] inputs and a team of `threads`.
    pub(super) fn computing_bytes(self, threads: usize) -> u64 {
        let Self { vocabulary, width, inner, feed, decoder_layers } = self;
        // A configuration may claim any sizes: no product overflows in 128 bits.
        let [vocabulary, width, inner, feed, layers, threads] =
            [vocabulary, width, inner, feed, decoder_layers, threads].map(|n| n as u128);
        let inputs = INPUTS as u128;
        let (input_tokens, output_tokens) =
            (inputs * INPUT_TOKENS as u128, inputs * OUTPUT_TOKENS as u128);
        // Keys and values of inputs and hypotheses.
        let caches = (input_tokens + output_tokens) * layers * 2 * inner;
        // For each token in the encoder, at most: the residual stream, its normalised copy and a
        // product that joins it; queries, keys and values (twice: the exchange has two sets) and the
        // context; the inner values of the feed-forward and their gate.
        let encoding = input_tokens * (3 * width + 8 * inner + 3 * feed);
        let stepping = inputs * (threads * (3 * width + 4 * inner + 2 * feed) + 2 * vocabulary);
        u64::try_from(caches + encoding + stepping).unwrap_or(u64::MAX).saturating_mul(4)
    }
}

/// Assumed inputs at a time, each with one hypothesis.
const INPUTS: usize = 8;
const INPUT_TOKENS: usize = 512;
const OUTPUT_TOKENS: usize = 128;
