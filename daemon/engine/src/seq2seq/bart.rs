//! BART and Marian: the names of their tensors, and how these become a network.

use std::sync::Arc;

use candle_core::Device;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::weights::Weights;
use crate::seq2seq::bart_config::{BartConfig, BartStackConfig};
use crate::seq2seq::family::BartKind;
use crate::seq2seq::feed_forward::FeedForwardWeights;
use crate::seq2seq::matrix::{Matrix, Table};
use crate::seq2seq::network::{
    AttentionHeads, CrossAttentionWeights, DecoderLayer, DecoderStack, EncoderLayer, EncoderStack,
    NormOrder, SelfAttentionWeights, Seq2SeqNetwork, StackEmbedding,
};
use crate::seq2seq::norm::RowNorm;

/// The tensors of a BART or a Marian.
pub(super) struct BartWeights<'a> {
    config: &'a BartConfig,
    reader: TensorReader<'a>,
    /// Precedes all names but those of the output layer; empty if the file was saved without it.
    prefix: &'static str,
}

impl<'a> BartWeights<'a> {
    pub(super) fn new(config: &'a BartConfig, weights: &'a Weights) -> Self {
        let has_prefix = weights.names().any(|name| name.starts_with("model."));
        let reader = TensorReader::new(weights, &Device::Cpu);
        Self { config, reader, prefix: if has_prefix { "model." } else { "" } }
    }

    /// Reads the network.
    pub(super) fn network(mut self) -> Result<Seq2SeqNetwork, LoadError> {
        let config = self.config;
        let ([encoder_tokens, decoder_tokens], output) = self.tables()?;
        let stack = |name, BartStackConfig { heads, head_width, feed, .. }| {
            let scale = 1.0 / as_f32(head_width).sqrt();
            Stack { name, heads: AttentionHeads { count: heads, width: head_width, scale }, feed }
        };
        let of_encoder = stack("encoder", config.encoder);
        let of_decoder = stack("decoder", config.decoder);
        let encoder = EncoderStack {
            embedding: self.embedding("encoder", encoder_tokens)?,
            heads: of_encoder.heads,
            bias: None,
            layers: (0..config.encoder.layers)
                .map(|i| self.encoder_layer(of_encoder, i))
                .collect::<Result<_, _>>()?,
            last_norm: None,
        };
        let decoder = DecoderStack {
            embedding: self.embedding("decoder", decoder_tokens)?,
            heads: of_decoder.heads,
            bias: None,
            layers: (0..config.decoder.layers)
                .map(|i| self.decoder_layer(of_decoder, i))
                .collect::<Result<_, _>>()?,
            last_norm: None,
        };
        let prefix = self.prefix;
        self.reader.check_extra_where(|name| {
            let own = name.strip_prefix(prefix).unwrap_or(name);
            let is_part = own.starts_with("encoder.") || own.starts_with("decoder.");
            // Copies of the shared table, and Marian's sinusoids.
            let is_known =
                own.ends_with(".embed_tokens.weight") || own.ends_with(".embed_positions.weight");
            is_part && !is_known
        })?;
        self.reader.log_unread();
        Ok(Seq2SeqNetwork {
            width: config.width,
            order: NormOrder::NormLast,
            encoder,
            decoder,
            output,
            output_scale: 1.0,
            weight_bytes: self.reader.bytes(),
        })
    }

    /// The token tables of encoder and decoder, and the output layer, which may share the weights of
    /// one of them.
    fn tables(&mut self) -> Result<([Table; 2], Arc<Matrix>), LoadError> {
        let BartConfig { width, is_tied, shares_tables, decoder_vocabulary, .. } = *self.config;
        let prefix = self.prefix;
        let [shared, of_encoder, of_decoder] =
            ["shared", "encoder.embed_tokens", "decoder.embed_tokens"]
                .map(|name| format!("{prefix}{name}.weight"));
        let reader = &mut self.reader;
        let output_name = if !is_tied {
            "lm_head.weight"
        } else if shares_tables {
            reader.first_of(&[&shared, &of_encoder, &of_decoder, "lm_head.weight"])
        } else {
            reader.first_of(&[&of_decoder, "lm_head.weight"])
        };
        let mut output = reader.output(output_name, decoder_vocabulary, width)?;
        if reader.contains("final_logits_bias") {
            let bias = reader.values("final_logits_bias", &[1, decoder_vocabulary])?;
            output.set_bias(0, &bias);
        }
        let output = Arc::new(output);
        let decoder_tokens = if is_tied {
            Table::Tied(Arc::clone(&output))
        } else {
            // The decoder's own table comes first: it may differ from the shared one.
            let names = [of_decoder.as_str(), &shared, &of_encoder];
            let names = if shares_tables { &names[..] } else { &names[..1] };
            reader.token_rows(reader.first_of(names), decoder_vocabulary, width)?
        };
        let has_own = !is_tied && reader.contains(&of_encoder) && reader.contains(&of_decoder);
        let encoder_tokens = if shares_tables && !has_own {
            decoder_tokens.clone()
        } else {
            reader.token_rows(&of_encoder, self.config.vocabulary, width)?
        };
        Ok(([encoder_tokens, decoder_tokens], output))
    }

