//! How one request's texts are made: its own options over what the model's folder says, within what
//! the settings allow.

use emberd_engine::{GenerationDefaults, Seq2SeqModel};
use emberd_protocol::{EarlyStopping, GenerateOptions};
use std::fmt::Display;

/// Stop strings of one request, at most: each is looked for at every token.
const MAX_STOPS: usize = 64;

/// What one model allows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationLimits {
    /// Tokens of an input that are read; the rest is cut off.
    pub max_input_tokens: usize,
    /// Tokens of an answer.
    pub max_new_tokens: usize,
    /// Answers and beams that are computed side by side, of all requests together.
    pub rows: usize,
}

impl GenerationLimits {
    /// The settings' `max_input_length`, `max_output_length` and `batch_size`, as far as the model
    /// goes.
    #[must_use]
    pub fn of(
        model: &dyn Seq2SeqModel,
        max_input_length: usize,
        max_output_length: usize,
        batch_size: usize,
    ) -> Self {
        // The start token takes one of the decoder's places and is not part of an answer.
        let places =
            model.max_output_tokens().map_or(usize::MAX, |tokens| tokens.saturating_sub(1));
        Self {
            max_input_tokens: max_input_length.min(model.spec().max_tokens).max(1),
            max_new_tokens: max_output_length.min(places).max(1),
            rows: batch_size.max(1),
        }
    }
}

/// How the texts of one request are made. Every value is in its range, and none contradicts another.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Tokens of an input that are read.
    pub(super) max_input_tokens: usize,
    /// Tokens of an answer, at most and at least.
    pub(super) max_new_tokens: usize,
    pub(super) min_new_tokens: usize,
    /// How the next token is chosen.
    pub(super) search: Search,
    /// Answers to each text.
    pub(super) return_sequences: usize,
    pub(super) repetition_penalty: f32,
    pub(super) no_repeat_ngram_size: usize,
    pub(super) stop: Vec<String>,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Search {
    /// The likeliest.
    Greedy,
    /// Drawn.
    Sample(Drawing),
    /// The likeliest sequence, as far as so many that are followed side by side tell. Which go on is
    /// drawn where `drawing` says how.
    Beams {
        count: usize,
        length_penalty: f32,
        early_stopping: EarlyStopping,
        drawing: Option<Drawing>,
    },
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawing {
    pub(super) temperature: f32,
    /// 0 for all.
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    /// `None`: another one for each text.
    pub(super) seed: Option<u64>,
}

/// A request's options contradict each other, their ranges or the settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// Out of its range.
    #[error("{option} is {value}: it must be {range}")]
    Range {
        /// Which.
        option: &'static str,
        /// What was asked for.
        value: String,
        /// What can be asked for.
        range: String,
    },
    /// More than the settings, or the model itself, allow.
    #[error("{option} is {value}, more than the {limit} that this model is set to")]
    OverLimit {
        /// Which.
        option: &'static str,
        /// What was asked for.
        value: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Two that do not go together, or one that would change nothing.
    #[error("{option} does not go with {other}: {remedy}")]
    Conflict {
        /// One.
        option: &'static str,
        /// The other.
        other: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl GenerationConfig {
    /// Works out how texts are made. What the request does not say is as the folder has it; what the
    /// folder has beyond the limits is cut to them, while a request that asks for more is refused.
    ///
    /// # Errors
    /// When an option is out of its range or goes beyond the limits, or when two contradict each
    /// other. An option that would change nothing (a temperature where nothing is drawn) is refused
    /// too.
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
                return Err(range(
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
            check_stream(&search, return_sequences)?;
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
        config.check_stops()?;
        Ok(config)
    }

    /// Answers and beams that one text takes.
    pub(super) fn rows(&self) -> usize {
        match self.search {
            Search::Beams { count, .. } => count,
            Search::Greedy | Search::Sample(_) => self.return_sequences,
        }
    }

    fn check_stops(&self) -> Result<(), OptionError> {
        if self.stop.len() > MAX_STOPS {
            let count = format!("{} strings", self.stop.len());
            return Err(range("stop", count, format!("at most {MAX_STOPS} strings")));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(range("stop", "an empty string", "something to look for".into()));
        }
        Ok(())
    }
}

impl Search {
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
                Drawing::resolve(options, defaults).map(Self::Sample)
            }
            (false, 1) => {
                refuse_beam_options(options)?;
                refuse_sample_options(options)?;
                Ok(Self::Greedy)
            }
            (_, count) => {
                let drawing = match sample {
                    true => Some(Drawing::resolve(options, defaults)?),
                    false => refuse_sample_options(options).map(|()| None)?,
                };
                let length_penalty = options.length_penalty.unwrap_or(defaults.length_penalty);
                if !length_penalty.is_finite() {
                    return Err(range("length_penalty", length_penalty, "a finite number".into()));
                }
                let early_stopping = options.early_stopping.unwrap_or(defaults.early_stopping);
                Ok(Self::Beams { count, length_penalty, early_stopping, drawing })
            }
        }
    }

    /// How tokens are drawn, if they are.
    pub(super) fn drawing(&self) -> Option<Drawing> {
        match *self {
            Self::Greedy => None,
            Self::Sample(drawing) => Some(drawing),
            Self::Beams { drawing, .. } => drawing,
        }
    }

    /// As many of those that a folder asks for as there can be.
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
                Err(range(option, count, format!("at most {beams}, as num_beams")))
            }
            Self::Beams { .. } | Self::Sample(_) => within(option, count, 1, rows),
            Self::Greedy if count > 1 => Err(OptionError::Conflict {
                option,
                other: "greedy search",
                remedy: "there is one likeliest text; set do_sample, or num_beams to at least as many",
            }),
            Self::Greedy => within(option, count, 1, 1),
        }
    }
}

