//! BERT.

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

const NAMES: Names = Names {
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    attended: "attention.output.dense",
    attended_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// What its `config.json` says, and that of models built like it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bert {
    vocabulary: usize,
    layers: usize,
    block: PostNorm,
    /// Rows of the position table.
    pub(crate) positions: usize,
    segments: usize,
}

impl Bert {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
        settings.only("position_embedding_type", &"absolute".into(), "absolute")?;
        let width = settings.size("hidden_size")?;
        let heads = settings.size("num_attention_heads")?;
        settings.parts("hidden_size", width, heads)?;
        let block = PostNorm {
            width,
            heads,
            inner: settings.size("intermediate_size")?,
            activation: settings.activation_or("hidden_act", Activation::Gelu)?,
            epsilon: settings.positive_or("layer_norm_eps", 1e-12)?,
        };
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            layers: settings.size("num_hidden_layers")?,
            block,
            positions: settings.size("max_position_embeddings")?,
            segments: settings.size_or("type_vocab_size", 2)?,
        })
    }

    /// Reads the network; `padding` as [`Positions`] has it.
    pub(crate) fn network_counting(
        &self,
        reader: &mut Reader<'_>,
        padding: Option<u32>,
    ) -> Result<Network, LoadError> {
        let PostNorm { width, epsilon, .. } = self.block;
        let table = |part: &str| format!("embeddings.{part}_embeddings.weight");
        let embedding = Embedding {
            tokens: reader.table(&table("word"), &[self.vocabulary, width])?,
            scale: 1.0,
            segments: Some(reader.tensor(&table("token_type"), &[self.segments, width])?),
            positions: Some(Positions {
                rows: reader.tensor(&table("position"), &[self.positions, width])?,
                padding,
            }),
            norm: Some(reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, epsilon)?),
        };
        let blocks = self.block.blocks(reader, "encoder.layer", self.layers, NAMES)?;
        reader.check_extra(&["embeddings.", "encoder."])?;
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

    pub(crate) fn epsilon(&self) -> f32 {
        self.block.epsilon
    }
}

impl Architecture for Bert {
    fn facts(&self) -> Facts {
        Facts {
            name: "bert",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: true,
            widths: self.block.widths(),
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["bert."], "embeddings.word_embeddings.weight");
        self.network_counting(reader, None)
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pool: Pool::First,
            dense: "bert.pooler.dense",
            dense_bias: Bias::Each,
            activation: Activation::Tanh,
            norm: None,
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskNames> {
        Some(MaskNames {
            dense: "cls.predictions.transform.dense",
            dense_bias: Bias::Each,
            activation: self.block.activation,
            norm: HeadNormNames {
                name: "cls.predictions.transform.LayerNorm",
                bias: Bias::Each,
                epsilon: self.block.epsilon,
            },
            decoder: "cls.predictions.decoder.weight",
            bias: Some("cls.predictions.bias"),
        })
    }
}
