//! BART and Marian: their configuration and the names of their weights.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::layers::activation::Activation;
use crate::seq2seq::defaults::ClassDefaults;
use crate::seq2seq::feed::FeedForward;
use crate::seq2seq::loader::Loader;
use crate::seq2seq::matrix::{Matrix, Table};
use crate::seq2seq::model::{Sizes, check_sizes};
use crate::seq2seq::network::{
    CrossAttention, Decoder, DecoderLayer, Embedding, Encoder, EncoderLayer, Heads, Network, Order,
    SelfAttention,
};
use crate::seq2seq::norm::Norm;

/// Rows in front of BART's positions: the first version counted from the padding's number on.
const POSITION_OFFSET: usize = 2;

/// The most positions that a table of sines is made for.
const MOST_SINES: usize = 1 << 14;

/// What layer norms add to a variance; no configuration says it.
const EPSILON: f32 = 1e-5;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Learned positions, a norm behind the embedding.
    Bart,
    /// Positions of sines, no norm; the stacks may have vocabularies of their own.
    Marian,
}

impl Kind {
    pub(crate) fn defaults(self) -> ClassDefaults {
        match self {
            Self::Bart => ClassDefaults { decoder_start: 2, eos: 2, pad: 1, forced_eos: Some(2) },
            Self::Marian => {
                ClassDefaults { decoder_start: 58_100, eos: 0, pad: 58_100, forced_eos: Some(0) }
            }
        }
    }
}

/// What `config.json` says.
#[derive(Debug)]
pub(crate) struct Config {
    kind: Kind,
    said: Said,
    activation: Activation,
}

#[derive(Debug, Deserialize)]
struct Said {
    vocab_size: usize,
    decoder_vocab_size: Option<usize>,
    d_model: usize,
    encoder_layers: usize,
    decoder_layers: usize,
    encoder_attention_heads: usize,
    decoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_ffn_dim: usize,
    max_position_embeddings: usize,
    #[serde(default = "activation")]
    activation_function: String,
    #[serde(default)]
    scale_embedding: bool,
    #[serde(default = "yes")]
    share_encoder_decoder_embeddings: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn activation() -> String {
    "gelu".to_owned()
}

fn yes() -> bool {
    true
}

impl Config {
    /// `file` is for messages.
    pub(crate) fn read(kind: Kind, file: &Path, json: &Value) -> Result<Self, LoadError> {
        let said = Said::deserialize(json)
            .map_err(|source| LoadError::Json { file: file.to_owned(), source })?;
        let Some(activation) = Activation::named(&said.activation_function) else {
            return Err(LoadError::Unsupported {
                file: file.to_owned(),
                what: "the activation",
                found: said.activation_function,
                supported: Activation::NAMES,
            });
        };
        let config = Self { kind, said, activation };
        config.check(file)?;
        Ok(config)
    }

    fn check(&self, file: &Path) -> Result<(), LoadError> {
        let said = &self.said;
        check_sizes(
            file,
            &[
                ("vocab_size", said.vocab_size),
                ("decoder_vocab_size", self.decoder_vocabulary()),
                ("d_model", said.d_model),
                ("encoder_layers", said.encoder_layers),
                ("decoder_layers", said.decoder_layers),
                ("encoder_attention_heads", said.encoder_attention_heads),
                ("decoder_attention_heads", said.decoder_attention_heads),
                ("encoder_ffn_dim", said.encoder_ffn_dim),
                ("decoder_ffn_dim", said.decoder_ffn_dim),
                ("max_position_embeddings", said.max_position_embeddings),
            ],
        )?;
        // Nothing in the file says that a configuration exaggerates: sines need no weights.
        if self.kind == Kind::Marian && said.max_position_embeddings > MOST_SINES {
            return Err(LoadError::Setting {
                file: file.to_owned(),
                setting: "max_position_embeddings",
                found: said.max_position_embeddings,
                wanted: format!("at most {MOST_SINES}"),
            });
        }
        for heads in [said.encoder_attention_heads, said.decoder_attention_heads] {
            if !said.d_model.is_multiple_of(heads) {
                let (setting, found) = ("d_model", said.d_model);
                let (file, wanted) = (file.to_owned(), format!("a multiple of {heads} heads"));
                return Err(LoadError::Setting { file, setting, found, wanted });
            }
        }
        Ok(())
    }

    /// Only Marian's stacks can differ.
    fn has_one_table(&self) -> bool {
        self.kind == Kind::Bart || self.said.share_encoder_decoder_embeddings
    }

