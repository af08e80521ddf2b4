//! BERT.

use super::reader::{Bias, Reader};
use super::settings::Settings;
use super::{Architecture, Facts};
use crate::engine::layers::activation::Activation;
use crate::engine::layers::attention::Attention;
use crate::engine::layers::embedding::{Embedding, Positions};
use crate::engine::load_error::LoadError;
use crate::engine::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};

/// What BERT's `config.json` says, and that of models built like it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bert {
    pub(super) vocabulary: usize,
    pub(super) width: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    pub(super) activation: Activation,
    /// Rows of the position table.
    pub(super) positions: usize,
    pub(super) segments: usize,
    pub(super) epsilon: f32,
}

impl Bert {
    pub(super) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        settings.only("position_embedding_type", &"absolute".into(), "absolute")?;
        let width = settings.size("hidden_size")?;
        let heads = settings.size("num_attention_heads")?;
        settings.parts("hidden_size", width, heads)?;
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width,
            layers: settings.size("num_hidden_layers")?,
            heads,
            inner: settings.size("intermediate_size")?,
            activation: settings.activation("hidden_act")?,
            positions: settings.size("max_position_embeddings")?,
            segments: settings.size_or("type_vocab_size", 2)?,
            epsilon: settings.number_or("layer_norm_eps", 1e-12)?,
        })
    }

    pub(super) fn widths(&self) -> Widths {
        let (hidden, inner) = (self.width, self.inner);
        Widths { hidden, qkv: 3 * hidden, context: hidden, inner, gated: false }
    }

    /// Reads the network; `padding` as [`Positions`] has it.
    pub(super) fn network_counting(
        &self,
        reader: &mut Reader<'_>,
        padding: Option<u32>,
    ) -> Result<Network, LoadError> {
        let (width, epsilon) = (self.width, self.epsilon);
        let table = |part: &str| format!("embeddings.{part}_embeddings.weight");
        let embedding = Embedding {
            tokens: reader.tensor(&table("word"), &[self.vocabulary, width])?,
            scale: 1.0,
            segments: Some(reader.tensor(&table("token_type"), &[self.segments, width])?),
            positions: Some(Positions {
                rows: reader.tensor(&table("position"), &[self.positions, width])?,
                padding,
            }),
            norm: Some(reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, epsilon)?),
        };
        let blocks = (0..self.layers)
            .map(|i| self.block(reader, &format!("encoder.layer.{i}")))
            .collect::<Result<_, _>>()?;
        reader.check_extra(&["embeddings.", "encoder."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: None,
            rotaries: vec![],
            last_norm: None,
            widths: self.widths(),
            weight_bytes: reader.bytes(),
        })
    }

    fn block(&self, reader: &mut Reader<'_>, name: &str) -> Result<Block, LoadError> {
        let (width, inner) = (self.width, self.inner);
        let mut linear = |parts: &[&str], inputs, outputs, activation| {
            let parts: Vec<_> =
                parts.iter().map(|part| (format!("{name}.{part}"), outputs)).collect();
            reader.linear(&parts, inputs, Bias::Each, activation)
        };
        let qkv = ["attention.self.query", "attention.self.key", "attention.self.value"];
        let attention = SelfAttention {
            qkv: linear(&qkv, width, width, Activation::None)?,
            head_norm: None,
            rotary: None,
            shape: Attention::full(self.heads, width / self.heads),
            output: linear(&["attention.output.dense"], width, width, Activation::None)?,
        };
        let feed = FeedForward {
            up: linear(&["intermediate.dense"], width, inner, self.activation)?,
            gate: None,
            down: linear(&["output.dense"], inner, width, Activation::None)?,
        };
        let mut norm = |part: &str| {
            reader.layer_norm(&format!("{name}.{part}.LayerNorm"), width, Bias::Each, self.epsilon)
        };
        let norms = Norms::After { attention: norm("attention.output")?, feed: norm("output")? };
        Ok(Block { attention, feed, norms })
    }
}

impl Architecture for Bert {
    fn facts(&self) -> Facts {
        Facts {
            name: "bert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            widths: self.widths(),
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["bert."], "embeddings.word_embeddings.weight");
        self.network_counting(reader, None)
    }
}