impl Drawing {
    fn resolve(
        options: &GenerateOptions,
        defaults: &GenerationDefaults,
    ) -> Result<Self, OptionError> {
        let top_p = options.top_p.unwrap_or(defaults.top_p);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(range("top_p", top_p, "above 0 and at most 1".into()));
        }
        let temperature = options.temperature.unwrap_or(defaults.temperature);
        Ok(Self {
            temperature: positive("temperature", temperature)?,
            top_k: options.top_k.map_or(defaults.top_k, |k| k as usize),
            top_p,
            seed: options.seed,
        })
    }
}

fn check_stream(search: &Search, return_sequences: usize) -> Result<(), OptionError> {
    let other = match search {
        Search::Beams { .. } => "num_beams above 1",
        Search::Greedy | Search::Sample(_) if return_sequences > 1 => {
            "num_return_sequences above 1"
        }
        Search::Greedy | Search::Sample(_) => return Ok(()),
    };
    let remedy = "a stream is of one text that does not change its mind; set it to 1";
    Err(OptionError::Conflict { option: "stream", other, remedy })
}

fn refuse_sample_options(options: &GenerateOptions) -> Result<(), OptionError> {
    let given = [
        ("temperature", options.temperature.is_some()),
        ("top_k", options.top_k.is_some()),
        ("top_p", options.top_p.is_some()),
        ("seed", options.seed.is_some()),
    ];
    refuse(&given, "do_sample = false", "nothing is drawn; set do_sample to true or leave it out")
}

fn refuse_beam_options(options: &GenerateOptions) -> Result<(), OptionError> {
    let given = [
        ("length_penalty", options.length_penalty.is_some()),
        ("early_stopping", options.early_stopping.is_some()),
    ];
    refuse(&given, "num_beams = 1", "there are no beams; set num_beams or leave it out")
}

