//! What a worker needs to know of models that turn texts into texts: encoder-decoders, which make
//! them token by token, and masked language models, which fill gaps.

use std::fmt;
use std::sync::Arc;

use crate::api::embedding::{ComputeError, ModelSpec, Sequence};

/// What a model folder says about how its texts are made: `generation_config.json`, and where there
/// is none what `config.json` says of it. The names and meanings are those of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationDefaults {
    /// The token that every answer starts from.
    pub decoder_start: u32,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// The token that fills up answers that ended.
    pub pad: u32,
    /// The first token after the start, where the model wants one; any of several.
    pub forced_bos: Vec<u32>,
    /// The last token of an answer of the greatest length, where the model wants one; any of several.
    pub forced_eos: Vec<u32>,
    /// What is done to scores beside what a request may ask for.
    pub rules: ScoreRules,
    /// What is not drawn beside what a request may exclude.
    pub draw_limits: DrawLimits,
    /// Tokens of an answer at most, where the folder says so (`max_new_tokens`, else `max_length`
    /// without the start token).
    pub max_new_tokens: Option<usize>,
    /// See `GenerateOptions::min_new_tokens`; `min_length` counts the start token too.
    pub min_new_tokens: usize,
    /// See `GenerateOptions`.
    pub num_beams: usize,
    /// See `GenerateOptions`.
    pub num_return_sequences: usize,
    /// Where an answer ends (`stop_strings`); counts where a request names none.
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

/// What a folder wants done to the scores of tokens, and a request does not speak of. The names are
/// those of transformers' `GenerationConfig`; nothing is done by default.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRules {
    /// Runs of tokens that are not made (`bad_words_ids`).
    pub bad_words: Vec<Vec<u32>>,
    /// Runs of tokens, and what is added to the score of their last one behind the others.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never made (`suppress_tokens`).
    pub suppressed: Vec<u32>,
    /// Tokens that are not made first (`begin_suppress_tokens`).
    pub begin_suppressed: Vec<u32>,
    /// Above 1 makes the tokens of the input likelier.
    pub encoder_repetition_penalty: f32,
    /// No run of so many tokens of the input comes again; 0 for no such rule.
    pub encoder_no_repeat_ngram_size: usize,
    /// Behind so many tokens, the factor by which an end becomes likelier with each more
    /// (`exponential_decay_length_penalty`).
    pub length_decay: Option<(usize, f32)>,
    /// Whether the scores of beams are probabilities again afterwards (`renormalize_logits`).
    pub renormalize: bool,
}

impl Default for ScoreRules {
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

/// Which tokens a folder excludes from drawing, beside those that a request may exclude. The names
/// are those of transformers' `GenerationConfig`; none by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawLimits {
    /// The least probability, in parts of the greatest one; 0 for no limit.
    pub min_p: f32,
    /// Only the most typical tokens that together have this probability; 1 for all.
    pub typical_p: f32,
    /// The least probability; 0 for no limit.
    pub epsilon_cutoff: f32,
    /// The least probability where the scores tell little, and less where they tell more; 0 for no
    /// limit.
    pub eta_cutoff: f32,
}

impl Default for DrawLimits {
    fn default() -> Self {
        Self { min_p: 0.0, typical_p: 1.0, epsilon_cutoff: 0.0, eta_cutoff: 0.0 }
    }
}

