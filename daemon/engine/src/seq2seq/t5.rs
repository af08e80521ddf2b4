//! T5, flan-T5 and mT5: their configuration and the names of their weights.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::layers::activation::Activation;
use crate::layers::relative_bias::{Buckets, RelativeBias};
use crate::seq2seq::defaults::ClassDefaults;
use crate::seq2seq::feed::FeedForward;
use crate::seq2seq::loader::Loader;
use crate::seq2seq::matrix::Table;
use crate::seq2seq::model::{Sizes, check_sizes};
use crate::seq2seq::network::{
    CrossAttention, Decoder, DecoderLayer, Embedding, Encoder, EncoderLayer, Heads, Network, Order,
    SelfAttention,
};
use crate::seq2seq::norm::Norm;

/// The same for all of them.
pub(crate) const DEFAULTS: ClassDefaults =
    ClassDefaults { decoder_start: 0, eos: 1, pad: 0, forced_eos: None };

/// What `config.json` says.
#[derive(Debug)]
pub(crate) struct Config {
    said: Said,
    activation: Activation,
    is_gated: bool,
    is_tied: bool,
}

#[derive(Debug, Deserialize)]
struct Said {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    #[serde(default = "buckets")]
    relative_attention_num_buckets: usize,
    #[serde(default = "max_distance")]
    relative_attention_max_distance: usize,
    #[serde(default = "epsilon")]
    layer_norm_epsilon: f32,
    #[serde(default = "projection")]
    feed_forward_proj: String,
    dense_act_fn: Option<String>,
    is_gated_act: Option<bool>,
    tie_word_embeddings: Option<bool>,
    /// Written since version 5 of transformers, which says of every T5 and mT5 that it is tied: a
    /// table for the output counts then where the file has one.
    scale_decoder_outputs: Option<bool>,
    transformers_version: Option<String>,
}

impl Said {
    /// Whether version 5 of transformers, or a later one, wrote it.
    fn is_of_version_5(&self) -> bool {
        let version = self.transformers_version.as_deref().unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        self.scale_decoder_outputs.is_some() || major.is_some_and(|major| major >= 5)
    }
}

fn buckets() -> usize {
    32
}

fn max_distance() -> usize {
    128
}

fn epsilon() -> f32 {
    1e-6
}

fn projection() -> String {
    "relu".to_owned()
}

impl Config {
    /// `file` is for messages.
    pub(crate) fn read(file: &Path, json: &Value) -> Result<Self, LoadError> {
        let said = Said::deserialize(json)
            .map_err(|source| LoadError::Json { file: file.to_owned(), source })?;
        let projection = said.feed_forward_proj.as_str();
        let gated = projection.strip_prefix("gated-");
        // The first flan-T5s said "gated-gelu" and meant the tangent's.
        let of_projection =
            if projection == "gated-gelu" { "gelu_new" } else { gated.unwrap_or(projection) };
        let name = said.dense_act_fn.as_deref().unwrap_or(of_projection);
        let Some(activation) = Activation::named(name) else {
            return Err(LoadError::Unsupported {
                file: file.to_owned(),
                what: "the activation",
                found: name.to_owned(),
                supported: Activation::NAMES,
            });
        };
        let is_gated = said.is_gated_act.unwrap_or(gated.is_some());
        // mT5 came after the first T5, and with a table of its own for the output.
        let is_tied = said.tie_word_embeddings.unwrap_or(json["model_type"] != "mt5");
        let config = Self { said, activation, is_gated, is_tied };
        config.check(file)?;
        Ok(config)
    }

    fn check(&self, file: &Path) -> Result<(), LoadError> {
        let said = &self.said;
        check_sizes(
            file,
            &[
                ("vocab_size", said.vocab_size),
                ("d_model", said.d_model),
                ("d_kv", said.d_kv),
                ("d_ff", said.d_ff),
                ("num_layers", said.num_layers),
                ("num_decoder_layers", self.decoder_layers()),
                ("num_heads", said.num_heads),
            ],
        )?;
        for (setting, found, least) in [
            ("relative_attention_num_buckets", said.relative_attention_num_buckets, 4),
            ("relative_attention_max_distance", said.relative_attention_max_distance, 1),
        ] {
            const MOST: usize = 1 << 16;
            if !(least..=MOST).contains(&found) {
                let (file, wanted) = (file.to_owned(), format!("between {least} and {MOST}"));
                return Err(LoadError::Setting { file, setting, found, wanted });
            }
        }
        Ok(())
    }

    fn decoder_layers(&self) -> usize {
        self.said.num_decoder_layers.unwrap_or(self.said.num_layers)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let inner = self.said.num_heads * self.said.d_kv;
        Sizes {
            vocabulary: self.said.vocab_size,
            width: self.said.d_model,
            inner,
            feed: self.said.d_ff,
            decoder_layers: self.decoder_layers(),
        }
    }

    /// Reads the weights that this configuration tells of.
    pub(crate) fn network(&self, weights: &Weights) -> Result<Network, LoadError> {
        Reader { config: self, loader: Loader::new(weights) }.network()
    }
}

struct Reader<'a> {
    config: &'a Config,
    loader: Loader<'a>,
}

