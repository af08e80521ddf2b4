//! T5, flan-T5 and mT5: the names of their tensors, and how these become a network.

use std::sync::Arc;

use candle_core::Device;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::t5_config::{T5Config, T5DecoderConfig};
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::weights::Weights;
use crate::layers::relative_bias::{Buckets, RelativeBias};
use crate::seq2seq::feed_forward::FeedForwardWeights;
use crate::seq2seq::matrix::{Matrix, Table};
use crate::seq2seq::network::{
    AttentionHeads, CrossAttentionWeights, DecoderLayer, DecoderStack, EncoderLayer, EncoderStack,
    NormOrder, SelfAttentionWeights, Seq2SeqNetwork, StackEmbedding,
};
use crate::seq2seq::norm::RowNorm;

/// The tensors of a T5.
pub(super) struct T5Weights<'a> {
    config: &'a T5Config,
    decoder: &'a T5DecoderConfig,
    reader: TensorReader<'a>,
}

impl<'a> T5Weights<'a> {
    pub(super) fn new(
        config: &'a T5Config,
        decoder: &'a T5DecoderConfig,
        weights: &'a Weights,
    ) -> Self {
        Self { config, decoder, reader: TensorReader::new(weights, &Device::Cpu) }
    }

    /// Reads the network.
    pub(super) fn network(mut self) -> Result<Seq2SeqNetwork, LoadError> {
        let width = self.config.width;
        let (tokens, output) = self.tables()?;
        let embedding =
            || StackEmbedding { tokens: tokens.clone(), scale: 1.0, positions: None, norm: None };
        let encoder = EncoderStack {
            embedding: embedding(),
            heads: self.heads(),
            bias: Some(self.bias("encoder", RelativeBias::new)?),
            layers: (0..self.config.layers)
                .map(|i| self.encoder_layer(i))
                .collect::<Result<_, _>>()?,
            last_norm: Some(self.norm("encoder.final_layer_norm")?),
        };
        let decoder = DecoderStack {
            embedding: embedding(),
            heads: self.heads(),
            bias: Some(self.bias("decoder", RelativeBias::causal)?),
            layers: (0..self.decoder.layers)
                .map(|i| self.decoder_layer(i))
                .collect::<Result<_, _>>()?,
            last_norm: Some(self.norm("decoder.final_layer_norm")?),
        };
        self.reader.check_extra_where(|name| {
            let is_part = name.starts_with("encoder.") || name.starts_with("decoder.");
            let is_copy = name.ends_with(".embed_tokens.weight");
            // The first T5s have one, but no code ever used it.
            let is_unused = name.ends_with("EncDecAttention.relative_attention_bias.weight");
            is_part && !is_copy && !is_unused
        })?;
        self.reader.log_unread();
        let output_scale =
            if self.decoder.scales_output() { 1.0 / as_f32(width).sqrt() } else { 1.0 };
        Ok(Seq2SeqNetwork {
            width,
            order: NormOrder::NormFirst,
            encoder,
            decoder,
            output,
            output_scale,
            weight_bytes: self.reader.bytes(),
        })
    }

    /// The token table and the output layer, which may share their weights.
    fn tables(&mut self) -> Result<(Table, Arc<Matrix>), LoadError> {
        let T5Config { vocabulary, width, .. } = *self.config;
        let reader = &mut self.reader;
        let last = if self.decoder.is_tied() { "lm_head.weight" } else { "shared.weight" };
        let table = reader.first_of(&[
            "shared.weight",
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            last,
        ]);
        let has_both = reader.contains("lm_head.weight") && reader.contains("shared.weight");
        if self.decoder.uses_token_table(has_both) {
            let output = Arc::new(reader.output(table, vocabulary, width)?);
            return Ok((Table::Tied(Arc::clone(&output)), output));
        }
        let tokens = reader.token_rows(table, vocabulary, width)?;
        Ok((tokens, Arc::new(reader.output("lm_head.weight", vocabulary, width)?)))
    }

    fn heads(&self) -> AttentionHeads {
        // T5 does not scale scores: its weights are initialised accordingly.
        AttentionHeads { count: self.config.heads, width: self.config.head_width, scale: 1.0 }
    }

    fn bias(
        &mut self,
        stack: &str,
        new: fn(&[f32], usize, Buckets) -> RelativeBias,
    ) -> Result<RelativeBias, LoadError> {
        let T5Config { heads, buckets, .. } = *self.config;
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let table = self.reader.values(&name, &[buckets.count, heads])?;
        Ok(new(&table, heads, buckets))
    }

    fn encoder_layer(&mut self, index: usize) -> Result<EncoderLayer, LoadError> {
        let layer = format!("encoder.block.{index}.layer");
        Ok(EncoderLayer {
            attention: self.self_attention(&format!("{layer}.0"))?,
            feed: self.feed_forward(&format!("{layer}.1"))?,
        })
    }

    fn decoder_layer(&mut self, index: usize) -> Result<DecoderLayer, LoadError> {
        let layer = format!("decoder.block.{index}.layer");
        let (width, inner) = (self.config.width, self.heads().inner());
        let name = |part: &str| format!("{layer}.1.EncDecAttention.{part}");
        Ok(DecoderLayer {
            attention: self.self_attention(&format!("{layer}.0"))?,
            cross: CrossAttentionWeights {
                norm: self.norm(&format!("{layer}.1.layer_norm"))?,
                query: self.matrix(&[name("q")], width, inner)?,
                key_value: self.matrix(&["k", "v"].map(name), width, inner)?,
                out: self.matrix(&[name("o")], inner, width)?,
            },
            feed: self.feed_forward(&format!("{layer}.2"))?,
        })
    }

    fn self_attention(&mut self, layer: &str) -> Result<SelfAttentionWeights, LoadError> {
        let (width, inner) = (self.config.width, self.heads().inner());
        let name = |part: &str| format!("{layer}.SelfAttention.{part}");
        Ok(SelfAttentionWeights {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            qkv: self.matrix(&["q", "k", "v"].map(name), width, inner)?,
            out: self.matrix(&[name("o")], inner, width)?,
        })
    }

    fn feed_forward(&mut self, layer: &str) -> Result<FeedForwardWeights, LoadError> {
        let T5Config { width, inner, is_gated, activation, .. } = *self.config;
        let name = |part: &str| format!("{layer}.DenseReluDense.{part}");
        let up = if is_gated {
            self.reader.gated([&name("wi_0"), &name("wi_1")], width, inner)?
        } else {
            self.matrix(&[name("wi")], width, inner)?
        };
        Ok(FeedForwardWeights {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            up,
            is_gated,
            activation,
            down: self.matrix(&[name("wo")], inner, width)?,
        })
    }

    fn matrix(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: usize,
    ) -> Result<Matrix, LoadError> {
        self.reader.matrix(names, inputs, outputs, false)
    }

    fn norm(&mut self, name: &str) -> Result<RowNorm, LoadError> {
        let T5Config { width, epsilon, .. } = *self.config;
        let weight = self.reader.values(&format!("{name}.weight"), &[width])?;
        Ok(RowNorm::RootMeanSquare { weight, epsilon })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
fn as_f32(width: usize) -> f32 {
    width as f32
}
