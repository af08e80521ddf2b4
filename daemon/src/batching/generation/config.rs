//! How the texts of one request are generated: its own options, then the defaults of the model's
//! folder, within the limits of the settings.

#[cfg(test)]
mod tests;

use crate::batching::generation::option_checks::{
    MAX_STOPS, check_stops, check_stream, positive, probability, refuse_beam_options,
    refuse_sample_options, within,
};
use crate::batching::generation::option_error::OptionError;

use emberd_engine::{GenerationDefaults, Seq2SeqModel};
use emberd_protocol::{EarlyStopping, GenerateOptions};

/// What a request may ask of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationLimits {
    /// Tokens of an input; a longer one is truncated.
    pub max_input_tokens: usize,
    /// Tokens of an answer.
    pub max_new_tokens: usize,
    /// Sequences and beams that are computed side by side, of all requests together.
    pub rows: usize,
}

impl GenerationLimits {
    /// The limits of the settings `max_input_length`, `max_output_length` and `batch_size`, and of
    /// the model itself.
    #[must_use]
    pub fn of(
        model: &dyn Seq2SeqModel,
        max_input_length: usize,
        max_output_length: usize,
        batch_size: usize,
    ) -> Self {
        // The start token takes one position of the decoder and is not part of an answer.
        let positions =
            model.max_output_tokens().map_or(usize::MAX, |tokens| tokens.saturating_sub(1));
        Self {
            max_input_tokens: max_input_length.min(model.spec().max_tokens).max(1),
            max_new_tokens: max_output_length.min(positions).max(1),
            rows: batch_size.max(1),
        }
    }
}

/// How the texts of one request are generated. Every value is in its range, and none contradicts
/// another.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Tokens of an input; a longer one is truncated.
    pub(super) max_input_tokens: usize,
    /// Tokens of an answer, at most.
    pub(super) max_new_tokens: usize,
    /// Tokens of an answer, at least.
    pub(super) min_new_tokens: usize,
    /// How the next token is chosen.
    pub(super) search: Search,
    /// Sequences returned for each text.
    pub(super) return_sequences: usize,
    pub(super) repetition_penalty: f32,
    pub(super) no_repeat_ngram_size: usize,
    pub(super) stop: Vec<String>,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Search {
    /// The most likely token.
    Greedy,
    /// A sampled token.
    Sample(SamplingParams),
    /// The most likely of `count` sequences that are followed side by side. With `sampling` the
    /// sequences that go on are sampled.
    Beams {
        count: usize,
        length_penalty: f32,
        early_stopping: EarlyStopping,
        sampling: Option<SamplingParams>,
    },
}

/// How tokens are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SamplingParams {
    pub(super) temperature: f32,
    /// 0: no limit.
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    /// `None`: a random seed for each text.
    pub(super) seed: Option<u64>,
}

impl GenerationConfig {
    /// Resolves the options of a request. An option that the request leaves out has the folder's
    /// default. A default beyond the limits is capped; a request beyond the limits is refused.
    ///
    /// # Errors
    /// When an option is out of its range or over a limit, or two contradict each other. An option
    /// without effect is refused too, such as a temperature for a greedy search.
    pub fn resolve(
        options: &GenerateOptions,
        stream: bool,
        defaults: &GenerationDefaults,
        limits: GenerationLimits,
    ) -> Result<Self, OptionError> {
        let max_new_tokens = match options.max_new_tokens {
            Some(tokens) => within("max_new_tokens", tokens, 1, limits.max_new_tokens)?,
            None => defaults.max_new_tokens.unwrap_or(usize::MAX).clamp(1, limits.max_new_tokens),
        };
        let min_new_tokens = match options.min_new_tokens {
            Some(tokens) if tokens as usize > max_new_tokens => {
                return Err(OptionError::range(
                    "min_new_tokens",
                    tokens,
                    format!("at most {max_new_tokens}, as max_new_tokens"),
                ));
            }
            Some(tokens) => tokens as usize,
            None => defaults.min_new_tokens.min(max_new_tokens),
        };
        let search = Search::resolve(options, defaults, limits.rows)?;
        let return_sequences = match options.num_return_sequences {
            Some(count) => search.check_return_sequences(count, limits.rows)?,
            None => search.return_sequences(defaults.num_return_sequences, limits.rows),
        };
        if stream {
            check_stream(matches!(search, Search::Beams { .. }), return_sequences)?;
        }
        let config = Self {
            max_input_tokens: limits.max_input_tokens,
            max_new_tokens,
            min_new_tokens,
            search,
            return_sequences,
            repetition_penalty: positive(
                "repetition_penalty",
                options.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            )?,
            no_repeat_ngram_size: options
                .no_repeat_ngram_size
                .map_or(defaults.no_repeat_ngram_size, |size| size as usize),
            stop: match options.stop.is_empty() {
                true => defaults.stop.iter().take(MAX_STOPS).cloned().collect(),
                false => options.stop.clone(),
            },
        };
        check_stops(&config.stop)?;
        Ok(config)
    }

