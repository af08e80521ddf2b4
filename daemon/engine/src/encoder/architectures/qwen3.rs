//! Qwen3: a decoder's blocks as an encoder, in which tokens look back alone, unless the folder says
//! otherwise.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::{Architecture, Facts};
use crate::encoder::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, Reach};
use crate::layers::embedding::Embedding;
use crate::layers::norm::Norm;
use crate::layers::rms_norm::HeadNorm;
use crate::layers::rotary::Rotary;

/// What its `config.json` says.
#[derive(Debug)]
pub(crate) struct Qwen3 {
    vocabulary: usize,
    width: usize,
    layers: usize,
    shape: Attention,
    inner: usize,
    activation: Activation,
    positions: usize,
    bias: Bias,
    epsilon: f32,
    base: f32,
}

impl Qwen3 {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        settings.only("use_sliding_window", &false.into(), "false")?;
        let heads = settings.size("num_attention_heads")?;
        let key_heads = settings.size_or("num_key_value_heads", heads)?;
        settings.parts("num_attention_heads", heads, key_heads)?;
        let head_width = settings.even_heads("head_dim", settings.size_or("head_dim", 128)?)?;
        let shape = Attention::full(heads, head_width);
        let looks_back = settings.flag_or("is_causal", true)?;
        let reach = if looks_back { Reach::Before } else { Reach::All };
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width: settings.size("hidden_size")?,
            layers: settings.size("num_hidden_layers")?,
            shape: Attention { key_heads, reach, ..shape },
            inner: settings.size("intermediate_size")?,
            activation: settings.activation_or("hidden_act", Activation::Silu)?,
            positions: settings.size("max_position_embeddings")?,
            bias: settings.flag_or("attention_bias", false)?.into(),
            epsilon: settings.positive_or("rms_norm_eps", 1e-6)?,
            base: settings.rotary_base("rope_theta", 10_000.0)?,
        })
    }

    fn block(&self, reader: &mut Reader<'_>, i: usize) -> Result<Block, LoadError> {
        let (width, inner, shape) = (self.width, self.inner, self.shape);
        let name = |part: &str| format!("layers.{i}.{part}");
        let keys = shape.key_heads * shape.head_width;
        let qkv = [
            (name("self_attn.q_proj"), shape.width()),
            (name("self_attn.k_proj"), keys),
            (name("self_attn.v_proj"), keys),
        ];
        let output = &[(name("self_attn.o_proj"), width)];
        let mut head_norm =
            |part| reader.rms_norm(&name(part), shape.head_width, 0.0, self.epsilon);
        let head_norm = HeadNorm {
            queries: head_norm("self_attn.q_norm")?,
            keys: head_norm("self_attn.k_norm")?,
            heads: shape.heads,
            key_heads: shape.key_heads,
        };
        let attention = SelfAttention {
            qkv: reader.linear(&qkv, width, self.bias, Activation::None)?,
            head_norm: Some(head_norm),
            rotary: Some(0),
            shape,
            output: reader.linear(output, shape.width(), self.bias, Activation::None)?,
        };
        let mut linear = |part, inputs, outputs, activation| {
            reader.linear(&[(name(part), outputs)], inputs, Bias::None, activation)
        };
        let feed = FeedForward {
            up: linear("mlp.gate_proj", width, inner, self.activation)?,
            gate: Some(linear("mlp.up_proj", width, inner, Activation::None)?),
            down: linear("mlp.down_proj", inner, width, Activation::None)?,
        };
        let norms = Norms::Before {
            attention: Some(self.norm(reader, &name("input_layernorm"))?),
            attended: None,
            feed: self.norm(reader, &name("post_attention_layernorm"))?,
            fed: None,
        };
        Ok(Block { attention, feed, norms })
    }

    fn norm(&self, reader: &mut Reader<'_>, name: &str) -> Result<Norm, LoadError> {
        reader.rms_norm(name, self.width, 0.0, self.epsilon).map(Norm::Rms)
    }
}

impl Architecture for Qwen3 {
    fn facts(&self) -> Facts {
        Facts {
            name: "qwen3",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: false,
            widths: Widths {
                hidden: self.width,
                qkv: self.shape.qkv_width(),
                context: self.shape.width(),
                inner: self.inner,
                gated: true,
            },
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["model."], "embed_tokens.weight");
        let embedding = Embedding {
            tokens: reader.table("embed_tokens.weight", &[self.vocabulary, self.width])?,
            scale: 1.0,
            segments: None,
            positions: None,
            norm: None,
        };
        let blocks = (0..self.layers).map(|i| self.block(reader, i)).collect::<Result<_, _>>()?;
        let last_norm = Some(self.norm(reader, "norm")?);
        reader.check_extra(&["embed_tokens.", "layers.", "norm."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: None,
            rotaries: vec![Rotary::new(self.base, self.shape.head_width)],
            last_norm,
            widths: self.facts().widths,
            weight_bytes: reader.bytes(),
        })
    }
}
