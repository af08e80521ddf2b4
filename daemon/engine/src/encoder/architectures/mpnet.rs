//! MPNet: BERT's blocks with a bias for the distance of tokens, without segments.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::post_norm::{Names, PostNorm};
use crate::encoder::architectures::roberta::{CLASSIFIER, mask_head, positions_behind};
use crate::encoder::architectures::{Architecture, ClassifierNames, Facts, MaskNames};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::embedding::{Embedding, Positions};
use crate::layers::relative_bias::{Buckets, RelativeBias};

/// The distance from which on all are alike; fixed, where T5 has a setting.
const MAX_DISTANCE: usize = 128;

/// The number of the padding token; fixed in the reference, whatever the configuration says.
const PADDING: u32 = 1;

const NAMES: Names = Names {
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attended: "attention.attn.o",
    attended_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// What its `config.json` says.
#[derive(Debug)]
pub(crate) struct MpNet {
    vocabulary: usize,
    layers: usize,
    block: PostNorm,
    /// Rows of the position table.
    rows: usize,
    /// Places that are left for tokens.
    positions: usize,
    buckets: Buckets,
}

impl MpNet {
    pub(crate) fn read(settings: Settings<'_>) -> Result<Self, LoadError> {
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
        let rows = settings.size("max_position_embeddings")?;
        let count = settings.size_or("relative_attention_num_buckets", 32)?;
        Ok(Self {
            vocabulary: settings.size("vocab_size")?,
            layers: settings.size("num_hidden_layers")?,
            block,
            rows,
            positions: positions_behind(PADDING, rows, settings)?,
            buckets: settings.buckets("relative_attention_num_buckets", count, MAX_DISTANCE)?,
        })
    }
}

impl Architecture for MpNet {
    fn facts(&self) -> Facts {
        Facts {
            name: "mpnet",
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: true,
            widths: self.block.widths(),
        }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["mpnet."], "embeddings.word_embeddings.weight");
        let PostNorm { width, heads, epsilon, .. } = self.block;
        let table = |part: &str| format!("embeddings.{part}_embeddings.weight");
        let embedding = Embedding {
            tokens: reader.table(&table("word"), &[self.vocabulary, width])?,
            scale: 1.0,
            segments: None,
            positions: Some(Positions {
                rows: reader.tensor(&table("position"), &[self.rows, width])?,
                padding: Some(PADDING),
            }),
            norm: Some(reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, epsilon)?),
        };
        let bias = "encoder.relative_attention_bias.weight";
        let bias = reader.values(bias, &[self.buckets.count, heads])?;
        let blocks = self.block.blocks(reader, "encoder.layer", self.layers, NAMES)?;
        reader.check_extra(&["embeddings.", "encoder."])?;
        Ok(Network {
            embedding,
            blocks,
            bias: Some(RelativeBias::new(&bias, heads, self.buckets)),
            rotaries: vec![],
            last_norm: None,
            widths: self.block.widths(),
            weight_bytes: reader.bytes(),
        })
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(CLASSIFIER)
    }

    fn mask_head(&self) -> Option<MaskNames> {
        Some(mask_head(self.block.epsilon))
    }
}
