//! Generating texts, and filling masks.

use crate::bounded;
use crate::target::Target;
use serde::{Deserialize, Serialize};

/// Texts to generate texts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// The model.
    pub target: Target,
    /// How many texts follow the message.
    pub texts: u32,
    /// How tokens are chosen, and when a text ends.
    pub options: GenerateOptions,
    /// Whether the text is sent in [`crate::Event::Piece`]s as it is generated. Only for one sequence
    /// a text, greedy or sampled: the tokens of beams are not final.
    pub stream: bool,
}

/// How tokens are chosen, and when a text ends. `None` means the default of the model's
/// `generation_config.json` and its settings. Names and meanings are those of transformers'
/// `GenerationConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateOptions {
    /// Tokens of the answer, at most; no more than the settings' `max_output_length`.
    pub max_new_tokens: Option<u32>,
    /// Tokens of the answer, at least.
    pub min_new_tokens: Option<u32>,
    /// Beams that are followed side by side; 1 for greedy and sampled text.
    pub num_beams: Option<u32>,
    /// Sequences returned for each text: the best beams, or this many samples.
    pub num_return_sequences: Option<u32>,
    /// The exponent of the length by which a beam's score is divided.
    pub length_penalty: Option<f32>,
    /// When beam search ends.
    pub early_stopping: Option<EarlyStopping>,
    /// Whether tokens are sampled, rather than the most likely chosen.
    pub do_sample: Option<bool>,
    /// Above 1 flattens the distribution, below 1 sharpens it.
    pub temperature: Option<f32>,
    /// Samples from this many of the most likely tokens; 0 for all.
    pub top_k: Option<u32>,
    /// Samples from the most likely tokens that together have this probability.
    pub top_p: Option<f32>,
    /// The same seed gives the same text. `None`: a random seed each time.
    pub seed: Option<u64>,
    /// Above 1 makes tokens less likely that are in the text already.
    pub repetition_penalty: Option<f32>,
    /// No run of this many tokens occurs twice; 0 for no such rule.
    pub no_repeat_ngram_size: Option<u32>,
    /// The answer ends before the first of these strings.
    #[serde(deserialize_with = "bounded::strings")]
    pub stop: Vec<String>,
}

/// When beam search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EarlyStopping {
    /// When no running beam is likely to become better than the complete ones.
    No,
    /// When there are `num_beams` complete beams.
    Yes,
    /// When no running beam can become better than the complete ones.
    Never,
}

/// The answer to each text, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// One for each text.
    #[serde(deserialize_with = "bounded::list")]
    pub texts: Vec<GeneratedText>,
}

/// The answer to one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedText {
    /// The requested number of sequences, the best first.
    #[serde(deserialize_with = "bounded::list")]
    pub sequences: Vec<GeneratedSequence>,
    /// Tokens of the input.
    pub input_tokens: u32,
    /// Whether the input was longer than the model's limit and was truncated.
    pub truncated: bool,
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedSequence {
    /// The text, without special tokens.
    #[serde(deserialize_with = "bounded::string")]
    pub text: String,
    /// Its tokens, with special ones, without the start token.
    #[serde(deserialize_with = "bounded::list")]
    pub ids: Vec<u32>,
    /// Of a beam: the sum of the log probabilities of its tokens, divided by its length to the power
    /// of `length_penalty`. `None` without beams.
    pub score: Option<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model chose an end token.
    End,
    /// It has the maximum number of tokens.
    Length,
    /// A stop string occurred.
    Stop,
}

/// The masks of each text, in the order of the texts.
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
    /// One for each mask within the tokens of the text, in their order.
    #[serde(deserialize_with = "bounded::list")]
    pub masks: Vec<FilledMask>,
    /// Whether the text was longer than the model's limit and was truncated.
    pub truncated: bool,
}

/// One mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilledMask {
    /// Its position among the tokens of the text, special tokens included.
    pub position: u32,
    /// The most likely first.
    #[serde(deserialize_with = "bounded::list")]
    pub candidates: Vec<MaskCandidate>,
}

/// A token that may fill a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskCandidate {
    /// The token's id.
    pub id: u32,
    /// The token as text.
    #[serde(deserialize_with = "bounded::string")]
    pub text: String,
    /// Its probability.
    pub score: f32,
}
