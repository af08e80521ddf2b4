//! The encoder of T5, as sentence-t5 uses it.

use crate::checkpoint::encoder_spec::{EncoderSpec, Widths};
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::t5_config::T5Config;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::block::{Block, FeedForward, Norms, SelfAttention};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::attention_shape::{Attention, Reach};
use crate::layers::embedding::Embedding;
use crate::layers::norm::Norm;
use crate::layers::relative_bias::RelativeBias;

/// The encoder's part of a T5 configuration.
#[derive(Debug)]
pub(crate) struct T5Encoder {
    name: &'static str,
    config: T5Config,
}

impl T5Encoder {
    pub(crate) fn read(name: &'static str, config: RawConfig<'_>) -> Result<Self, LoadError> {
        Ok(Self { name, config: T5Config::read(config)? })
    }

    fn shape(&self) -> Attention {
        // T5 does not scale scores: its weights are initialised accordingly.
        Attention {
            heads: self.config.heads,
            key_heads: self.config.heads,
            head_width: self.config.head_width,
            scale: 1.0,
            reach: Reach::All,
        }
    }

    fn block(&self, reader: &mut TensorReader<'_>, block: &str) -> Result<Block, LoadError> {
        let T5Config { width, inner, activation, is_gated, .. } = self.config;
        let context = self.shape().width();
        let mut linear = |parts: &[&str], inputs, outputs, activation| {
            let parts: Vec<_> =
                parts.iter().map(|part| (format!("{block}.layer.{part}"), outputs)).collect();
            reader.linear(&parts, inputs, Bias::None, activation)
        };
        let qkv = ["0.SelfAttention.q", "0.SelfAttention.k", "0.SelfAttention.v"];
        let attention = SelfAttention {
            qkv: linear(&qkv, width, context, Activation::None)?,
            head_norm: None,
            rotary: None,
            shape: self.shape(),
            output: linear(&["0.SelfAttention.o"], context, width, Activation::None)?,
        };
        let (up, gate) = if is_gated {
            let gate = linear(&["1.DenseReluDense.wi_1"], width, inner, Activation::None)?;
            ("1.DenseReluDense.wi_0", Some(gate))
        } else {
            ("1.DenseReluDense.wi", None)
        };
        let feed_forward = FeedForward {
            up: linear(&[up], width, inner, activation)?,
            gate,
            down: linear(&["1.DenseReluDense.wo"], inner, width, Activation::None)?,
        };
        let norms = Norms::Before {
            attention: Some(self.norm(reader, &format!("{block}.layer.0.layer_norm"))?),
            attended: None,
            feed_forward: self.norm(reader, &format!("{block}.layer.1.layer_norm"))?,
            fed: None,
        };
        Ok(Block { attention, feed_forward, norms })
    }

    fn norm(&self, reader: &mut TensorReader<'_>, name: &str) -> Result<Norm, LoadError> {
        reader.rms_norm(name, self.config.width, 0.0, self.config.epsilon).map(Norm::Rms)
    }
}

impl Architecture for T5Encoder {
    fn spec(&self) -> EncoderSpec {
        let shape = self.shape();
        EncoderSpec {
            name: self.name,
            vocabulary: self.config.vocabulary,
            positions: POSITIONS,
            positions_end: false,
            widths: Widths::new(self.config.width, shape, self.config.inner, self.config.is_gated),
        }
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        let T5Config { vocabulary, width, layers, heads, buckets, .. } = self.config;
        // The table has either name in the file, or both.
        let table = reader.first_of(&["shared.weight", "encoder.embed_tokens.weight"]);
        let embedding = Embedding::of_tokens(reader.table(table, &[vocabulary, width])?);
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let bias = reader.values(bias, &[buckets.count, heads])?;
        let blocks = (0..layers)
            .map(|i| self.block(reader, &format!("encoder.block.{i}")))
            .collect::<Result<_, _>>()?;
        let last_norm = Some(self.norm(reader, "encoder.final_layer_norm")?);
        reader.check_extra(&["encoder.block."])?;
        let bias = Some(RelativeBias::new(&bias, heads, buckets));
        let network = Network::of(embedding, blocks, self.spec().widths, reader.bytes());
        Ok(Network { bias, last_norm, ..network })
    }
}

/// T5 has relative positions and so no limit. This one keeps sizes sane.
const POSITIONS: usize = 1 << 20;