fn refuse(
    options: &[(&'static str, bool)],
    other: &'static str,
    remedy: &'static str,
) -> Result<(), OptionError> {
    match options.iter().find(|(_, given)| *given) {
        Some(&(option, _)) => Err(OptionError::Conflict { option, other, remedy }),
        None => Ok(()),
    }
}

fn within(
    option: &'static str,
    value: u32,
    least: usize,
    most: usize,
) -> Result<usize, OptionError> {
    let value = value as usize;
    if value < least {
        Err(range(option, value, format!("from {least} to {most}")))
    } else if value > most {
        Err(OptionError::OverLimit { option, value, limit: most })
    } else {
        Ok(value)
    }
}

fn positive(option: &'static str, value: f32) -> Result<f32, OptionError> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(range(option, value, "a finite number above 0".into()))
    }
}

fn range(option: &'static str, value: impl Display, range: String) -> OptionError {
    OptionError::Range { option, value: format!("{value}"), range }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GenerationLimits =
        GenerationLimits { max_input_tokens: 512, max_new_tokens: 128, rows: 8 };

    fn resolve(options: &GenerateOptions) -> Result<GenerationConfig, OptionError> {
        GenerationConfig::resolve(options, false, &GenerationDefaults::default(), LIMITS)
    }

    fn message(options: &GenerateOptions) -> String {
        resolve(options).unwrap_err().to_string()
    }

    #[test]
    fn a_request_goes_before_the_folder_and_the_folder_is_cut_to_the_settings() {
        let folder = GenerationDefaults {
            max_new_tokens: Some(400),
            min_new_tokens: 30,
            num_beams: 4,
            length_penalty: 2.0,
            early_stopping: EarlyStopping::Yes,
            no_repeat_ngram_size: 3,
            ..GenerationDefaults::default()
        };
        let resolve = |options| GenerationConfig::resolve(&options, false, &folder, LIMITS);
        let config = resolve(GenerateOptions::default()).unwrap();
        assert_eq!((config.max_new_tokens, config.min_new_tokens), (128, 30));
        let beams = Search::Beams {
            count: 4,
            length_penalty: 2.0,
            early_stopping: EarlyStopping::Yes,
            drawing: None,
        };
        assert_eq!(config.search, beams);
        assert_eq!(config.no_repeat_ngram_size, 3);

        let options = GenerateOptions {
            max_new_tokens: Some(20),
            num_beams: Some(1),
            no_repeat_ngram_size: Some(0),
            ..GenerateOptions::default()
        };
        let config = resolve(options).unwrap();
        assert_eq!((config.max_new_tokens, config.min_new_tokens), (20, 20));
        assert_eq!(config.search, Search::Greedy);
        assert_eq!(config.no_repeat_ngram_size, 0);
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name_and_range() {
        let sample = GenerateOptions { do_sample: Some(true), ..GenerateOptions::default() };
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let options = GenerateOptions { temperature: Some(temperature), ..sample.clone() };
            let told = message(&options);
            assert!(told.starts_with("temperature is ") && told.ends_with("above 0"), "{told}");
        }
        for top_p in [0.0, 1.1, f32::NAN] {
            let told = message(&GenerateOptions { top_p: Some(top_p), ..sample.clone() });
            assert!(told.ends_with("it must be above 0 and at most 1"), "{told}");
        }
        let plain = GenerateOptions::default();
        assert_eq!(
            message(&GenerateOptions { max_new_tokens: Some(0), ..plain.clone() }),
            "max_new_tokens is 0: it must be from 1 to 128"
        );
        assert_eq!(
            message(&GenerateOptions { max_new_tokens: Some(129), ..plain.clone() }),
            "max_new_tokens is 129, more than the 128 that this model is set to"
        );
        let options =
            GenerateOptions { max_new_tokens: Some(5), min_new_tokens: Some(6), ..plain.clone() };
        assert_eq!(
            message(&options),
            "min_new_tokens is 6: it must be at most 5, as max_new_tokens"
        );
        assert_eq!(
            message(&GenerateOptions { num_beams: Some(9), ..plain.clone() }),
            "num_beams is 9, more than the 8 that this model is set to"
        );
        let options =
            GenerateOptions { num_beams: Some(2), num_return_sequences: Some(3), ..plain.clone() };
        assert_eq!(
            message(&options),
            "num_return_sequences is 3: it must be at most 2, as num_beams"
        );
        let options = GenerateOptions { repetition_penalty: Some(0.0), ..plain.clone() };
        assert!(message(&options).starts_with("repetition_penalty is 0"));
        let options = GenerateOptions { stop: vec![String::new()], ..plain.clone() };
        assert!(message(&options).starts_with("stop is an empty string"));
        let options = GenerateOptions { stop: vec!["x".into(); 65], ..plain };
        assert_eq!(message(&options), "stop is 65 strings: it must be at most 64 strings");
    }

    #[test]
    fn options_that_do_not_go_together_are_refused_with_a_way_out() {
        let plain = GenerateOptions::default();
        let cases = [
            GenerateOptions { temperature: Some(0.7), ..plain.clone() },
            GenerateOptions { seed: Some(1), num_beams: Some(2), ..plain.clone() },
            GenerateOptions { length_penalty: Some(2.0), ..plain.clone() },
            GenerateOptions { num_return_sequences: Some(2), ..plain.clone() },
        ];
        for options in cases {
            let error = resolve(&options).unwrap_err();
            assert!(matches!(error, OptionError::Conflict { .. }), "{options:?}: {error}");
        }
        for options in [
            GenerateOptions { num_beams: Some(2), ..plain.clone() },
            GenerateOptions { do_sample: Some(true), num_beams: Some(2), ..plain.clone() },
            GenerateOptions { do_sample: Some(true), num_return_sequences: Some(2), ..plain },
        ] {
            let defaults = GenerationDefaults::default();
            assert!(GenerationConfig::resolve(&options, false, &defaults, LIMITS).is_ok());
            let error = GenerationConfig::resolve(&options, true, &defaults, LIMITS).unwrap_err();
            assert!(error.to_string().starts_with("stream does not go with num_"), "{error}");
        }
    }
}
