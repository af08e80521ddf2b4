//! MPNet: BERT's shape with a relative position bias, without segments.

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures::post_norm::{PostNormEncoder, PostNormNames, TOKEN_TABLE};
use crate::encoder::architectures::roberta::{CLASSIFIER, mask_head};
use crate::encoder::head_names::{ClassifierNames, MaskHeadNames};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::relative_bias::{Buckets, RelativeBias};

/// Its settings.
#[derive(Debug)]
pub(crate) struct MpNet {
    encoder: PostNormEncoder,
    buckets: Buckets,
}

impl MpNet {
    pub(crate) fn read(config: RawConfig<'_>) -> Result<Self, LoadError> {
        let encoder = PostNormEncoder::read(config, Activation::Gelu)?;
        let encoder = PostNormEncoder { segments: None, ..encoder };
        let count = config.size_or("relative_attention_num_buckets", 32)?;
        Ok(Self {
            encoder: encoder.counting_from(PADDING, config)?,
            buckets: config.buckets("relative_attention_num_buckets", count, MAX_DISTANCE)?,
        })
    }
}

impl Architecture for MpNet {
    fn spec(&self) -> EncoderSpec {
        self.encoder.spec("mpnet")
    }

    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["mpnet."], TOKEN_TABLE);
        let heads = self.encoder.heads;
        let bias = "encoder.relative_attention_bias.weight";
        let bias = reader.values(bias, &[self.buckets.count, heads])?;
        let network = self.encoder.network(reader, "encoder.layer", &NAMES)?;
        Ok(Network { bias: Some(RelativeBias::new(&bias, heads, self.buckets)), ..network })
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(CLASSIFIER)
    }

    fn mask_head(&self) -> Option<MaskHeadNames> {
        Some(mask_head(self.encoder.epsilon))
    }
}

/// The distance from which on all keys share a bucket; fixed, where T5 has a setting.
const MAX_DISTANCE: usize = 128;

/// The id of the padding token, fixed in the reference: the configuration does not count.
const PADDING: u32 = 1;

const NAMES: PostNormNames = PostNormNames {
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attended: "attention.attn.o",
    attended_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};
