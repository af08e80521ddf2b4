//! MPNet: BERT's blocks with a bias for the distance of tokens, without segments.

use super::reader::{Bias, Reader};
use super::roberta::positions_behind;
use super::settings::Settings;
use super::{Architecture, Facts};
use crate::engine::layers::activation::Activation;
use crate::engine::layers::attention::Attention;
use crate::engine::layers::embedding::{Embedding, Positions};
use crate::engine::layers::relative_bias::{Buckets, RelativeBias};
use crate::engine::load_error::LoadError;
use crate::engine::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};

/// The distance from which on all are alike; fixed, where T5 has a setting.
const MAX_DISTANCE: usize = 128;

/// The number of the padding token; fixed in the reference, whatever the configuration says.
const PADDING: u32 = 1;

/// What its `config.json` says.
#[derive(Debug)]
pub(super) struct MpNet {
    vocabulary: usize,
    width: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    activation: Activation,
    /// Rows of the position table.
    rows: usize,
    /// Places that are left for tokens.
    positions: usize,
    buckets: Buckets,
    epsilon: f32,
}

impl MpNet {
    pub(super) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        let width = settings.size("hidden_size")?;
        let heads = settings.size("num_attention_heads")?;
        settings.parts("hidden_size", width, heads)?;
        let rows = settings.size("max_position_embeddings")?;
        let count = settings.size_or("relative_attention_num_buckets", 32)?;
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width,
            layers: settings.size("num_hidden_layers")?,
            heads,
            inner: settings.size("intermediate_size")?,
            activation: settings.activation("hidden_act")?,
            rows,
            positions: positions_behind(PADDING, rows, settings)?,
            buckets: settings.buckets("relative_attention_num_buckets", count, MAX_DISTANCE)?,
            epsilon: settings.number_or("layer_norm_eps", 1e-12)?,
        })
    }

    fn widths(&self) -> Widths {
        let (hidden, inner) = (self.width, self.inner);
        Widths { hidden, qkv: 3 * hidden, context: hidden, inner, gated: false }
    }

    fn block(&self, reader: &mut Reader<'_>, name: &str) -> Result<Block, LoadError> {
        let (width, inner) = (self.width, self.inner);
        let mut linear = |parts: &[&str], inputs, outputs, activation| {
            let parts: Vec<_> =
                parts.iter().map(|part| (format!("{name}.{part}"), outputs)).collect();
            reader.linear(&parts, inputs, Bias::Each, activation)
        };
        let qkv = ["attention.attn.q", "attention.attn.k", "attention.attn.v"];
        let attention = SelfAttention {
            qkv: linear(&qkv, width, width, Activation::None)?,
            head_norm: None,
            rotary: None,
            shape: Attention::full(self.heads, width / self.heads),
            output: linear(&["attention.attn.o"], width, width, Activation::None)?,
        };
        let feed = FeedForward {
            up: linear(&["intermediate.dense"], width, inner, self.activation)?,
            gate: None,
            down: linear(&["output.dense"], inner, width, Activation::None)?,
        };
        let mut norm = |part: &str| {
            reader.layer_norm(&format!("{name}.{part}.LayerNorm"), width, Bias::Each, self.epsilon)
        };
        let norms = Norms::After { attention: norm("attention")?, feed: norm("output")? };
        Ok(Block { attention, feed, norms })
    }
}

impl Architecture for MpNet {
    fn facts(&self) -> Facts {
        Facts {
            name: "mpnet",
            vocabulary: self.vocabulary,
            positions: self.positions,
            widths: self.widths(),
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["mpnet."], "embeddings.word_embeddings.weight");
        let (width, epsilon) = (self.width, self.epsilon);
        let table = |part: &str| format!("embeddings.{part}_embeddings.weight");
        let embedding = Embedding {
            tokens: reader.tensor(&table("word"), &[self.vocabulary, width])?,
            scale: 1.0,
            segments: None,
            positions: Some(Positions {
                rows: reader.tensor(&table("position"), &[self.rows, width])?,
                padding: Some(PADDING),
            }),
            norm: Some(reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, epsilon)?),
        };
        let shape = [self.buckets.count, self.heads];
        let bias = reader.values("encoder.relative_attention_bias.weight", &shape)?;
        let blocks = (0..self.layers)
            .map(|i| self.block(reader, &format!("encoder.layer.{i}")))
            .collect::<Result<_, _>>()?;
        reader.check_extra(&["embeddings.", "encoder."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: Some(RelativeBias::new(&bias, self.heads, self.buckets)),
            rotaries: vec![],
            last_norm: None,
            widths: self.widths(),
            weight_bytes: reader.bytes(),
        })
    }
}