impl Reader<'_> {
    fn network(mut self) -> Result<Network, LoadError> {
        let Said { vocab_size: vocabulary, d_model: width, .. } = self.config.said;
        let loader = &mut self.loader;
        let table = loader.one_of(&[
            "shared.weight",
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            if self.config.is_tied { "lm_head.weight" } else { "shared.weight" },
        ]);
        let has_both = loader.has("lm_head.weight") && loader.has("shared.weight");
        let is_new = self.config.said.is_of_version_5();
        let is_untied_anyhow = is_new && has_both;
        let (tokens, output) = if self.config.is_tied && !is_untied_anyhow {
            let output = Arc::new(loader.output(table, vocabulary, width)?);
            (Table::Tied(Arc::clone(&output)), output)
        } else {
            let tokens = loader.table(table, vocabulary, width)?;
            (tokens, Arc::new(loader.output("lm_head.weight", vocabulary, width)?))
        };
        let embedding =
            || Embedding { tokens: tokens.clone(), scale: 1.0, positions: None, norm: None };
        let (heads, layers) = (self.heads(), self.config.said.num_layers);
        let encoder = Encoder {
            embedding: embedding(),
            heads,
            bias: Some(self.bias("encoder", RelativeBias::new)?),
            layers: (0..layers).map(|i| self.encoder_layer(i)).collect::<Result<_, _>>()?,
            last_norm: Some(self.norm("encoder.final_layer_norm")?),
        };
        let layers = self.config.decoder_layers();
        let decoder = Decoder {
            embedding: embedding(),
            heads,
            bias: Some(self.bias("decoder", RelativeBias::causal)?),
            layers: (0..layers).map(|i| self.decoder_layer(i)).collect::<Result<_, _>>()?,
            last_norm: Some(self.norm("decoder.final_layer_norm")?),
        };
        self.loader.check_extra(|name| {
            let is_part = name.starts_with("encoder.") || name.starts_with("decoder.");
            let is_copy = name.ends_with(".embed_tokens.weight");
            // The first T5s have one, which no code ever used.
            let is_unused = name.ends_with("EncDecAttention.relative_attention_bias.weight");
            is_part && !is_copy && !is_unused
        })?;
        Ok(Network {
            width,
            order: Order::NormFirst,
            encoder,
            decoder,
            output,
            output_scale: match self.config.said.scale_decoder_outputs {
                Some(false) => 1.0,
                None if is_new || !self.config.is_tied => 1.0,
                Some(true) | None => 1.0 / as_f32(width).sqrt(),
            },
            weight_bytes: self.loader.bytes(),
        })
    }

    fn heads(&self) -> Heads {
        // T5 does not scale scores: its weights are drawn small instead.
        Heads { count: self.config.said.num_heads, width: self.config.said.d_kv, scale: 1.0 }
    }

    fn bias(
        &mut self,
        stack: &str,
        new: fn(&[f32], usize, Buckets) -> RelativeBias,
    ) -> Result<RelativeBias, LoadError> {
        let said = &self.config.said;
        let (heads, count) = (said.num_heads, said.relative_attention_num_buckets);
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let table = self.loader.values(&name, &[count, heads])?;
        let max_distance = said.relative_attention_max_distance;
        Ok(new(&table, heads, Buckets { count, max_distance }))
    }

    fn encoder_layer(&mut self, index: usize) -> Result<EncoderLayer, LoadError> {
        let layer = format!("encoder.block.{index}.layer");
        Ok(EncoderLayer {
            attention: self.self_attention(&format!("{layer}.0"))?,
            feed: self.feed(&format!("{layer}.1"))?,
        })
    }

    fn decoder_layer(&mut self, index: usize) -> Result<DecoderLayer, LoadError> {
        let layer = format!("decoder.block.{index}.layer");
        let (width, inner) = (self.config.said.d_model, self.heads().inner());
        let cross = format!("{layer}.1.EncDecAttention");
        Ok(DecoderLayer {
            attention: self.self_attention(&format!("{layer}.0"))?,
            cross: CrossAttention {
                norm: self.norm(&format!("{layer}.1.layer_norm"))?,
                query: self.matrix(&[format!("{cross}.q")], width, inner)?,
                key_value: self.matrix(
                    &["k", "v"].map(|p| format!("{cross}.{p}")),
                    width,
                    inner,
                )?,
                out: self.matrix(&[format!("{cross}.o")], inner, width)?,
            },
            feed: self.feed(&format!("{layer}.2"))?,
        })
    }

    fn self_attention(&mut self, layer: &str) -> Result<SelfAttention, LoadError> {
        let (width, inner) = (self.config.said.d_model, self.heads().inner());
        let name = |part: &str| format!("{layer}.SelfAttention.{part}");
        Ok(SelfAttention {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            qkv: self.matrix(&["q", "k", "v"].map(name), width, inner)?,
            out: self.matrix(&[name("o")], inner, width)?,
        })
    }

    fn feed(&mut self, layer: &str) -> Result<FeedForward, LoadError> {
        let (width, inner) = (self.config.said.d_model, self.config.said.d_ff);
        let name = |part: &str| format!("{layer}.DenseReluDense.{part}");
        let up = if self.config.is_gated {
            self.loader.gated([&name("wi_0"), &name("wi_1")], width, inner)?
        } else {
            self.matrix(&[name("wi")], width, inner)?
        };
        Ok(FeedForward {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            up,
            is_gated: self.config.is_gated,
            activation: self.config.activation,
            down: self.matrix(&[name("wo")], inner, width)?,
        })
    }

    fn matrix(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: usize,
    ) -> Result<crate::seq2seq::matrix::Matrix, LoadError> {
        self.loader.matrix(names, inputs, outputs, false)
    }

    fn norm(&mut self, name: &str) -> Result<Norm, LoadError> {
        let weight = self.loader.vector(&format!("{name}.weight"), self.config.said.d_model)?;
        Ok(Norm::RootMeanSquare { weight, epsilon: self.config.said.layer_norm_epsilon })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
fn as_f32(width: usize) -> f32 {
    width as f32
}
