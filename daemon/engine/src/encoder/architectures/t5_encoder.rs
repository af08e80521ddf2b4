//! The encoder of T5, as sentence-t5 uses it.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::{Architecture, Facts};
use crate::encoder::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, Reach};
use crate::layers::embedding::Embedding;
use crate::layers::norm::Norm;
use crate::layers::relative_bias::{Buckets, RelativeBias};

/// T5 tells places apart by distance alone, and so sets no limit; this one keeps sizes sane.
const POSITIONS: usize = 1 << 20;

/// What its `config.json` says.
#[derive(Debug)]
pub(crate) struct T5Encoder {
    name: &'static str,
    vocabulary: usize,
    width: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    inner: usize,
    activation: Activation,
    gated: bool,
    buckets: Buckets,
    epsilon: f32,
}

impl T5Encoder {
    pub(crate) fn read(name: &'static str, settings: Settings<'_>) -> Result<Self, LoadError> {
        let (activation, gated) = match settings.text("feed_forward_proj").unwrap_or("relu") {
            "relu" => (Activation::Relu, false),
            "gelu" => (Activation::Gelu, false),
            // What T5 calls the GELU is the one by the hyperbolic tangent, where it is gated.
            "gated-gelu" => (Activation::GeluTanh, true),
            "gated-relu" => (Activation::Relu, true),
            "gated-silu" => (Activation::Silu, true),
            other => {
                let supported = "relu, gelu, gated-gelu, gated-relu, gated-silu";
                return Err(settings.unsupported("the feed-forward", other, supported));
            }
        };
        let count = settings.size_or("relative_attention_num_buckets", 32)?;
        let distance = settings.size_or("relative_attention_max_distance", 128)?;
        Ok(Self {
            name,
            vocabulary: settings.size("vocab_size")?,
            width: settings.size("d_model")?,
            layers: settings.size("num_layers")?,
            heads: settings.size("num_heads")?,
            head_width: settings.size("d_kv")?,
            inner: settings.size("d_ff")?,
            activation,
            gated,
            buckets: settings.buckets("relative_attention_num_buckets", count, distance)?,
            epsilon: settings.positive_or("layer_norm_epsilon", 1e-6)?,
        })
    }

    fn shape(&self) -> Attention {
        // The scale is within the weights.
        Attention {
            heads: self.heads,
            key_heads: self.heads,
            head_width: self.head_width,
            scale: 1.0,
            reach: Reach::All,
        }
    }

    fn block(&self, reader: &mut Reader<'_>, block: &str) -> Result<Block, LoadError> {
        let (width, inner, context) = (self.width, self.inner, self.shape().width());
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
        let (up, gate) = if self.gated {
            let gate = linear(&["1.DenseReluDense.wi_1"], width, inner, Activation::None)?;
            ("1.DenseReluDense.wi_0", Some(gate))
        } else {
            ("1.DenseReluDense.wi", None)
        };
        let feed = FeedForward {
            up: linear(&[up], width, inner, self.activation)?,
            gate,
            down: linear(&["1.DenseReluDense.wo"], inner, width, Activation::None)?,
        };
        let norms = Norms::Before {
            attention: Some(self.norm(reader, &format!("{block}.layer.0.layer_norm"))?),
            attended: None,
            feed: self.norm(reader, &format!("{block}.layer.1.layer_norm"))?,
            fed: None,
        };
        Ok(Block { attention, feed, norms })
    }

    fn norm(&self, reader: &mut Reader<'_>, name: &str) -> Result<Norm, LoadError> {
        reader.rms_norm(name, self.width, 0.0, self.epsilon).map(Norm::Rms)
    }
}

impl Architecture for T5Encoder {
    fn facts(&self) -> Facts {
        let shape = self.shape();
        Facts {
            name: self.name,
            vocabulary: self.vocabulary,
            positions: POSITIONS,
            positions_end: false,
            widths: Widths {
                hidden: self.width,
                qkv: shape.qkv_width(),
                context: shape.width(),
                inner: self.inner,
                gated: self.gated,
            },
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        // The table is written under either name, and sometimes under both.
        let names = ["shared.weight", "encoder.embed_tokens.weight"];
        let table = names.iter().find(|name| reader.contains(name)).unwrap_or(&names[0]);
        let embedding = Embedding {
            tokens: reader.table(table, &[self.vocabulary, self.width])?,
            scale: 1.0,
            segments: None,
            positions: None,
            norm: None,
        };
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let bias = reader.values(bias, &[self.buckets.count, self.heads])?;
        let blocks = (0..self.layers)
            .map(|i| self.block(reader, &format!("encoder.block.{i}")))
            .collect::<Result<_, _>>()?;
        let last_norm = Some(self.norm(reader, "encoder.final_layer_norm")?);
        reader.check_extra(&["encoder.block."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: Some(RelativeBias::new(&bias, self.heads, self.buckets)),
            rotaries: vec![],
            last_norm,
            widths: self.facts().widths,
            weight_bytes: reader.bytes(),
        })
    }
}
