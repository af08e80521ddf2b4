//! ALBERT: BERT's shape on narrower embeddings, with blocks that share their weights.

use std::sync::Arc;

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures::post_norm::{PostNormEncoder, PostNormNames, TOKEN_TABLE};
use crate::encoder::block::Block;
use crate::encoder::head_names::{
    ClassifierNames, ClassifierPooling, HeadNormNames, MaskHeadNames,
};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;

/// Its settings.
#[derive(Debug)]
pub(crate) struct Albert {
    encoder: PostNormEncoder,
    /// Layers are split among the groups. All layers of a group run the same blocks.
    groups: usize,
    /// Blocks of a group. Each layer runs all of them.
    group_blocks: usize,
}

impl Albert {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        let encoder = PostNormEncoder::read(config, Activation::GeluTanh)?;
        let embedding_width = config.size_or("embedding_size", 128)?;
        let groups = config.size_or("num_hidden_groups", 1)?;
        let group_blocks = config.size_or("inner_group_num", 1)?;
        let layers = encoder.layers;
        for (setting, count) in [
            ("num_hidden_layers", layers),
            ("inner_group_num", layers.saturating_mul(group_blocks)),
        ] {
            if count > MOST_BLOCKS {
                let wanted = format!("at most {MOST_BLOCKS} blocks in all layers");
                return Err(config.setting(setting, count, wanted));
            }
        }
        if groups > layers {
            let wanted = format!("at most {layers}, the number of layers");
            return Err(config.setting("num_hidden_groups", groups, wanted));
        }
        let encoder = PostNormEncoder { embedding_width, ..encoder };
        Ok(Self { encoder, groups, group_blocks })
    }

    /// Reads the blocks of one group.
    fn group(&self, reader: &mut TensorReader<'_>, i: usize) -> Result<Vec<Arc<Block>>, LoadError> {
        let prefix = |j| format!("encoder.albert_layer_groups.{i}.albert_layers.{j}");
        (0..self.group_blocks)
            .map(|j| self.encoder.block(reader, &prefix(j), &NAMES).map(Arc::new))
            .collect()
    }
}

impl Architecture for Albert {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("albert")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["albert."], TOKEN_TABLE);
        let PostNormEncoder { embedding_width, width, layers, .. } = self.encoder;
        let embedding = self.encoder.embedding(reader)?;
        let projection = &[("encoder.embedding_hidden_mapping_in".to_owned(), width)];
        let projection =
            reader.linear(projection, embedding_width, Bias::Each, Activation::None)?;
        let groups = (0..self.groups)
            .map(|i| self.group(reader, i))
            .collect::<Result<Vec<_>, LoadError>>()?;
        let blocks = (0..layers)
            .flat_map(|layer| groups[group_of(layer, layers, self.groups)].iter().cloned())
            .collect();
        reader.check_extra(&["embeddings.", "encoder."])?;
        let network = Network::of(embedding, Vec::new(), self.encoder.widths(), reader.bytes());
        Ok(Network { projection: Some(projection), blocks, ..network })
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pooling: ClassifierPooling::First,
            dense: "albert.pooler",
            dense_bias: Bias::Each,
            activation: Activation::Tanh,
            norm: None,
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(MaskHeadNames {
            dense: "predictions.dense",
            dense_bias: Bias::Each,
            activation: self.encoder.activation,
            norm: HeadNormNames {
                name: "predictions.LayerNorm",
                bias: Bias::Each,
                epsilon: self.encoder.epsilon,
            },
            decoder: "predictions.decoder.weight",
            bias: Some("predictions.bias"),
        })
    }
}

/// The group of a layer, in floating point as the reference computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "layers are few, and the fraction is cut off as in the reference"
)]
fn group_of(layer: usize, layers: usize, groups: usize) -> usize {
    let group = layer as f64 / (layers as f64 / groups as f64);
    (group as usize).min(groups - 1)
}

/// Far more blocks than any model has. The file does not bound their number, because they share their
/// weights.
const MOST_BLOCKS: usize = 1 << 12;

const NAMES: PostNormNames = PostNormNames {
    qkv: ["attention.query", "attention.key", "attention.value"],
    attended: "attention.dense",
    attended_norm: "attention.LayerNorm",
    up: "ffn",
    down: "ffn_output",
    norm: "full_layer_layer_norm",
};

#[cfg(test)]
mod tests {
    use super::group_of;

    #[test]
    fn layers_are_split_among_groups_in_order() {
        let groups = |layers, count| (0..layers).map(|i| group_of(i, layers, count)).collect();
        let twelve: Vec<usize> = groups(12, 1);
        assert_eq!(twelve, [0; 12]);
        let three: Vec<usize> = groups(3, 2);
        assert_eq!(three, [0, 0, 1]);
        let five: Vec<usize> = groups(5, 5);
        assert_eq!(five, [0, 1, 2, 3, 4]);
    }
}
