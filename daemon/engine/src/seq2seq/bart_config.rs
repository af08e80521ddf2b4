//! The configuration of BART and Marian.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::layers::activation::Activation;
use crate::seq2seq::defaults::ClassDefaults;
use crate::seq2seq::family::BartKind;
use crate::seq2seq::sizes::NetworkSizes;

/// The settings of a BART or a Marian.
#[derive(Debug)]
pub(super) struct BartConfig {
    pub(super) kind: BartKind,
    /// Rows of the encoder's token table.
    pub(super) vocabulary: usize,
    /// Rows of the decoder's token table and of the output layer.
    pub(super) decoder_vocabulary: usize,
    /// Values of a token's row; also those of all attention heads together.
    pub(super) width: usize,
    pub(super) positions: usize,
    pub(super) encoder: BartStackConfig,
    pub(super) decoder: BartStackConfig,
    pub(super) activation: Activation,
    /// Whether the rows of tokens are multiplied by the root of their width.
    pub(super) scales_embedding: bool,
    /// Whether both stacks have the same token table. Only Marian's can differ.
    pub(super) shares_tables: bool,
    /// Whether the output layer uses the decoder's token table.
    pub(super) is_tied: bool,
}

/// The settings of one stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct BartStackConfig {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_width: usize,
    /// Values inside the feed-forward.
    pub(super) feed: usize,
}

impl BartConfig {
    pub(super) fn read(kind: BartKind, config: RawConfig<'_>) -> Result<Self, LoadError> {
        let width = config.size("d_model")?;
        let stack = |layers, heads, feed| -> Result<BartStackConfig, LoadError> {
            let heads = config.size(heads)?;
            Ok(BartStackConfig {
                layers: config.size(layers)?,
                heads,
                head_width: config.parts("d_model", width, heads)?,
                feed: config.size(feed)?,
            })
        };
        let vocabulary = config.size("vocab_size")?;
        let shares_tables =
            config.flag_or("share_encoder_decoder_embeddings", true)? || kind == BartKind::Bart;
        let decoder_vocabulary = match config.size_if_there("decoder_vocab_size")? {
            Some(size) if !shares_tables => size,
            _ => vocabulary,
        };
        let positions = config.size("max_position_embeddings")?;
        // No tensor bounds them: sinusoids are computed.
        if kind == BartKind::Marian && positions > MAX_SINUSOIDS {
            let wanted = format!("at most {MAX_SINUSOIDS}");
            return Err(config.setting("max_position_embeddings", positions, wanted));
        }
        Ok(Self {
            kind,
            vocabulary,
            decoder_vocabulary,
            width,
            positions,
            encoder: stack("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")?,
            decoder: stack("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim")?,
            activation: config.activation_or("activation_function", Activation::Gelu)?,
            scales_embedding: config.flag_or("scale_embedding", false)?,
            shares_tables,
            is_tied: config.flag_or("tie_word_embeddings", true)?,
        })
    }

    /// The token ids that the model's class in transformers sets if no file does.
    pub(super) fn class_defaults(&self) -> ClassDefaults {
        match self.kind {
            BartKind::Bart => {
                ClassDefaults { decoder_start: 2, eos: 2, pad: 1, forced_eos: Some(2) }
            }
            BartKind::Marian => {
                ClassDefaults { decoder_start: 58_100, eos: 0, pad: 58_100, forced_eos: Some(0) }
            }
        }
    }

    pub(super) fn sizes(&self) -> NetworkSizes {
        NetworkSizes {
            vocabulary: self.decoder_vocabulary,
            width: self.width,
            inner: self.width,
            feed: self.encoder.feed.max(self.decoder.feed),
            decoder_layers: self.decoder.layers,
        }
    }
}

/// The most sinusoidal positions.
const MAX_SINUSOIDS: usize = 1 << 14;