    fn embedding(&mut self, stack: &str, tokens: Table) -> Result<StackEmbedding, LoadError> {
        let BartConfig { kind, width, positions, scales_embedding, .. } = *self.config;
        let scale = if scales_embedding { as_f32(width).sqrt() } else { 1.0 };
        let (positions, norm) = match kind {
            BartKind::Marian => (sinusoids(positions, width), None),
            BartKind::Bart => {
                let name = format!("{}{stack}.embed_positions.weight", self.prefix);
                let mut table = self.reader.values(&name, &[positions + POSITION_OFFSET, width])?;
                table.drain(..POSITION_OFFSET * width);
                (table, Some(self.norm(&format!("{stack}.layernorm_embedding"))?))
            }
        };
        Ok(StackEmbedding { tokens, scale, positions: Some(positions), norm })
    }

    fn encoder_layer(&mut self, stack: Stack, index: usize) -> Result<EncoderLayer, LoadError> {
        let layer = format!("{}.layers.{index}", stack.name);
        Ok(EncoderLayer {
            attention: self.self_attention(stack, &layer)?,
            feed: self.feed_forward(stack, &layer)?,
        })
    }

    fn decoder_layer(&mut self, stack: Stack, index: usize) -> Result<DecoderLayer, LoadError> {
        let layer = format!("{}.layers.{index}", stack.name);
        let inner = stack.heads.inner();
        let name = |part: &str| format!("{layer}.encoder_attn.{part}_proj");
        Ok(DecoderLayer {
            attention: self.self_attention(stack, &layer)?,
            cross: CrossAttentionWeights {
                norm: self.norm(&format!("{layer}.encoder_attn_layer_norm"))?,
                query: self.matrix(&[name("q")], inner, inner)?,
                key_value: self.matrix(&["k", "v"].map(name), inner, inner)?,
                out: self.matrix(&[name("out")], inner, inner)?,
            },
            feed: self.feed_forward(stack, &layer)?,
        })
    }

    fn self_attention(
        &mut self,
        stack: Stack,
        layer: &str,
    ) -> Result<SelfAttentionWeights, LoadError> {
        let inner = stack.heads.inner();
        let name = |part: &str| format!("{layer}.self_attn.{part}_proj");
        Ok(SelfAttentionWeights {
            norm: self.norm(&format!("{layer}.self_attn_layer_norm"))?,
            qkv: self.matrix(&["q", "k", "v"].map(name), inner, inner)?,
            out: self.matrix(&[name("out")], inner, inner)?,
        })
    }

    fn feed_forward(&mut self, stack: Stack, layer: &str) -> Result<FeedForwardWeights, LoadError> {
        let width = self.config.width;
        Ok(FeedForwardWeights {
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
        self.reader.matrix(&names, inputs, outputs, true)
    }

    fn norm(&mut self, name: &str) -> Result<RowNorm, LoadError> {
        let (width, prefix) = (self.config.width, self.prefix);
        Ok(RowNorm::Layer {
            weight: self.reader.values(&format!("{prefix}{name}.weight"), &[width])?,
            bias: self.reader.values(&format!("{prefix}{name}.bias"), &[width])?,
            epsilon: EPSILON,
        })
    }
}

/// One of the two stacks.
#[derive(Debug, Clone, Copy)]
struct Stack {
    name: &'static str,
    heads: AttentionHeads,
    feed: usize,
}

/// Marian's positions, row by row: the sines of all frequencies, then the cosines.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "small numbers, computed in 64 bits and rounded once, as the reference does"
)]
fn sinusoids(positions: usize, width: usize) -> Vec<f32> {
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

/// Unused rows in front of BART's learned positions: the first version counted positions from the
/// padding token's id on.
const POSITION_OFFSET: usize = 2;

/// What layer norms add to a variance; there is no setting for it.
const EPSILON: f32 = 1e-5;
