//! Nomic-BERT: BERT's blocks with rotary places and a gated feed-forward.
//!
//! Its settings have two spellings: that of the code which came with the first models, and that of
//! transformers since version 5. The tensors have the same names in both.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::{Architecture, Facts};
use crate::encoder::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};
use crate::layers::activation::Activation;
use crate::layers::attention::Attention;
use crate::layers::embedding::Embedding;
use crate::layers::rotary::Rotary;

/// What its `config.json` says.
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
    /// Values of a head that are turned.
    turned: usize,
}

impl NomicBert {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        if settings.json["n_embd"].is_null() {
            Self::newer(settings)
        } else {
            Self::first(settings)
        }
    }

    /// As the first models spell it.
    fn first(settings: Settings<'_>) -> Result<Self, LoadError> {
        settings.only("activation_function", &"swiglu".into(), "swiglu")?;
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
            settings.only(setting, &value, supported)?;
        }
        let width = settings.size("n_embd")?;
        let heads = settings.size("n_head")?;
        let head_width = settings.parts("n_embd", width, heads)?;
        let fraction = settings.positive_or("rotary_emb_fraction", 1.0)?;
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width,
            layers: settings.size("n_layer")?,
            heads,
            inner: settings.size("n_inner")?,
            positions: settings.size("n_positions")?,
            segments: settings.size_or("type_vocab_size", 2)?,
            epsilon: settings.positive_or("layer_norm_epsilon", 1e-12)?,
            attention_bias: settings.flag_or("qkv_proj_bias", false)?.into(),
            up_bias: settings.flag_or("mlp_fc1_bias", false)?.into(),
            down_bias: settings.flag_or("mlp_fc2_bias", false)?.into(),
            base: settings.positive_or("rotary_emb_base", 10_000.0)?,
            turned: settings.even_heads("rotary_emb_fraction", part(head_width, fraction))?,
        })
    }

    /// As transformers spells it.
    fn newer(settings: Settings<'_>) -> Result<Self, LoadError> {
        settings.only("hidden_act", &"silu".into(), "silu")?;
        let width = settings.size("hidden_size")?;
        let heads = settings.size("num_attention_heads")?;
        let head_width = settings.parts("hidden_size", width, heads)?;
        let said = settings.size_or("head_dim", head_width)?;
        if said != head_width {
            return Err(settings.setting("head_dim", said, format!("{head_width}, a head's part")));
        }
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width,
            layers: settings.size("num_hidden_layers")?,
            heads,
            inner: settings.size("intermediate_size")?,
            positions: settings.size("max_position_embeddings")?,
            segments: settings.size_or("type_vocab_size", 2)?,
            epsilon: settings.positive_or("layer_norm_eps", 1e-12)?,
            attention_bias: Bias::None,
            up_bias: Bias::None,
            down_bias: Bias::None,
            base: settings.rotary_base("rope_theta", 1000.0)?,
            turned: settings.even_heads("hidden_size", head_width)?,
        })
    }

    fn block(&self, reader: &mut Reader<'_>, i: usize) -> Result<Block, LoadError> {
        let (width, inner, bias) = (self.width, self.inner, self.attention_bias);
        let name = |part: &str| format!("encoder.layers.{i}.{part}");
        let attention = SelfAttention {
            qkv: reader.linear(&[(name("attn.Wqkv"), 3 * width)], width, bias, Activation::None)?,
            head_norm: None,
            rotary: Some(0),
            shape: Attention::full(self.heads, width / self.heads),
            output: reader.linear(
                &[(name("attn.out_proj"), width)],
                width,
                bias,
                Activation::None,
            )?,
        };
        // Of the two the second one is the gate.
        let [gate, up] = [("mlp.fc11", Activation::None), ("mlp.fc12", Activation::Silu)]
            .map(|(part, act)| reader.linear(&[(name(part), inner)], width, self.up_bias, act));
        let down =
            reader.linear(&[(name("mlp.fc2"), width)], inner, self.down_bias, Activation::None)?;
        let mut norm = |part| reader.layer_norm(&name(part), width, Bias::Each, self.epsilon);
        let norms = Norms::After { attention: norm("norm1")?, feed: norm("norm2")? };
        Ok(Block { attention, feed: FeedForward { up: up?, gate: Some(gate?), down }, norms })
    }
}

/// A part of a head, in whole values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "as the reference does it; a part that is none is refused"
)]
fn part(head_width: usize, fraction: f32) -> usize {
    (head_width as f32 * fraction.clamp(0.0, 1.0)) as usize
}

impl Architecture for NomicBert {
    fn facts(&self) -> Facts {
        let (hidden, inner) = (self.width, self.inner);
        Facts {
            name: "nomic_bert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: false,
            widths: Widths { hidden, qkv: 3 * hidden, context: hidden, inner, gated: true },
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        let tokens = "embeddings.word_embeddings.weight";
        reader.enter(&["bert.", "nomic_bert."], tokens);
        let width = self.width;
        let segments = "embeddings.token_type_embeddings.weight";
        let embedding = Embedding {
            tokens: reader.table(tokens, &[self.vocabulary, width])?,
            scale: 1.0,
            segments: Some(reader.tensor(segments, &[self.segments, width])?),
            positions: None,
            norm: Some(reader.layer_norm("emb_ln", width, Bias::Each, self.epsilon)?),
        };
        let blocks = (0..self.layers).map(|i| self.block(reader, i)).collect::<Result<_, _>>()?;
        reader.check_extra(&["embeddings.", "emb_ln.", "encoder."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: None,
            rotaries: vec![Rotary::new(self.base, self.turned)],
            last_norm: None,
            widths: self.facts().widths,
            weight_bytes: reader.bytes(),
        })
    }
}