    fn decoder_vocabulary(&self) -> usize {
        match self.said.decoder_vocab_size {
            Some(size) if !self.has_one_table() => size,
            _ => self.said.vocab_size,
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            vocabulary: self.decoder_vocabulary(),
            width: self.said.d_model,
            inner: self.said.d_model,
            feed: self.said.encoder_ffn_dim.max(self.said.decoder_ffn_dim),
            decoder_layers: self.said.decoder_layers,
        }
    }

    /// Reads the weights that this configuration tells of.
    pub(crate) fn network(&self, weights: &Weights) -> Result<Network, LoadError> {
        let loader = Loader::new(weights);
        // Without it where the file was saved without the output layer.
        let has_prefix = weights.names().any(|name| name.starts_with("model."));
        Reader { config: self, loader, prefix: if has_prefix { "model." } else { "" } }.network()
    }
}

struct Reader<'a> {
    config: &'a Config,
    loader: Loader<'a>,
    prefix: &'static str,
}

/// One of the two stacks.
#[derive(Debug, Clone, Copy)]
struct Stack {
    name: &'static str,
    heads: Heads,
    feed: usize,
}

impl Reader<'_> {
    fn network(mut self) -> Result<Network, LoadError> {
        let Config { said, .. } = self.config;
        let (tables, output) = self.tables()?;
        let stack = |name, heads, feed| {
            let head_width = said.d_model / heads;
            let scale = 1.0 / as_f32(head_width).sqrt();
            Stack { name, heads: Heads { count: heads, width: head_width, scale }, feed }
        };
        let of_encoder = stack("encoder", said.encoder_attention_heads, said.encoder_ffn_dim);
        let of_decoder = stack("decoder", said.decoder_attention_heads, said.decoder_ffn_dim);
        let [encoder_tokens, decoder_tokens] = tables;
        let encoder = Encoder {
            embedding: self.embedding("encoder", encoder_tokens)?,
            heads: of_encoder.heads,
            bias: None,
            layers: (0..said.encoder_layers)
                .map(|i| self.encoder_layer(of_encoder, i))
                .collect::<Result<_, _>>()?,
            last_norm: None,
        };
        let decoder = Decoder {
            embedding: self.embedding("decoder", decoder_tokens)?,
            heads: of_decoder.heads,
            bias: None,
            layers: (0..said.decoder_layers)
                .map(|i| self.decoder_layer(of_decoder, i))
                .collect::<Result<_, _>>()?,
            last_norm: None,
        };
        let prefix = self.prefix;
        self.loader.check_extra(|name| {
            let own = name.strip_prefix(prefix).unwrap_or(name);
            let is_part = own.starts_with("encoder.") || own.starts_with("decoder.");
            // Copies of the shared table, and Marian's sines.
            let is_known =
                own.ends_with(".embed_tokens.weight") || own.ends_with(".embed_positions.weight");
            is_part && !is_known
        })?;
        Ok(Network {
            width: said.d_model,
            order: Order::NormLast,
            encoder,
            decoder,
            output,
            output_scale: 1.0,
            weight_bytes: self.loader.bytes(),
        })
    }

    /// The tables of encoder and decoder, and the output layer that shares its weights with one.
    fn tables(&mut self) -> Result<([Table; 2], Arc<Matrix>), LoadError> {
        let Config { said, .. } = self.config;
        let (width, prefix) = (said.d_model, self.prefix);
        let decoder_rows = self.config.decoder_vocabulary();
        let [shared, of_encoder, of_decoder] =
            ["shared", "encoder.embed_tokens", "decoder.embed_tokens"]
                .map(|name| format!("{prefix}{name}.weight"));
        let loader = &mut self.loader;
        let is_one = self.config.has_one_table();
        let output_name = if !said.tie_word_embeddings {
            "lm_head.weight"
        } else if is_one {
            loader.one_of(&[&shared, &of_encoder, &of_decoder, "lm_head.weight"])
        } else {
            loader.one_of(&[&of_decoder, "lm_head.weight"])
        };
        let mut output = loader.output(output_name, decoder_rows, width)?;
        if loader.has("final_logits_bias") {
            output.set_bias(0, &loader.values("final_logits_bias", &[1, decoder_rows])?);
        }
        let output = Arc::new(output);
        let decoder_tokens = if said.tie_word_embeddings {
            Table::Tied(Arc::clone(&output))
        } else {
            // Its own comes first: nothing says that it is a copy of the shared one.
            let names = [of_decoder.as_str(), &shared, &of_encoder];
            let names = if is_one { &names[..] } else { &names[..1] };
            loader.table(loader.one_of(names), decoder_rows, width)?
        };
        let has_own =
            !said.tie_word_embeddings && loader.has(&of_encoder) && loader.has(&of_decoder);
        let encoder_tokens = if is_one && !has_own {
            decoder_tokens.clone()
        } else {
            loader.table(&of_encoder, said.vocab_size, width)?
        };
        Ok(([encoder_tokens, decoder_tokens], output))
    }

    fn embedding(&mut self, stack: &str, tokens: Table) -> Result<Embedding, LoadError> {
        let said = &self.config.said;
        let width = said.d_model;
        let scale = if said.scale_embedding { as_f32(width).sqrt() } else { 1.0 };
        let name = |part: &str| format!("{}{stack}.{part}", self.prefix);
        let (positions, norm) = match self.config.kind {
            Kind::Marian => (sines(said.max_position_embeddings, width), None),
            Kind::Bart => {
                let rows = said.max_position_embeddings + POSITION_OFFSET;
                let name = name("embed_positions.weight");
                let mut positions = self.loader.values(&name, &[rows, width])?;
                positions.drain(..POSITION_OFFSET * width);
                (positions, Some(self.norm(&format!("{stack}.layernorm_embedding"))?))
            }
        };
        Ok(Embedding { tokens, scale, positions: Some(positions), norm })
    }

    fn encoder_layer(&mut self, stack: Stack, index: usize) -> Result<EncoderLayer, LoadError> {
        let layer = format!("{}.layers.{index}", stack.name);
        Ok(EncoderLayer {
            attention: self.self_attention(stack, &layer)?,
            feed: self.feed(stack, &layer)?,
        })
    }

    fn decoder_layer(&mut self, stack: Stack, index: usize) -> Result<DecoderLayer, LoadError> {
        let layer = format!("{}.layers.{index}", stack.name);
        let inner = stack.heads.inner();
        let name = |part: &str| format!("{layer}.encoder_attn.{part}_proj");
        Ok(DecoderLayer {
            attention: self.self_attention(stack, &layer)?,
            cross: CrossAttention {
                norm: self.norm(&format!("{layer}.encoder_attn_layer_norm"))?,
                query: self.matrix(&[name("q")], inner, inner)?,
                key_value: self.matrix(&["k", "v"].map(name), inner, inner)?,
                out: self.matrix(&[name("out")], inner, inner)?,
            },
            feed: self.feed(stack, &layer)?,
        })
    }

    fn self_attention(&mut self, stack: Stack, layer: &str) -> Result<SelfAttention, LoadError> {
        let inner = stack.heads.inner();
        let name = |part: &str| format!("{layer}.self_attn.{part}_proj");
        Ok(SelfAttention {
            norm: self.norm(&format!("{layer}.self_attn_layer_norm"))?,
            qkv: self.matrix(&["q", "k", "v"].map(name), inner, inner)?,
            out: self.matrix(&[name("out")], inner, inner)?,
        })
    }

    fn feed(&mut self, stack: Stack, layer: &str) -> Result<FeedForward, LoadError> {
        let width = self.config.said.d_model;
        Ok(FeedForward {
            norm: self.norm(&format!("{layer}.final_layer_norm"))?,
            up: self.matrix(&[format!("{layer}.fc1")], width, stack.feed)?,
            is_gated: false,
            activation: self.config.activation,
            down: self.matrix(&[format!("{layer}.fc2")], stack.feed, width)?,
        })
    }

    fn matrix(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: usize,
    ) -> Result<Matrix, LoadError> {
        let names: Vec<String> = names.iter().map(|n| format!("{}{n}", self.prefix)).collect();
        self.loader.matrix(&names, inputs, outputs, true)
    }

    fn norm(&mut self, name: &str) -> Result<Norm, LoadError> {
        let (width, prefix) = (self.config.said.d_model, self.prefix);
        Ok(Norm::Layer {
            weight: self.loader.vector(&format!("{prefix}{name}.weight"), width)?,
            bias: self.loader.vector(&format!("{prefix}{name}.bias"), width)?,
            epsilon: EPSILON,
        })
    }
}

/// Marian's positions: the sines of all frequencies, then the cosines.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "small numbers, computed in 64 bits and rounded once, as the reference does"
)]
fn sines(positions: usize, width: usize) -> Vec<f32> {
    let half = width.div_ceil(2);
    let angle = |position: usize, pair: usize| {
        position as f64 / 10_000_f64.powf(2.0 * pair as f64 / width as f64)
    };
    let row = |position| {
        let sines = (0..half).map(move |pair| angle(position, pair).sin());
        let cosines = (0..width / 2).map(move |pair| angle(position, pair).cos());
        sines.chain(cosines).map(|x| x as f32)
    };
    (0..positions).flat_map(row).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
fn as_f32(width: usize) -> f32 {
    width as f32
}
