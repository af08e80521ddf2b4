//! DistilBERT: BERT's blocks under other names, without segments.

use super::reader::{Bias, Reader};
use super::settings::Settings;
use super::{Architecture, Facts};
use crate::engine::layers::activation::Activation;
use crate::engine::layers::attention::Attention;
use crate::engine::layers::embedding::{Embedding, Positions};
use crate::engine::load_error::LoadError;
use crate::engine::network::{Block, FeedForward, Network, Norms, SelfAttention, Widths};

/// Fixed, where other models have a setting.
const EPSILON: f32 = 1e-12;

/// What its `config.json` says.
#[derive(Debug)]
pub(super) struct DistilBert {
    vocabulary: usize,
    width: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    activation: Activation,
    positions: usize,
}

impl DistilBert {
    pub(super) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        let width = settings.size("dim")?;
        let heads = settings.size("n_heads")?;
        settings.parts("dim", width, heads)?;
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            width,
            layers: settings.size("n_layers")?,
            heads,
            inner: settings.size("hidden_dim")?,
            activation: settings.activation("activation")?,
            positions: settings.size("max_position_embeddings")?,
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
        let qkv = ["attention.q_lin", "attention.k_lin", "attention.v_lin"];
        let attention = SelfAttention {
            qkv: linear(&qkv, width, width, Activation::None)?,
            head_norm: None,
            rotary: None,
            shape: Attention::full(self.heads, width / self.heads),
            output: linear(&["attention.out_lin"], width, width, Activation::None)?,
        };
        let feed = FeedForward {
            up: linear(&["ffn.lin1"], width, inner, self.activation)?,
            gate: None,
            down: linear(&["ffn.lin2"], inner, width, Activation::None)?,
        };
        let mut norm =
            |part: &str| reader.layer_norm(&format!("{name}.{part}"), width, Bias::Each, EPSILON);
        let norms =
            Norms::After { attention: norm("sa_layer_norm")?, feed: norm("output_layer_norm")? };
        Ok(Block { attention, feed, norms })
    }
}

impl Architecture for DistilBert {
    fn facts(&self) -> Facts {
        Facts {
            name: "distilbert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            widths: self.widths(),
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["distilbert."], "embeddings.word_embeddings.weight");
        let width = self.width;
        let table = |part: &str| format!("embeddings.{part}_embeddings.weight");
        let embedding = Embedding {
            tokens: reader.tensor(&table("word"), &[self.vocabulary, width])?,
            scale: 1.0,
            segments: None,
            positions: Some(Positions {
                rows: reader.tensor(&table("position"), &[self.positions, width])?,
                padding: None,
            }),
            norm: Some(reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, EPSILON)?),
        };
        let blocks = (0..self.layers)
            .map(|i| self.block(reader, &format!("transformer.layer.{i}")))
            .collect::<Result<_, _>>()?;
        reader.check_extra(&["embeddings.", "transformer."])?;
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
}
