//! From the files of an encoder-decoder to a model.

use std::io;
use std::sync::Arc;

use crate::api::error::ComputeError;
use crate::api::generation::{Decoder, Seq2SeqModel};
use crate::api::generation_defaults::GenerationDefaults;
use crate::api::need::Need;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::seq2seq::codec::TextCodec;
use crate::seq2seq::decoder::TeamDecoder;
use crate::seq2seq::defaults;
use crate::seq2seq::files::ModelFiles;
use crate::seq2seq::network::Seq2SeqNetwork;
use crate::seq2seq::network_config::NetworkConfig;
use crate::side_by_side::side_by_side;

/// An encoder-decoder with its tokenizer.
#[derive(Debug)]
pub(super) struct EncoderDecoder {
    network: Arc<Seq2SeqNetwork>,
    codec: TextCodec,
    spec: ModelSpec,
    defaults: GenerationDefaults,
}

impl EncoderDecoder {
    /// Reads the tokenizer and the weights, and fits them to each other.
    pub(super) fn load(files: &ModelFiles) -> Result<Self, LoadError> {
        let config_file = files.file("config.json");
        let raw = RawConfig { file: &config_file, json: &files.config };
        let config = NetworkConfig::read(raw)?;
        let class = config.class_defaults();
        let defaults =
            defaults::read(&files.folder, files.generation.as_ref(), &files.config, class)?;
        let (tokenizer, network) =
            side_by_side(|| files.tokenizer.read(&files.folder), || config.network(&files.weights));
        let (tokenizer, network) = (tokenizer?, network?);
        let encoder = &network.encoder.embedding;
        let codec = TextCodec::new(tokenizer, encoder.tokens.len(), &files.tokenizer_config)?;
        let limit = files.tokenizer_config["model_max_length"].as_u64();
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.or(files.tokenizer.max_tokens()).unwrap_or(MAX_TOKENS);
        let spec = ModelSpec {
            architecture: raw.text("model_type")?.unwrap_or_default().to_owned(),
            max_tokens: limit.min(encoder.positions(network.width).unwrap_or(MAX_TOKENS)),
            weight_bytes: network.weight_bytes,
            ..ModelSpec::default()
        };
        Ok(Self { network: Arc::new(network), codec, spec, defaults })
    }

    #[cfg(test)]
    pub(super) fn network(&self) -> Arc<Seq2SeqNetwork> {
        Arc::clone(&self.network)
    }
}

/// See [`crate::seq2seq_need`].
pub(super) fn need(files: &ModelFiles, threads: usize) -> Result<Need, LoadError> {
    let file = files.file("config.json");
    let config = NetworkConfig::read(RawConfig { file: &file, json: &files.config })?;
    let cpu_bytes = files
        .weights
        .loaded_bytes()
        .saturating_add(files.tokenizer.need())
        .saturating_add(config.sizes().computing_bytes(threads));
    Ok(Need { cpu_bytes, gpu_bytes: None })
}

impl Seq2SeqModel for EncoderDecoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    fn vocabulary(&self) -> usize {
        self.network.output.outputs()
    }

    fn max_output_tokens(&self) -> Option<usize> {
        self.network.decoder.embedding.positions(self.network.width)
    }

    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        self.codec.tokenize(text, max_tokens)
    }

    fn settled_bytes(&self, ids: &[u32], text: &str) -> Result<usize, ComputeError> {
        self.codec.settled_bytes(ids, text)
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String, ComputeError> {
        self.codec.detokenize(ids)
    }

    fn decoder(self: Arc<Self>, threads: usize) -> io::Result<Box<dyn Decoder>> {
        Ok(Box::new(TeamDecoder::new(Arc::clone(&self.network), threads)?))
    }
}

/// The limit for an input if neither positions nor the tokenizer set one, in tokens.
const MAX_TOKENS: usize = 1_000_000;
