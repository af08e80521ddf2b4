//! BERT.

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
pub(crate) struct Bert {
    encoder: PostNormEncoder,
}

impl Bert {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        Ok(Self { encoder: PostNormEncoder::read(config, Activation::Gelu)? })
    }
}

impl Architecture for Bert {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("bert")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["bert."], TOKEN_TABLE);
        self.encoder.network(reader, "encoder.layer", &BERT_NAMES)
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pooling: ClassifierPooling::First,
            dense: "bert.pooler.dense",
            dense_bias: Bias::Each,
            activation: Activation::Tanh,
            norm: None,
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(MaskHeadNames {
            dense: "cls.predictions.transform.dense",
            dense_bias: Bias::Each,
            activation: self.encoder.activation,
            norm: HeadNormNames {
                name: "cls.predictions.transform.LayerNorm",
                bias: Bias::Each,
                epsilon: self.encoder.epsilon,
            },
            decoder: "cls.predictions.decoder.weight",
            bias: Some("cls.predictions.bias"),
        })
    }
}
