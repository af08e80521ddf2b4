//! Gemma 3 for text as in EmbeddingGemma, whose tokens look both ways.

use serde_json::Value;

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

/// What its files leave out of the weights of norms.
const NORM_OFFSET: f32 = 1.0;

/// Far more than any model has, and few enough to be listed.
const MOST_LAYERS: usize = 1 << 12;

/// What its `config.json` says.
#[derive(Debug)]
pub(crate) struct Gemma3 {
    vocabulary: usize,
    width: usize,
    /// For each block, whether it looks at all tokens.
    is_global: Vec<bool>,
    shape: Attention,
    /// How far the other blocks look, on either side.
    near: usize,
    inner: usize,
    activation: Activation,
    positions: usize,
    bias: Bias,
    epsilon: f32,
    global_base: f32,
    local_base: f32,
}

impl Gemma3 {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        if settings.json["use_bidirectional_attention"] != true {
            let what = "use_bidirectional_attention";
            return Err(settings.unsupported(what, "false", "true, as in EmbeddingGemma"));
        }
        settings.only("attn_logit_softcapping", &Value::Null, "null")?;
        let heads = settings.size("num_attention_heads")?;
        let key_heads = settings.size_or("num_key_value_heads", heads)?;
        settings.parts("num_attention_heads", heads, key_heads)?;
        let head_width = settings.even_heads("head_dim", settings.size_or("head_dim", 256)?)?;
        #[expect(clippy::cast_precision_loss, reason = "a head is far below 2^24 values wide")]
        let scalar = settings.positive_or("query_pre_attn_scalar", head_width as f32)?;
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width: settings.size("hidden_size")?,
            is_global: global_blocks(settings)?,
            shape: Attention {
                heads,
                key_heads,
                head_width,
                scale: 1.0 / scalar.sqrt(),
                reach: Reach::All,
            },
            // The reference halves the window of a model that looks both ways, and then takes the
            // token itself for one of each half.
            near: settings.size_or("sliding_window", 4096)? / 2,
            inner: settings.size("intermediate_size")?,
            activation: settings.activation_or("hidden_activation", Activation::GeluTanh)?,
            positions: settings.size("max_position_embeddings")?,
            bias: settings.flag_or("attention_bias", false)?.into(),
            epsilon: settings.positive_or("rms_norm_eps", 1e-6)?,
            global_base: settings.rotary_base_of("full_attention", "rope_theta", 1_000_000.0)?,
            local_base: settings.rotary_base_of(
                "sliding_attention",
                "rope_local_base_freq",
                10_000.0,
            )?,
        })
    }

    fn block(
        &self,
        reader: &mut Reader<'_>,
        i: usize,
        is_global: bool,
    ) -> Result<Block, LoadError> {
        let (width, inner) = (self.width, self.inner);
        let reach = if is_global { Reach::All } else { Reach::Near(self.near) };
        let shape = Attention { reach, ..self.shape };
        let name = |part: &str| format!("layers.{i}.{part}");
        let keys = shape.key_heads * shape.head_width;
        let qkv = [
            (name("self_attn.q_proj"), shape.width()),
            (name("self_attn.k_proj"), keys),
            (name("self_attn.v_proj"), keys),
        ];
        let output = &[(name("self_attn.o_proj"), width)];
        let mut head_norm =
            |part| reader.rms_norm(&name(part), shape.head_width, NORM_OFFSET, self.epsilon);
        let head_norm = HeadNorm {
            queries: head_norm("self_attn.q_norm")?,
            keys: head_norm("self_attn.k_norm")?,
            heads: shape.heads,
            key_heads: shape.key_heads,
        };
        let attention = SelfAttention {
            qkv: reader.linear(&qkv, width, self.bias, Activation::None)?,
            head_norm: Some(head_norm),
            rotary: Some(usize::from(!is_global)),
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
            attended: Some(self.norm(reader, &name("post_attention_layernorm"))?),
            feed: self.norm(reader, &name("pre_feedforward_layernorm"))?,
            fed: Some(self.norm(reader, &name("post_feedforward_layernorm"))?),
        };
        Ok(Block { attention, feed, norms })
    }

    fn norm(&self, reader: &mut Reader<'_>, name: &str) -> Result<Norm, LoadError> {
        reader.rms_norm(name, self.width, NORM_OFFSET, self.epsilon).map(Norm::Rms)
    }
}

/// Which blocks look at all tokens: as `layer_types` lists them, or one in so many.
fn global_blocks(settings: Settings<'_>) -> Result<Vec<bool>, LoadError> {
    let layers = settings.size("num_hidden_layers")?;
    if let Some(blocks) = settings.global_blocks()? {
        return Ok(blocks);
    }
    let pattern = settings.size_or("sliding_window_pattern", 6)?;
    if layers > MOST_LAYERS {
        let wanted = format!("at most {MOST_LAYERS}");
        return Err(settings.setting("num_hidden_layers", layers, wanted));
    }
    Ok((1..=layers).map(|layer| layer.is_multiple_of(pattern)).collect())
}

impl Architecture for Gemma3 {
    fn facts(&self) -> Facts {
        Facts {
            name: "gemma3_text",
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
        #[expect(clippy::cast_precision_loss, reason = "a row is far below 2^24 values wide")]
        let scale = (self.width as f32).sqrt();
        let embedding = Embedding {
            tokens: reader.table("embed_tokens.weight", &[self.vocabulary, self.width])?,
            scale,
            segments: None,
            positions: None,
            norm: None,
        };
        let blocks = self.is_global.iter().enumerate();
        let blocks = blocks
            .map(|(i, &is_global)| self.block(reader, i, is_global))
            .collect::<Result<_, _>>()?;
        let last_norm = Some(self.norm(reader, "norm")?);
        reader.check_extra(&["embed_tokens.", "layers.", "norm."])?;
        let rotary = |base| Rotary::new(base, self.shape.head_width);
        Ok(Network {
            embedding,
            blocks,
            bias: None,
            rotaries: vec![rotary(self.global_base), rotary(self.local_base)],
            last_norm,
            widths: self.facts().widths,
            weight_bytes: reader.bytes(),
        })
    }
}
