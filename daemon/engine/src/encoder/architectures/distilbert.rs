//! DistilBERT: BERT's blocks under other names, without segments.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::post_norm::{Names, PostNorm};
use crate::encoder::architectures::{
    Architecture, ClassifierNames, Facts, HeadNormNames, MaskNames, Pool,
};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::embedding::{Embedding, Positions};

/// Fixed, where other models have a setting.
const EPSILON: f32 = 1e-12;

const NAMES: Names = Names {
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attended: "attention.out_lin",
    attended_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};

/// What its `config.json` says.
#[derive(Debug)]
pub(crate) struct DistilBert {
    vocabulary: usize,
    layers: usize,
    block: PostNorm,
    positions: usize,
}

impl DistilBert {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        let width = settings.size("dim")?;
        let heads = settings.size("n_heads")?;
        settings.parts("dim", width, heads)?;
        let block = PostNorm {
            width,
            heads,
            inner: settings.size("hidden_dim")?,
            activation: settings.activation_or("activation", Activation::Gelu)?,
            epsilon: EPSILON,
        };
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            layers: settings.size("n_layers")?,
            block,
            positions: settings.size("max_position_embeddings")?,
        })
    }
}

impl Architecture for DistilBert {
    fn facts(&self) -> Facts {
        Facts {
            name: "distilbert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: true,
            widths: self.block.widths(),
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["distilbert."], "embeddings.word_embeddings.weight");
        let width = self.block.width;
        let table = |part: &str| format!("embeddings.{part}_embeddings.weight");
        let embedding = Embedding {
            tokens: reader.table(&table("word"), &[self.vocabulary, width])?,
            scale: 1.0,
            segments: None,
            positions: Some(Positions {
                rows: reader.tensor(&table("position"), &[self.positions, width])?,
                padding: None,
            }),
            norm: Some(reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, EPSILON)?),
        };
        let blocks = self.block.blocks(reader, "transformer.layer", self.layers, NAMES)?;
        reader.check_extra(&["embeddings.", "transformer."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: None,
            rotaries: vec![],
            last_norm: None,
            widths: self.block.widths(),
            weight_bytes: reader.bytes(),
        })
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pool: Pool::First,
            dense: "pre_classifier",
            dense_bias: Bias::Each,
            activation: Activation::Relu,
            norm: None,
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskNames> {
        Some(MaskNames {
            dense: "vocab_transform",
            dense_bias: Bias::Each,
            activation: self.block.activation,
            norm: HeadNormNames { name: "vocab_layer_norm", bias: Bias::Each, epsilon: EPSILON },
            decoder: "vocab_projector.weight",
            bias: Some("vocab_projector.bias"),
        })
    }
}
