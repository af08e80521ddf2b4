//! Gemma 3 for text as in EmbeddingGemma, with bidirectional attention.

use serde_json::Value;

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
pub(crate) struct Gemma3 {
    encoder: PreNormEncoder,
    /// For each block, whether it attends to all tokens.
    is_global: Vec<bool>,
    /// How far the other blocks attend, on either side.
    near: usize,
    global_base: f32,
    local_base: f32,
}

impl Gemma3 {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        if config.json["use_bidirectional_attention"] != true {
            let what = "use_bidirectional_attention";
            return Err(config.unsupported(what, "false", "true, as in EmbeddingGemma"));
        }
        config.only("attn_logit_softcapping", &Value::Null, "null")?;
        let heads = config.size("num_attention_heads")?;
        let key_heads = config.size_or("num_key_value_heads", heads)?;
        config.parts("num_attention_heads", heads, key_heads)?;
        let head_width = config.even_heads("head_dim", config.size_or("head_dim", 256)?)?;
        let width = config.size("hidden_size")?;
        #[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
        let (scalar, embedding_scale) = (head_width as f32, (width as f32).sqrt());
        let scalar = config.positive_or("query_pre_attn_scalar", scalar)?;
        let scale = 1.0 / scalar.sqrt();
        let encoder = PreNormEncoder {
            vocabulary: config.size("vocab_size")?,
            width,
            shape: Attention { heads, key_heads, head_width, scale, reach: Reach::All },
            inner: config.size("intermediate_size")?,
            activation: config.activation_or("hidden_activation", Activation::GeluTanh)?,
            positions: config.size("max_position_embeddings")?,
            attention_bias: config.flag_or("attention_bias", false)?.into(),
            epsilon: config.positive_or("rms_norm_eps", 1e-6)?,
            norm_offset: NORM_OFFSET,
            has_post_norms: true,
            embedding_scale,
        };
        let (global, local) = ("full_attention", "sliding_attention");
        Ok(Self {
            encoder,
            is_global: global_blocks(config)?,
            // The reference halves the window of a bidirectional model, and then counts the token
            // itself in both halves.
            near: config.size_or("sliding_window", 4096)? / 2,
            global_base: config.rotary_base_of(global, "rope_theta", 1_000_000.0)?,
            local_base: config.rotary_base_of(local, "rope_local_base_freq", 10_000.0)?,
        })
    }
}

impl Architecture for Gemma3 {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("gemma3_text")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        let layers = self.is_global.iter().map(|&is_global| PreNormLayer {
            reach: if is_global { Reach::All } else { Reach::Near(self.near) },
            rotary: usize::from(!is_global),
        });
        self.encoder.network(reader, layers, &[self.global_base, self.local_base])
    }
}

/// For each block whether it attends to all tokens: from `layer_types`, or one in
/// `sliding_window_pattern` blocks.
fn global_blocks(config: RawConfig<'_>) -> Result<Vec<bool>, LoadError> {
    let layers = config.size("num_hidden_layers")?;
    if let Some(blocks) = config.global_blocks()? {
        return Ok(blocks);
    }
    let pattern = config.size_or("sliding_window_pattern", 6)?;
    if layers > MOST_LAYERS {
        let wanted = format!("at most {MOST_LAYERS}");
        return Err(config.setting("num_hidden_layers", layers, wanted));
    }
    Ok((1..=layers).map(|layer| layer.is_multiple_of(pattern)).collect())
}

/// Gemma's files store the weights of norms minus this.
const NORM_OFFSET: f32 = 1.0;

/// Far more layers than any model has, and few enough to be listed.
const MOST_LAYERS: usize = 1 << 12;
