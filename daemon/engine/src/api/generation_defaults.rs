//! The generation settings of a model folder. Names and meanings are those of transformers'
//! `GenerationConfig`.

/// The generation settings of a folder, from `generation_config.json`, or from `config.json` if it has
/// none. A request may override those that `GenerateOptions` of the protocol has, too.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationDefaults {
    /// The token that every output starts with.
    pub decoder_start: u32,
    /// Tokens that end an output.
    pub eos: Vec<u32>,
    /// The token that pads outputs that have ended.
    pub pad: u32,
    /// The first token after the start, if the model forces one; any of several.
    pub forced_bos: Vec<u32>,
    /// The last token of an output of maximum length, if the model forces one; any of several.
    pub forced_eos: Vec<u32>,
    /// Logits processors that a request cannot set.
    pub logits: LogitsSettings,
    /// Limits of sampling that a request cannot set.
    pub sampling_limits: SamplingLimits,
    /// The most tokens of an output, if the folder sets it (`max_new_tokens`, else `max_length` without
    /// the start token).
    pub max_new_tokens: Option<usize>,
    /// See `GenerateOptions::min_new_tokens`; `min_length` counts the start token, too.
    pub min_new_tokens: usize,
    /// See `GenerateOptions`.
    pub num_beams: usize,
    /// See `GenerateOptions`.
    pub num_return_sequences: usize,
    /// Strings that end an output (`stop_strings`), unless a request has its own.
    pub stop: Vec<String>,
    /// See `GenerateOptions`.
    pub length_penalty: f32,
    /// See `GenerateOptions`.
    pub early_stopping: emberd_protocol::EarlyStopping,
    /// See `GenerateOptions`.
    pub do_sample: bool,
    /// See `GenerateOptions`.
    pub temperature: f32,
    /// See `GenerateOptions`.
    pub top_k: usize,
    /// See `GenerateOptions`.
    pub top_p: f32,
    /// See `GenerateOptions`.
    pub repetition_penalty: f32,
    /// See `GenerateOptions`.
    pub no_repeat_ngram_size: usize,
}

impl Default for GenerationDefaults {
    /// The defaults of transformers.
    fn default() -> Self {
        Self {
            decoder_start: 0,
            eos: Vec::new(),
            pad: 0,
            forced_bos: Vec::new(),
            forced_eos: Vec::new(),
            logits: LogitsSettings::default(),
            sampling_limits: SamplingLimits::default(),
            max_new_tokens: None,
            min_new_tokens: 0,
            num_beams: 1,
            num_return_sequences: 1,
            stop: Vec::new(),
            length_penalty: 1.0,
            early_stopping: emberd_protocol::EarlyStopping::No,
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
        }
    }
}

/// Settings for logits processors that a request cannot set. By default none of them changes a logit.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitsSettings {
    /// Token sequences that are never generated (`bad_words_ids`).
    pub bad_words: Vec<Vec<u32>>,
    /// Token sequences with a bias, added to the logit of the last token after the others.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated (`suppress_tokens`).
    pub suppressed: Vec<u32>,
    /// Tokens that are never generated first (`begin_suppress_tokens`).
    pub begin_suppressed: Vec<u32>,
    /// Above 1, tokens of the input become more likely.
    pub encoder_repetition_penalty: f32,
    /// No n-gram of this size occurs in both input and output; 0 turns the rule off.
    pub encoder_no_repeat_ngram_size: usize,
    /// The number of tokens after which, and the factor by which, an end becomes more likely with each
    /// token (`exponential_decay_length_penalty`).
    pub length_decay: Option<(usize, f32)>,
    /// Whether the scores of beams are normalised to probabilities afterwards
    /// (`renormalize_logits`).
    pub renormalize: bool,
}

impl Default for LogitsSettings {
    fn default() -> Self {
        Self {
            bad_words: Vec::new(),
            sequence_bias: Vec::new(),
            suppressed: Vec::new(),
            begin_suppressed: Vec::new(),
            encoder_repetition_penalty: 1.0,
            encoder_no_repeat_ngram_size: 0,
            length_decay: None,
            renormalize: false,
        }
    }
}

/// Which tokens are never sampled, beyond the limits that a request can set. None by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingLimits {
    /// The least probability, relative to the greatest one; 0 for no limit.
    pub min_p: f32,
    /// Only the most typical tokens with this total probability are sampled; 1 for all.
    pub typical_p: f32,
    /// The least probability; 0 for no limit.
    pub epsilon_cutoff: f32,
    /// The least probability, lowered for distributions of high entropy; 0 for no limit.
    pub eta_cutoff: f32,
}

impl Default for SamplingLimits {
    fn default() -> Self {
        Self { min_p: 0.0, typical_p: 1.0, epsilon_cutoff: 0.0, eta_cutoff: 0.0 }
    }
}
