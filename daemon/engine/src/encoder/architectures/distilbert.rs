//! DistilBERT: BERT's shape under other names, without segments.

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures::post_norm::{PostNormEncoder, PostNormNames, TOKEN_TABLE};
use crate::encoder::head_names::{
    ClassifierNames, ClassifierPooling, HeadNormNames, MaskHeadNames,
};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;

/// Its settings.
#[derive(Debug)]
pub(crate) struct DistilBert {
    encoder: PostNormEncoder,
}

impl DistilBert {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        let width = config.size("dim")?;
        let heads = config.size("n_heads")?;
        config.parts("dim", width, heads)?;
        let encoder = PostNormEncoder {
            vocabulary: config.size("vocab_size")?,
            embedding_width: width,
            width,
            heads,
            inner: config.size("hidden_dim")?,
            layers: config.size("n_layers")?,
            activation: config.activation_or("activation", Activation::Gelu)?,
            epsilon: EPSILON,
            position_rows: config.size("max_position_embeddings")?,
            segments: None,
            padding: None,
        };
        Ok(Self { encoder })
    }
}

impl Architecture for DistilBert {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("distilbert")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["distilbert."], TOKEN_TABLE);
        self.encoder.network(reader, "transformer.layer", &NAMES)
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(ClassifierNames {
            pooling: ClassifierPooling::First,
            dense: "pre_classifier",
            dense_bias: Bias::Each,
            activation: Activation::Relu,
            norm: None,
            output: "classifier",
        })
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(MaskHeadNames {
            dense: "vocab_transform",
            dense_bias: Bias::Each,
            activation: self.encoder.activation,
            norm: HeadNormNames { name: "vocab_layer_norm", bias: Bias::Each, epsilon: EPSILON },
            decoder: "vocab_projector.weight",
            bias: Some("vocab_projector.bias"),
        })
    }
}

/// Fixed in the reference, where other models have a setting.
const EPSILON: f32 = 1e-12;

const NAMES: PostNormNames = PostNormNames {
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attended: "attention.out_lin",
    attended_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};
