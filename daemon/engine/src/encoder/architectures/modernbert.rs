//! ModernBERT: blocks that normalise what they read, rotary places, and attention that looks at the
//! near tokens alone in most blocks.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::{
    Architecture, ClassifierNames, Facts, HeadNormNames, MaskNames, Pool,
};
use crate::encoder::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, Reach};
use crate::layers::embedding::Embedding;
use crate::layers::rotary::Rotary;

/// What its `config.json` says.
#[derive(Debug)]
pub(crate) struct ModernBert {
    vocabulary: usize,
    width: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    activation: Activation,
    positions: usize,
    epsilon: f32,
    norm_bias: Bias,
    attention_bias: Bias,
    feed_bias: Bias,
    /// Every so many blocks one looks at all tokens; the first one does.
    global_every: usize,
    /// Which ones do, where that is said of each.
    global_blocks: Option<Vec<bool>>,
    /// How far the others look, on either side.
    near: usize,
    global_base: f32,
    local_base: f32,
    pool: Pool,
    head_bias: Bias,
    head_activation: Activation,
    decoder_bias: bool,
}

impl ModernBert {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        let width = settings.size("hidden_size")?;
        let heads = settings.size("num_attention_heads")?;
        settings.even_heads("hidden_size", settings.parts("hidden_size", width, heads)?)?;
        let global_base =
            settings.rotary_base_of("full_attention", "global_rope_theta", 160_000.0)?;
        let pool = match settings.text("classifier_pooling")?.unwrap_or("cls") {
            "cls" => Pool::First,
            "mean" => Pool::Mean,
            other => return Err(settings.unsupported("classifier_pooling", other, "cls, mean")),
        };
        let head_activation = settings.activation_or("classifier_activation", Activation::Gelu)?;
        // Those that are said to have none of their own share the other's.
        let local_is_null =
            settings.json.get("local_rope_theta").is_some_and(serde_json::Value::is_null);
        let local_base = if local_is_null { global_base } else { 10_000.0 };
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width,
            layers: settings.size("num_hidden_layers")?,
            heads,
            inner: settings.size("intermediate_size")?,
            activation: settings.activation_or("hidden_activation", Activation::Gelu)?,
            positions: settings.size("max_position_embeddings")?,
            epsilon: settings.positive_or("norm_eps", 1e-5)?,
            norm_bias: settings.flag_or("norm_bias", false)?.into(),
            attention_bias: settings.flag_or("attention_bias", false)?.into(),
            feed_bias: settings.flag_or("mlp_bias", false)?.into(),
            global_every: settings.size_or("global_attn_every_n_layers", 3)?,
            global_blocks: settings.global_blocks()?,
            near: settings.size_or("local_attention", 128)? / 2,
            global_base,
            local_base: settings.rotary_base_of(
                "sliding_attention",
                "local_rope_theta",
                local_base,
            )?,
            pool,
            head_bias: settings.flag_or("classifier_bias", false)?.into(),
            head_activation,
            decoder_bias: settings.flag_or("decoder_bias", true)?,
        })
    }

    fn head_norm(&self) -> HeadNormNames {
        HeadNormNames { name: "head.norm", bias: self.norm_bias, epsilon: self.epsilon }
    }

    fn block(&self, reader: &mut Reader<'_>, i: usize) -> Result<Block, LoadError> {
        let (width, inner) = (self.width, self.inner);
        let name = |part: &str| format!("layers.{i}.{part}");
        let is_global = match &self.global_blocks {
            Some(blocks) => blocks[i],
            None => i.is_multiple_of(self.global_every),
        };
        let shape = Attention::full(self.heads, width / self.heads);
        let reach = if is_global { Reach::All } else { Reach::Near(self.near) };
        let bias = self.attention_bias;
        let attention = SelfAttention {
            qkv: reader.linear(&[(name("attn.Wqkv"), 3 * width)], width, bias, Activation::None)?,
            head_norm: None,
            rotary: Some(usize::from(!is_global)),
            shape: Attention { reach, ..shape },
            output: reader.linear(&[(name("attn.Wo"), width)], width, bias, Activation::None)?,
        };
        let activations = [self.activation, Activation::None];
        let [up, gate] =
            reader.halves(&name("mlp.Wi"), width, inner, self.feed_bias, activations)?;
        let down = &[(name("mlp.Wo"), width)];
        let down = reader.linear(down, inner, self.feed_bias, Activation::None)?;
        let mut norm =
            |part: &str| reader.layer_norm(&name(part), width, self.norm_bias, self.epsilon);
        let norms = Norms::Before {
            // The embedding is normalised already.
            attention: if i == 0 { None } else { Some(norm("attn_norm")?) },
            attended: None,
            feed: norm("mlp_norm")?,
            fed: None,
        };
        Ok(Block { attention, feed: FeedForward { up, gate: Some(gate), down }, norms })
    }
}

impl Architecture for ModernBert {
    fn facts(&self) -> Facts {
        let (hidden, inner) = (self.width, self.inner);
        Facts {
            name: "modernbert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: false,
            widths: Widths { hidden, qkv: 3 * hidden, context: hidden, inner, gated: true },
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        let tokens = "embeddings.tok_embeddings.weight";
        reader.enter(&["model."], tokens);
        let (width, bias, epsilon) = (self.width, self.norm_bias, self.epsilon);
        let embedding = Embedding {
            tokens: reader.table(tokens, &[self.vocabulary, width])?,
            scale: 1.0,
            segments: None,
            positions: None,
            norm: Some(reader.layer_norm("embeddings.norm", width, bias, epsilon)?),
        };
        let blocks = (0..self.layers).map(|i| self.block(reader, i)).collect::<Result<_, _>>()?;
        let last_norm = Some(reader.layer_norm("final_norm", width, bias, epsilon)?);
        reader.check_extra(&["embeddings.", "layers.", "final_norm."])?;
        let rotary = |base| Rotary::new(base, width / self.heads);
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

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pool: self.pool,
            dense: "head.dense",
            dense_bias: self.head_bias,
            activation: self.head_activation,
            norm: Some(self.head_norm()),
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskNames> {
        Some(MaskNames {
            dense: "head.dense",
            dense_bias: self.head_bias,
            activation: self.head_activation,
            norm: self.head_norm(),
            decoder: "decoder.weight",
            bias: self.decoder_bias.then_some("decoder.bias"),
        })
    }
}
