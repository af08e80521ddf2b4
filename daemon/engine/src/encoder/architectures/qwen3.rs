//! Qwen3: a decoder as an encoder. Its attention is causal, unless the folder says otherwise.

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures::pre_norm::{PreNormEncoder, PreNormLayer};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::attention_shape::{Attention, Reach};

/// Its settings.
#[derive(Debug)]
pub(crate) struct Qwen3 {
    encoder: PreNormEncoder,
    layers: usize,
    base: f32,
}

impl Qwen3 {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        config.only("use_sliding_window", &false.into(), "false")?;
        let heads = config.size("num_attention_heads")?;
        let key_heads = config.size_or("num_key_value_heads", heads)?;
        config.parts("num_attention_heads", heads, key_heads)?;
        let head_width = config.even_heads("head_dim", config.size_or("head_dim", 128)?)?;
        let is_causal = config.flag_or("is_causal", true)?;
        let reach = if is_causal { Reach::Before } else { Reach::All };
        let encoder = PreNormEncoder {
            vocabulary: config.size("vocab_size")?,
            width: config.size("hidden_size")?,
            shape: Attention { key_heads, reach, ..Attention::full(heads, head_width) },
            inner: config.size("intermediate_size")?,
            activation: config.activation_or("hidden_act", Activation::Silu)?,
            positions: config.size("max_position_embeddings")?,
            attention_bias: config.flag_or("attention_bias", false)?.into(),
            epsilon: config.positive_or("rms_norm_eps", 1e-6)?,
            norm_offset: 0.0,
            has_post_norms: false,
            embedding_scale: 1.0,
        };
        let layers = config.size("num_hidden_layers")?;
        Ok(Self { encoder, layers, base: config.rotary_base("rope_theta", 10_000.0)? })
    }
}

impl Architecture for Qwen3 {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("qwen3")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        let layer = PreNormLayer { reach: self.encoder.shape.reach, rotary: 0 };
        let layers = (0..self.layers).map(|_| layer);
        self.encoder.network(reader, layers, &[self.base])
    }
}
