//! RoBERTa, and its counterparts in other languages: XLM-R, CamemBERT.

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

/// BERT, with positions that count from behind the padding token's id.
#[derive(Debug)]
pub(crate) struct Roberta {
    name: &'static str,
    encoder: PostNormEncoder,
}

impl Roberta {
    pub(crate) fn read(name: &'static str, config: RawConfig<'_>) -> Result<Self, LoadError> {
        let encoder = PostNormEncoder::read(config, Activation::Gelu)?;
        let padding = config.token_or("pad_token_id", 1)?;
        Ok(Self { name, encoder: encoder.counting_from(padding, config)? })
    }
}

impl Architecture for Roberta {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec(self.name)
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["roberta."], TOKEN_TABLE);
        self.encoder.network(reader, "encoder.layer", &BERT_NAMES)
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(CLASSIFIER)
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(mask_head(self.encoder.epsilon))
    }
}

/// The classification head of RoBERTa and MPNet.
pub(crate) const CLASSIFIER: ClassifierNames = ClassifierNames {
    pooling: ClassifierPooling::First,
    dense: "classifier.dense",
    dense_bias: Bias::Each,
    activation: Activation::Tanh,
    norm: None,
    output: "classifier.out_proj",
};

/// The masked language model head of RoBERTa and MPNet.
pub(crate) fn mask_head(epsilon: f32) -> MaskHeadNames {
    MaskHeadNames {
        dense: "lm_head.dense",
        dense_bias: Bias::Each,
        activation: Activation::Gelu,
        norm: HeadNormNames { name: "lm_head.layer_norm", bias: Bias::Each, epsilon },
        decoder: "lm_head.decoder.weight",
        bias: Some("lm_head.bias"),
    }
}
