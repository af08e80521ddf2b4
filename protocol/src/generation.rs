//! Text from text.

use crate::bounded;
use crate::request::Target;
use serde::{Deserialize, Serialize};

/// Texts to go on from, or to turn into others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// With what.
    pub target: Target,
    /// How many texts ride behind.
    pub texts: u32,
    /// How the next token is chosen, and when to end.
    pub options: GenerateOptions,
    /// Whether [`crate::Event::Piece`]s shall bring the text as it is made. For one sequence a text,
    /// greedy or sampled: beams change their minds.
    pub stream: bool,
}

/// How the next token is chosen, and when to end. `None` everywhere: as the model's
/// `generation_config.json` and its settings say. The names and meanings are those of
/// transformers' `GenerationConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateOptions {
    /// Tokens of the answer, at most; no more than the settings' `max_output_length`.
    pub max_new_tokens: Option<u32>,
    /// Tokens of the answer, at least.
    pub min_new_tokens: Option<u32>,
    /// Beams that are followed side by side; 1 for greedy and sampled text.
    pub num_beams: Option<u32>,
    /// Sequences returned for each text: of the beams the best, else so many samples.
    pub num_return_sequences: Option<u32>,
    /// The exponent of the length by which a beam's score is divided.
    pub length_penalty: Option<f32>,
    /// When beam search ends.
    pub early_stopping: Option<EarlyStopping>,
    /// Whether tokens are drawn rather than the likeliest taken.
    pub do_sample: Option<bool>,
    /// Above 1 evens the odds, below 1 sharpens them.
    pub temperature: Option<f32>,
    /// Only the so many likeliest tokens are drawn from; 0 for all.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens are drawn from that together have this probability.
    pub top_p: Option<f32>,
    /// The same seed, the same text. `None`: another one each time.
    pub seed: Option<u64>,
    /// Above 1 makes tokens less likely that stand in the text already.
    pub repetition_penalty: Option<f32>,
    /// No run of so many tokens comes twice; 0 for no such rule.
    pub no_repeat_ngram_size: Option<u32>,
    /// The answer ends where one of these begins; it is not part of the answer.
    #[serde(deserialize_with = "bounded::strings")]
    pub stop: Vec<String>,
}

/// When beam search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EarlyStopping {
    /// When no running beam is likely to become better than those that are complete.
    No,
    /// When there are as many complete beams as are followed.
    Yes,
    /// When no running beam can become better than those that are complete.
    Never,
}

/// What became of each text, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// One for each text.
    #[serde(deserialize_with = "bounded::list")]
    pub texts: Vec<GeneratedText>,
}

/// What became of one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedText {
    /// The best first, as many as were asked for.
    #[serde(deserialize_with = "bounded::list")]
    pub sequences: Vec<GeneratedSequence>,
    /// Tokens of the input that were read.
    pub input_tokens: u32,
    /// Whether the input was longer than the model reads and lost its end.
    pub truncated: bool,
}

/// One answer to a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedSequence {
    /// The text, without special tokens.
    #[serde(deserialize_with = "bounded::string")]
    pub text: String,
    /// Its tokens as the model made them, special ones included, without the one it started from.
    #[serde(deserialize_with = "bounded::list")]
    pub ids: Vec<u32>,
    /// Of a beam: the sum of its tokens' logarithmic probabilities over its length to the power of
    /// `length_penalty`. `None` without beams.
    pub score: Option<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model said so.
    End,
    /// It has as many tokens as it may.
    Length,
    /// One of the stop strings came.
    Stop,
}

/// What may stand at the masks of texts, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MasksFilled {
    /// One for each text.
    #[serde(deserialize_with = "bounded::list")]
    pub texts: Vec<FilledText>,
    /// Tokens that were computed.
    pub tokens: u64,
}

/// The masks of one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilledText {
    /// One for each mask that was read, in their order.
    #[serde(deserialize_with = "bounded::list")]
    pub masks: Vec<FilledMask>,
    /// Whether the text was longer than the model reads and lost its end.
    pub truncated: bool,
}

/// One mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilledMask {
    /// Which token of the text it is, special tokens included.
    pub position: u32,
    /// The likeliest first.
    #[serde(deserialize_with = "bounded::list")]
    pub candidates: Vec<MaskCandidate>,
}

/// What may stand at a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskCandidate {
    /// The token's number.
    pub id: u32,
    /// The token as text.
    #[serde(deserialize_with = "bounded::string")]
    pub text: String,
    /// Its probability.
    pub score: f32,
}