impl Default for GenerationDefaults {
    /// What transformers does where a folder says nothing.
    fn default() -> Self {
        Self {
            decoder_start: 0,
            eos: Vec::new(),
            pad: 0,
            forced_bos: Vec::new(),
            forced_eos: Vec::new(),
            rules: ScoreRules::default(),
            draw_limits: DrawLimits::default(),
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

/// A loaded encoder-decoder: immutable, shared by whoever computes with it.
pub trait Seq2SeqModel: fmt::Debug + Send + Sync + 'static {
    /// What is said about it. `max_tokens` is what its encoder can read (positions), `dimension` 0.
    fn spec(&self) -> &ModelSpec;

    /// What its folder says about how texts are made.
    fn defaults(&self) -> &GenerationDefaults;

    /// Numbers of tokens that the decoder has logits for.
    fn vocabulary(&self) -> usize;

    /// Tokens that an answer may have, the start token included; `None`: as many as one likes.
    fn max_output_tokens(&self) -> Option<usize>;

    /// Reads a text as tokens, special tokens included, at most `max_tokens` of them.
    ///
    /// # Errors
    /// When the tokenizer itself fails.
    fn encode(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError>;

    /// The text of tokens, without special ones, as transformers' `decode(…,
    /// skip_special_tokens=True)` gives it.
    ///
    /// # Errors
    /// When the tokenizer itself fails.
    fn decode(&self, ids: &[u32]) -> Result<String, ComputeError>;

    /// How many bytes at the front of `text`, which is the text of these tokens, stay as they are
    /// whatever tokens come next. A character that is not whole yet need not be left out.
    ///
    /// # Errors
    /// When the tokenizer itself fails.
    fn settled_bytes(&self, ids: &[u32], text: &str) -> Result<usize, ComputeError> {
        let _ = ids;
        Ok(text.len())
    }

    /// The state of one computation that uses so many threads, this one included.
    ///
    /// # Errors
    /// When the system gives no more threads.
    fn decoder(self: Arc<Self>, threads: usize) -> std::io::Result<Box<dyn Decoder>>;
}

/// An encoded input in a [`Decoder`]: what cross-attention looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncoderOutputId(pub u32);

/// An answer in the making in a [`Decoder`]: the keys and values of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HypothesisId(pub u32);

/// Inputs that were encoded and answers in the making. Answers join and leave between steps, and
/// their lengths need not match. What one answer becomes does not depend on its company beyond
/// rounding.
///
/// A number that was ended or forgotten may be given out again. Unknown ones are errors, not panics.
pub trait Decoder: Send {
    /// Encodes inputs, packed together, and computes their cross-attention keys and values once.
    ///
    /// # Errors
    /// When the device fails.
    fn admit(&mut self, inputs: &[&Sequence]) -> Result<Vec<EncoderOutputId>, ComputeError>;

    /// An empty answer to an input, with room for so many tokens, the start token included.
    ///
    /// # Errors
    /// When there is no such input, or no memory.
    fn begin(
        &mut self,
        source: EncoderOutputId,
        max_tokens: usize,
    ) -> Result<HypothesisId, ComputeError>;

    /// Appends one token to each of these answers and writes what comes next: `logits` gets
    /// `next.len() * vocabulary` values, row behind row. No answer stands in `next` twice.
    ///
    /// # Errors
    /// When the device fails, an answer is full, or is unknown.
    fn step(
        &mut self,
        next: &[(HypothesisId, u32)],
        logits: &mut Vec<f32>,
    ) -> Result<(), ComputeError>;

    /// For beam search: afterwards `beams[i]` holds what `beams[from[i]]` held before, for all at
    /// once.
    ///
    /// # Errors
    /// When an answer is unknown.
    fn reorder(&mut self, beams: &[HypothesisId], from: &[usize]) -> Result<(), ComputeError>;

    /// Gives up an answer.
    fn end(&mut self, hypothesis: HypothesisId);

    /// Gives up an input, once its answers have ended.
    fn forget(&mut self, source: EncoderOutputId);
}

/// A loaded masked language model.
pub trait MaskedModel: fmt::Debug + Send + Sync + 'static {
    /// What is said about it; `dimension` is 0.
    fn spec(&self) -> &ModelSpec;

    /// Reads a text as tokens, at most so many; its masks are the tokenizer's mask token, as the text
    /// spells it.
    ///
    /// # Errors
    /// When the tokenizer itself fails.
    fn encode(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError>;

    /// How the mask is spelled in a text, such as `[MASK]`.
    fn mask(&self) -> &str;

    /// A token as text.
    fn token_text(&self, id: u32) -> String;

    /// The private state of one worker over these weights.
    fn mask_context(self: Arc<Self>) -> Box<dyn MaskFiller>;
}

/// One worker's way through a masked language model.
pub trait MaskFiller: Send {
    /// For each sequence, for each of its masks, the `top_k` likeliest tokens with their
    /// probabilities among all tokens, the likeliest first.
    ///
    /// # Errors
    /// When the device fails.
    fn fill(
        &mut self,
        batch: &[&Sequence],
        top_k: usize,
    ) -> Result<Vec<Vec<MaskScores>>, ComputeError>;
}

/// What may stand at one mask.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskScores {
    /// Which token of the sequence.
    pub position: u32,
    /// Tokens and probabilities, the likeliest first.
    pub candidates: Vec<(u32, f32)>,
}
