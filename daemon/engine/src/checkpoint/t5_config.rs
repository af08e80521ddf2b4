//! The configuration of T5, mT5 and flan-T5, for a T5 encoder alone and for the whole of it.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::layers::activation::Activation;
use crate::layers::relative_bias::Buckets;

/// The settings that the encoder and the decoder share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct T5Config {
    /// Rows of the token table.
    pub(crate) vocabulary: usize,
    /// Values of a token's row.
    pub(crate) width: usize,
    /// Layers of the encoder.
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Values of a head; all heads together need not be as wide as a row.
    pub(crate) head_width: usize,
    /// Values between the two layers of the feed-forward.
    pub(crate) inner: usize,
    pub(crate) activation: Activation,
    /// Whether the feed-forward multiplies its activated values with a second product.
    pub(crate) is_gated: bool,
    pub(crate) buckets: Buckets,
    /// Of all norms.
    pub(crate) epsilon: f32,
}

/// The settings of the decoder and the output layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct T5DecoderConfig {
    pub(crate) layers: usize,
    /// Whether the configuration ties the output layer to the token table.
    is_tied: bool,
    /// Whether version 5 of transformers, or a later one, wrote the file.
    is_of_version_5: bool,
    /// Only written since version 5 of transformers.
    scales_output: Option<bool>,
}

impl T5Config {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        let (activation, is_gated) = feed_forward(config)?;
        let count = config.size_or("relative_attention_num_buckets", 32)?;
        let distance = config.size_or("relative_attention_max_distance", 128)?;
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            width: config.size("d_model")?,
            layers: config.size("num_layers")?,
            heads: config.size("num_heads")?,
            head_width: config.size("d_kv")?,
            inner: config.size("d_ff")?,
            activation,
            is_gated,
            buckets: config.buckets("relative_attention_num_buckets", count, distance)?,
            epsilon: config.positive_or("layer_norm_epsilon", 1e-6)?,
        })
    }
}

impl T5DecoderConfig {
    /// `shared` was read from the same file.
    pub(crate) fn read(config: RawConfig<'_>, shared: &T5Config) -> Result<Self, LoadError> {
        let scales_output = config.flag_if_there("scale_decoder_outputs")?;
        let version = config.text("transformers_version")?.unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        Ok(Self {
            layers: config.size_or("num_decoder_layers", shared.layers)?,
            // mT5 came later than T5 and has a table of its own for the output.
            is_tied: config.flag_or("tie_word_embeddings", !is_mt5(config)?)?,
            is_of_version_5: scales_output.is_some() || major.is_some_and(|major| major >= 5),
            scales_output,
        })
    }

    /// Whether the configuration ties the output layer to the token table.
    pub(crate) fn is_tied(&self) -> bool {
        self.is_tied
    }

    /// Whether the output layer uses the token table. `has_both`: the file has two tables; version 5
    /// of transformers says of every T5 and mT5 that it is tied, and then uses both.
    pub(crate) fn uses_token_table(&self, has_both: bool) -> bool {
        self.is_tied && !(self.is_of_version_5 && has_both)
    }

    /// Whether rows are divided by the root of their width before the output layer.
    pub(crate) fn scales_output(&self) -> bool {
        self.scales_output.unwrap_or(self.is_tied && !self.is_of_version_5)
    }
}

/// The activation of the feed-forward, and whether it is gated. `dense_act_fn` and `is_gated_act`
/// override what `feed_forward_proj` says, as in transformers.
fn feed_forward(config: RawConfig<'_>) -> Result<(Activation, bool), LoadError> {
    let default = if is_mt5(config)? { "gated-gelu" } else { "relu" };
    let projection = config.text("feed_forward_proj")?.unwrap_or(default);
    let gated = projection.strip_prefix("gated-");
    // By gated-gelu T5 means the approximation with tanh.
    let of_projection =
        if projection == "gated-gelu" { "gelu_new" } else { gated.unwrap_or(projection) };
    let activation = config.activation(config.text("dense_act_fn")?.unwrap_or(of_projection))?;
    Ok((activation, config.flag_or("is_gated_act", gated.is_some())?))
}

fn is_mt5(config: RawConfig<'_>) -> Result<bool, LoadError> {
    Ok(config.text("model_type")? == Some("mt5"))
}
