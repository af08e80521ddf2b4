//! ModernBERT: blocks that normalise their input, rotary positions, and local attention in most blocks.

use crate::checkpoint::encoder_spec::{EncoderSpec, Widths};
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::block::{Block, FeedForward, Norms, SelfAttention};
use crate::encoder::head_names::{
    ClassifierNames, ClassifierPooling, HeadNormNames, MaskHeadNames,
};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::attention_shape::{Attention, Reach};
use crate::layers::embedding::Embedding;
use crate::layers::rotary::Rotary;

/// Its settings.
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
    /// One in this many blocks attends to all tokens, beginning with the first.
    global_every: usize,
    /// For each block whether it attends to all tokens, if the configuration lists them.
    global_blocks: Option<Vec<bool>>,
    /// How far the other blocks attend, on either side.
    near: usize,
    global_base: f32,
    local_base: f32,
    pooling: ClassifierPooling,
    head_bias: Bias,
    head_activation: Activation,
    decoder_bias: bool,
}

impl ModernBert {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        let width = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        config.even_heads("hidden_size", config.parts("hidden_size", width, heads)?)?;
        let global_base =
            config.rotary_base_of("full_attention", "global_rope_theta", 160_000.0)?;
        let pooling = match config.text("classifier_pooling")?.unwrap_or("cls") {
            "cls" => ClassifierPooling::First,
            "mean" => ClassifierPooling::Mean,
            other => return Err(config.unsupported("classifier_pooling", other, "cls, mean")),
        };
        let head_activation = config.activation_or("classifier_activation", Activation::Gelu)?;
        // An explicit null means that local blocks share the global base.
        let local_is_null =
            config.json.get("local_rope_theta").is_some_and(serde_json::Value::is_null);
        let local_base = if local_is_null { global_base } else { 10_000.0 };
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            width,
            layers: config.size("num_hidden_layers")?,
            heads,
            inner: config.size("intermediate_size")?,
            activation: config.activation_or("hidden_activation", Activation::Gelu)?,
            positions: config.size("max_position_embeddings")?,
            epsilon: config.positive_or("norm_eps", 1e-5)?,
            norm_bias: config.flag_or("norm_bias", false)?.into(),
            attention_bias: config.flag_or("attention_bias", false)?.into(),
            feed_bias: config.flag_or("mlp_bias", false)?.into(),
            global_every: config.size_or("global_attn_every_n_layers", 3)?,
            global_blocks: config.global_blocks()?,
            near: config.size_or("local_attention", 128)? / 2,
            global_base,
            local_base: config.rotary_base_of(
                "sliding_attention",
                "local_rope_theta",
                local_base,
            )?,
            pooling,
            head_bias: config.flag_or("classifier_bias", false)?.into(),
            head_activation,
            decoder_bias: config.flag_or("decoder_bias", true)?,
        })
    }

    fn head_norm(&self) -> HeadNormNames {
        HeadNormNames { name: "head.norm", bias: self.norm_bias, epsilon: self.epsilon }
    }

    fn shape(&self) -> Attention {
        Attention::full(self.heads, self.width / self.heads)
    }

    fn block(&self, reader: &mut TensorReader<'_>, i: usize) -> Result<Block, LoadError> {
        let (width, inner) = (self.width, self.inner);
        let name = |part: &str| format!("layers.{i}.{part}");
        let is_global = match &self.global_blocks {
            Some(blocks) => blocks[i],
            None => i.is_multiple_of(self.global_every),
        };
        let shape = self.shape();
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
            // The first block needs no norm: the embedding is normalised.
            attention: if i == 0 { None } else { Some(norm("attn_norm")?) },
            attended: None,
            feed_forward: norm("mlp_norm")?,
            fed: None,
        };
        Ok(Block { attention, feed_forward: FeedForward { up, gate: Some(gate), down }, norms })
    }
}

impl Architecture for ModernBert {
    fn spec(&self) -> EncoderSpec {
        EncoderSpec {
            name: "modernbert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: false,
            widths: Widths::new(self.width, self.shape(), self.inner, true),
        }
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        let tokens = "embeddings.tok_embeddings.weight";
        reader.enter(&["model."], tokens);
        let (width, bias, epsilon) = (self.width, self.norm_bias, self.epsilon);
        let table = reader.table(tokens, &[self.vocabulary, width])?;
        let norm = Some(reader.layer_norm("embeddings.norm", width, bias, epsilon)?);
        let embedding = Embedding { norm, ..Embedding::of_tokens(table) };
        let blocks = (0..self.layers).map(|i| self.block(reader, i)).collect::<Result<_, _>>()?;
        let last_norm = Some(reader.layer_norm("final_norm", width, bias, epsilon)?);
        reader.check_extra(&["embeddings.", "layers.", "final_norm."])?;
        let rotary = |base| Rotary::new(base, width / self.heads);
        let rotaries = vec![rotary(self.global_base), rotary(self.local_base)];
        let network = Network::of(embedding, blocks, self.spec().widths, reader.bytes());
        Ok(Network { rotaries, last_norm, ..network })
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pooling: self.pooling,
            dense: "head.dense",
            dense_bias: self.head_bias,
            activation: self.head_activation,
            norm: Some(self.head_norm()),
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(MaskHeadNames {
            dense: "head.dense",
            dense_bias: self.head_bias,
            activation: self.head_activation,
            norm: self.head_norm(),
            decoder: "decoder.weight",
            bias: self.decoder_bias.then_some("decoder.bias"),
        })
    }
}
