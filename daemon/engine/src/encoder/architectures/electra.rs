//! ELECTRA: BERT's shape on embeddings that may be narrower than the blocks.

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures::post_norm::{BERT_NAMES, PostNormEncoder, TOKEN_TABLE};
use crate::encoder::head_names::{
    ClassifierNames, ClassifierPooling, HeadNormNames, MaskHeadNames,
};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;

/// Its settings.
#[derive(Debug)]
pub(crate) struct Electra {
    encoder: PostNormEncoder,
}

impl Electra {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        let encoder = PostNormEncoder::read(config, Activation::Gelu)?;
        let embedding_width = config.size_or("embedding_size", 128)?;
        Ok(Self { encoder: PostNormEncoder { embedding_width, ..encoder } })
    }
}

impl Architecture for Electra {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("electra")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["electra."], TOKEN_TABLE);
        let PostNormEncoder { embedding_width, width, .. } = self.encoder;
        let mut projection = None;
        if embedding_width != width {
            let layer = &[("embeddings_project".to_owned(), width)];
            projection =
                Some(reader.linear(layer, embedding_width, Bias::Each, Activation::None)?);
        }
        let network = self.encoder.network(reader, "encoder.layer", &BERT_NAMES)?;
        Ok(Network { projection, ..network })
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pooling: ClassifierPooling::First,
            dense: "classifier.dense",
            dense_bias: Bias::Each,
            // Fixed in the reference for both heads; it does not follow hidden_act.
            activation: Activation::Gelu,
            norm: None,
            output: "classifier.out_proj",
        })
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(MaskHeadNames {
            dense: "generator_predictions.dense",
            dense_bias: Bias::Each,
            activation: Activation::Gelu,
            norm: HeadNormNames {
                name: "generator_predictions.LayerNorm",
                bias: Bias::Each,
                epsilon: self.encoder.epsilon,
            },
            decoder: "generator_lm_head.weight",
            bias: Some("generator_lm_head.bias"),
        })
    }
}
