//! The configuration of a network of any family.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::t5_config::{T5Config, T5DecoderConfig};
use crate::checkpoint::weights::Weights;
use crate::seq2seq::bart::BartWeights;
use crate::seq2seq::bart_config::BartConfig;
use crate::seq2seq::defaults::ClassDefaults;
use crate::seq2seq::family::Family;
use crate::seq2seq::network::Seq2SeqNetwork;
use crate::seq2seq::sizes::NetworkSizes;
use crate::seq2seq::t5::T5Weights;

/// The configuration of a network of any family.
#[derive(Debug)]
pub(super) enum NetworkConfig {
    T5(T5Config, T5DecoderConfig),
    Bart(BartConfig),
}

/// T5's class of transformers sets these.
const T5_DEFAULTS: ClassDefaults =
    ClassDefaults { decoder_start: 0, eos: 1, pad: 0, forced_eos: None };

impl NetworkConfig {
    pub(super) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        match Family::of_config(config)? {
            Family::T5 => {
                let shared = T5Config::read(config)?;
                let decoder = T5DecoderConfig::read(config, &shared)?;
                Ok(Self::T5(shared, decoder))
            }
            Family::Bart(kind) => Ok(Self::Bart(BartConfig::read(kind, config)?)),
        }
    }

    /// The token ids that the model's class sets if no file does.
    pub(super) fn class_defaults(&self) -> ClassDefaults {
        match self {
            Self::T5(..) => T5_DEFAULTS,
            Self::Bart(config) => config.class_defaults(),
        }
    }

    /// Reads the weights.
    pub(super) fn network(&self, weights: &Weights) -> Result<Seq2SeqNetwork, LoadError> {
        match self {
            Self::T5(shared, decoder) => T5Weights::new(shared, decoder, weights).network(),
            Self::Bart(config) => BartWeights::new(config, weights).network(),
        }
    }

    pub(super) fn sizes(&self) -> NetworkSizes {
        match self {
            Self::T5(shared, decoder) => NetworkSizes {
                vocabulary: shared.vocabulary,
                width: shared.width,
                inner: shared.heads * shared.head_width,
                feed: shared.inner,
                decoder_layers: decoder.layers,
            },
            Self::Bart(config) => config.sizes(),
        }
    }
}
