//! Nomic-BERT: BERT's blocks with rotary positions and a gated feed-forward.
//!
//! Its settings have two spellings: one in the code published with the first models, one in
//! transformers 5. The tensors have the same names in both.

use crate::checkpoint::encoder_spec::{EncoderSpec, Widths};
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::block::{Block, FeedForward, Norms, SelfAttention};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::attention_shape::Attention;
use crate::layers::embedding::Embedding;
use crate::layers::rotary::Rotary;

/// Its settings.
#[derive(Debug)]
pub(crate) struct NomicBert {
    vocabulary: usize,
    width: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    positions: usize,
    segments: usize,
    epsilon: f32,
    attention_bias: Bias,
    up_bias: Bias,
    down_bias: Bias,
    base: f32,
    /// Values of a head that are rotated.
    rotated: usize,
}

impl NomicBert {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        if config.json["n_embd"].is_null() { Self::newer(config) } else { Self::first(config) }
    }

    /// The spelling of the first models.
    fn first(config: RawConfig<'_>) -> Result<Self, LoadError> {
        config.only("activation_function", &"swiglu".into(), "swiglu")?;
        for (setting, value, supported) in [
            ("prenorm", false.into(), "false"),
            ("parallel_block", false.into(), "false"),
            ("causal", false.into(), "false"),
            ("use_rms_norm", false.into(), "false"),
            ("rotary_emb_interleaved", false.into(), "false"),
            ("rotary_emb_scale_base", serde_json::Value::Null, "null"),
            ("rotary_scaling_factor", serde_json::Value::Null, "null"),
            ("scale_attn_by_inverse_layer_idx", false.into(), "false"),
            ("num_experts", 0.into(), "0"),
            ("moe_every_n_layers", 0.into(), "0"),
        ] {
            config.only(setting, &value, supported)?;
        }
        let width = config.size("n_embd")?;
        let heads = config.size("n_head")?;
        let head_width = config.parts("n_embd", width, heads)?;
        let fraction = config.positive_or("rotary_emb_fraction", 1.0)?;
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            width,
            layers: config.size("n_layer")?,
            heads,
            inner: config.size("n_inner")?,
            positions: config.size("n_positions")?,
            segments: config.size_or("type_vocab_size", 2)?,
            epsilon: config.positive_or("layer_norm_epsilon", 1e-12)?,
            attention_bias: config.flag_or("qkv_proj_bias", false)?.into(),
            up_bias: config.flag_or("mlp_fc1_bias", false)?.into(),
            down_bias: config.flag_or("mlp_fc2_bias", false)?.into(),
            base: config.positive_or("rotary_emb_base", 10_000.0)?,
            rotated: config.even_heads("rotary_emb_fraction", part(head_width, fraction))?,
        })
    }

    /// The spelling of transformers.
    fn newer(config: RawConfig<'_>) -> Result<Self, LoadError> {
        config.only("hidden_act", &"silu".into(), "silu")?;
        let width = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let head_width = config.parts("hidden_size", width, heads)?;
        let configured = config.size_or("head_dim", head_width)?;
        if configured != head_width {
            return Err(config.setting(
                "head_dim",
                configured,
                format!("{head_width}, a head's part"),
            ));
        }
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            width,
            layers: config.size("num_hidden_layers")?,
            heads,
            inner: config.size("intermediate_size")?,
            positions: config.size("max_position_embeddings")?,
            segments: config.size_or("type_vocab_size", 2)?,
            epsilon: config.positive_or("layer_norm_eps", 1e-12)?,
            attention_bias: Bias::None,
            up_bias: Bias::None,
            down_bias: Bias::None,
            base: config.rotary_base("rope_theta", 1000.0)?,
            rotated: config.even_heads("hidden_size", head_width)?,
        })
    }

    fn shape(&self) -> Attention {
        Attention::full(self.heads, self.width / self.heads)
    }

    fn block(&self, reader: &mut TensorReader<'_>, i: usize) -> Result<Block, LoadError> {
        let (width, inner, bias) = (self.width, self.inner, self.attention_bias);
        let name = |part: &str| format!("encoder.layers.{i}.{part}");
        let attention = SelfAttention {
            qkv: reader.linear(&[(name("attn.Wqkv"), 3 * width)], width, bias, Activation::None)?,
            head_norm: None,
            rotary: Some(0),
            shape: self.shape(),
            output: reader.linear(
                &[(name("attn.out_proj"), width)],
                width,
                bias,
                Activation::None,
            )?,
        };
        // The second of the two is the gate.
        let [gate, up] = [("mlp.fc11", Activation::None), ("mlp.fc12", Activation::Silu)]
            .map(|(part, act)| reader.linear(&[(name(part), inner)], width, self.up_bias, act));
        let down =
            reader.linear(&[(name("mlp.fc2"), width)], inner, self.down_bias, Activation::None)?;
        let mut norm = |part| reader.layer_norm(&name(part), width, Bias::Each, self.epsilon);
        let norms = Norms::After { attention: norm("norm1")?, feed_forward: norm("norm2")? };
        Ok(Block {
            attention,
            feed_forward: FeedForward { up: up?, gate: Some(gate?), down },
            norms,
        })
    }
}

impl Architecture for NomicBert {
    fn spec(&self) -> EncoderSpec {
        EncoderSpec {
            name: "nomic_bert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: false,
            widths: Widths::new(self.width, self.shape(), self.inner, true),
        }
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        let tokens = "embeddings.word_embeddings.weight";
        reader.enter(&["bert.", "nomic_bert."], tokens);
        let width = self.width;
        let segments = "embeddings.token_type_embeddings.weight";
        let table = reader.table(tokens, &[self.vocabulary, width])?;
        let segments = Some(reader.tensor(segments, &[self.segments, width])?);
        let norm = Some(reader.layer_norm("emb_ln", width, Bias::Each, self.epsilon)?);
        let embedding = Embedding { segments, norm, ..Embedding::of_tokens(table) };
        let blocks = (0..self.layers).map(|i| self.block(reader, i)).collect::<Result<_, _>>()?;
        reader.check_extra(&["embeddings.", "emb_ln.", "encoder."])?;
        let rotaries = vec![Rotary::new(self.base, self.rotated)];
        let network = Network::of(embedding, blocks, self.spec().widths, reader.bytes());
        Ok(Network { rotaries, ..network })
    }
}

/// A part of a head, in whole values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "as in the reference; a part of no values is refused"
)]
fn part(head_width: usize, fraction: f32) -> usize {
    (head_width as f32 * fraction.clamp(0.0, 1.0)) as usize
}