    /// Rows of the batch that one text takes: its sequences or beams.
    pub(super) fn rows(&self) -> usize {
        match self.search {
            Search::Beams { count, .. } => count,
            Search::Greedy | Search::Sample(_) => self.return_sequences,
        }
    }
}

impl Search {
    /// How tokens are sampled, if they are.
    pub(super) fn sampling(&self) -> Option<SamplingParams> {
        match *self {
            Self::Greedy => None,
            Self::Sample(sampling) => Some(sampling),
            Self::Beams { sampling, .. } => sampling,
        }
    }

    fn resolve(
        options: &GenerateOptions,
        defaults: &GenerationDefaults,
        rows: usize,
    ) -> Result<Self, OptionError> {
        let beams = match options.num_beams {
            Some(beams) => within("num_beams", beams, 1, rows)?,
            None => defaults.num_beams.clamp(1, rows),
        };
        let sample = options.do_sample.unwrap_or(defaults.do_sample);
        match (sample, beams) {
            (true, 1) => {
                refuse_beam_options(options)?;
                SamplingParams::resolve(options, defaults).map(Self::Sample)
            }
            (false, 1) => {
                refuse_beam_options(options)?;
                refuse_sample_options(options)?;
                Ok(Self::Greedy)
            }
            (_, count) => {
                let sampling = match sample {
                    true => Some(SamplingParams::resolve(options, defaults)?),
                    false => refuse_sample_options(options).map(|()| None)?,
                };
                let length_penalty = options.length_penalty.unwrap_or(defaults.length_penalty);
                if !length_penalty.is_finite() {
                    return Err(OptionError::range(
                        "length_penalty",
                        length_penalty,
                        "a finite number".into(),
                    ));
                }
                let early_stopping = options.early_stopping.unwrap_or(defaults.early_stopping);
                Ok(Self::Beams { count, length_penalty, early_stopping, sampling })
            }
        }
    }

    /// The number that the folder asks for, as far as this search can return it.
    fn return_sequences(&self, wanted: usize, rows: usize) -> usize {
        let most = match *self {
            Self::Beams { count, .. } => count,
            Self::Sample(_) => rows,
            Self::Greedy => 1,
        };
        wanted.clamp(1, most.max(1))
    }

    fn check_return_sequences(&self, count: u32, rows: usize) -> Result<usize, OptionError> {
        let option = "num_return_sequences";
        match *self {
            Self::Beams { count: beams, .. } if count as usize > beams => {
                Err(OptionError::range(option, count, format!("at most {beams}, as num_beams")))
            }
            Self::Beams { .. } | Self::Sample(_) => within(option, count, 1, rows),
            Self::Greedy if count > 1 => Err(OptionError::Conflict {
                option,
                other: "greedy search",
                remedy: "there is only one most likely text; set do_sample, or num_beams to at least as many",
            }),
            Self::Greedy => within(option, count, 1, 1),
        }
    }
}

impl SamplingParams {
    fn resolve(
        options: &GenerateOptions,
        defaults: &GenerationDefaults,
    ) -> Result<Self, OptionError> {
        let top_p = probability("top_p", options.top_p.unwrap_or(defaults.top_p))?;
        let temperature = options.temperature.unwrap_or(defaults.temperature);
        Ok(Self {
            temperature: positive("temperature", temperature)?,
            top_k: options.top_k.map_or(defaults.top_k, |k| k as usize),
            top_p,
            seed: options.seed,
        })
    }
}
