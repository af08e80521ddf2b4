//! From the files of an encoder-decoder to a model.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::api::embedding::{ComputeError, ModelSpec, Sequence};
use crate::api::generation::{Decoder, GenerationDefaults, Seq2SeqModel};
use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
use crate::load::side_by_side;
use crate::need::Need;
use crate::seq2seq::codec::Codec;
use crate::seq2seq::decoder::NetworkDecoder;
use crate::seq2seq::defaults;
use crate::seq2seq::files::Files;
use crate::seq2seq::network::Network;
use crate::seq2seq::{bart, t5};

/// Tokens of an input where neither positions nor the tokenizer set a limit.
const MAX_TOKENS: usize = 1_000_000;

/// What [`need`] counts on: so many inputs at once, each with one answer.
const INPUTS: usize = 8;
const INPUT_TOKENS: usize = 512;
const OUTPUT_TOKENS: usize = 128;

/// The kinds of encoder-decoder that can be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    T5,
    Bart(bart::Kind),
}

impl Family {
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("config.json");
        let config: Value = read_json(&file)?;
        Self::of_config(&file, &config)
    }

    pub(crate) fn of_config(file: &Path, config: &Value) -> Result<Self, LoadError> {
        match config["model_type"].as_str() {
            Some("t5" | "mt5") => Ok(Self::T5),
            Some("bart") => Ok(Self::Bart(bart::Kind::Bart)),
            Some("marian") => Ok(Self::Bart(bart::Kind::Marian)),
            other => Err(LoadError::Unsupported {
                file: file.to_owned(),
                what: "the architecture",
                found: other.unwrap_or("(none)").to_owned(),
                supported: "t5, mt5, bart, marian",
            }),
        }
    }
}

/// A configuration of any kind.
#[derive(Debug)]
enum Config {
    T5(t5::Config),
    Bart(bart::Config),
}

/// What memory is reckoned by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vocabulary: usize,
    pub(crate) width: usize,
    /// All heads together.
    pub(crate) inner: usize,
    pub(crate) feed: usize,
    pub(crate) decoder_layers: usize,
}

/// Refuses sizes that would divide by zero, or overflow, further on.
pub(crate) fn check_sizes(file: &Path, sizes: &[(&'static str, usize)]) -> Result<(), LoadError> {
    const MOST: usize = 1 << 24;
    match sizes.iter().find(|(_, size)| !(1..=MOST).contains(size)) {
        None => Ok(()),
        Some(&(setting, found)) => {
            let (file, wanted) = (file.to_owned(), format!("between 1 and {MOST}"));
            Err(LoadError::Setting { file, setting, found, wanted })
        }
    }
}

impl Config {
    fn read(files: &Files) -> Result<(Family, Self), LoadError> {
        let file = files.file("config.json");
        let family = Family::of_config(&file, &files.config)?;
        let config = match family {
            Family::T5 => Self::T5(t5::Config::read(&file, &files.config)?),
            Family::Bart(kind) => Self::Bart(bart::Config::read(kind, &file, &files.config)?),
        };
        Ok((family, config))
    }

    fn network(&self, files: &Files) -> Result<Network, LoadError> {
        match self {
            Self::T5(config) => config.network(&files.weights),
            Self::Bart(config) => config.network(&files.weights),
        }
    }

    fn sizes(&self) -> Sizes {
        match self {
            Self::T5(config) => config.sizes(),
            Self::Bart(config) => config.sizes(),
        }
    }
}

/// An encoder-decoder with its tokenizer.
#[derive(Debug)]
pub(crate) struct EncoderDecoder {
    pub(crate) network: Network,
    codec: Codec,
    card: ModelSpec,
    defaults: GenerationDefaults,
}

/// Reads everything. See [`crate::seq2seq::load_seq2seq`].
pub(crate) fn load(files: &Files) -> Result<EncoderDecoder, LoadError> {
    let (family, config) = Config::read(files)?;
    let class = match family {
        Family::T5 => t5::DEFAULTS,
        Family::Bart(kind) => kind.defaults(),
    };
    let defaults = defaults::read(&files.folder, files.generation.as_ref(), &files.config, class)?;
    let (tokenizer, network) =
        side_by_side(|| files.tokenizer.read(&files.folder), || config.network(files));
    let (tokenizer, network) = (tokenizer?, network?);
    let encoder = &network.encoder.embedding;
    let codec = Codec::new(tokenizer, encoder.tokens.len(), &files.tokenizer_config)?;
    let limit = files.tokenizer_config["model_max_length"].as_u64();
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.or(files.tokenizer.max_tokens()).unwrap_or(MAX_TOKENS);
    let card = ModelSpec {
        architecture: files.config["model_type"].as_str().unwrap_or_default().to_owned(),
        max_tokens: limit.min(encoder.reach(network.width).unwrap_or(MAX_TOKENS)),
        weight_bytes: network.weight_bytes,
        ..ModelSpec::default()
    };
    Ok(EncoderDecoder { network, codec, card, defaults })
}

/// See [`crate::seq2seq::seq2seq_need`].
pub(crate) fn need(files: &Files, threads: usize) -> Result<Need, LoadError> {
    let (_, config) = Config::read(files)?;
    let Sizes { vocabulary, width, inner, feed, decoder_layers } = config.sizes();
    // Wide enough for any sizes that a configuration may say.
    let [vocabulary, width, inner, feed, layers, threads] =
        [vocabulary, width, inner, feed, decoder_layers, threads].map(|n| n as u128);
    let inputs = INPUTS as u128;
    let (input_tokens, output_tokens) =
        (inputs * INPUT_TOKENS as u128, inputs * OUTPUT_TOKENS as u128);
    // Keys and values, of inputs and answers.
    let caches = (input_tokens + output_tokens) * layers * 2 * inner;
    // A token's rows in the encoder, at most: the stream, its copy and what joins it; queries, keys
    // and values (twice, since the exchange has two sets) and the context; the inner layer and its gate.
    let encoding = input_tokens * (3 * width + 8 * inner + 3 * feed);
    let stepping = inputs * (threads * (3 * width + 4 * inner + 2 * feed) + 2 * vocabulary);
    let values = u64::try_from(caches + encoding + stepping).unwrap_or(u64::MAX);
    let cpu_bytes = files
        .weights
        .loaded_bytes()
        .saturating_add(files.tokenizer.need())
        .saturating_add(values.saturating_mul(4));
    Ok(Need { cpu_bytes, gpu_bytes: None })
}

impl Seq2SeqModel for EncoderDecoder {
    fn spec(&self) -> &ModelSpec {
        &self.card
    }

    fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    fn vocabulary(&self) -> usize {
        self.network.output.outputs()
    }

    fn max_output_tokens(&self) -> Option<usize> {
        self.network.decoder.embedding.reach(self.network.width)
    }

    fn encode(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        self.codec.encode(text, max_tokens)
    }

    fn settled_bytes(&self, ids: &[u32], text: &str) -> Result<usize, ComputeError> {
        self.codec.settled_bytes(ids, text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, ComputeError> {
        self.codec.decode(ids)
    }

    fn decoder(self: Arc<Self>, threads: usize) -> io::Result<Box<dyn Decoder>> {
        Ok(Box::new(NetworkDecoder::new(self, threads)?))
    }
}
