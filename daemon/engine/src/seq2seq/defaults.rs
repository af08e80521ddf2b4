//! What a folder says about how its texts are made.
//!
//! Transformers takes `generation_config.json`, and where there is none the same names out of
//! `config.json`, with what the model's class sets where that says nothing either.

use std::collections::BTreeMap;
use std::path::Path;

use emberd_protocol::EarlyStopping;
use serde::Deserialize;
use serde_json::Value;

use crate::api::generation::{DrawLimits, GenerationDefaults, ScoreRules};
use crate::checkpoint::load_error::LoadError;

/// What a class of models sets by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClassDefaults {
    pub(crate) decoder_start: u32,
    pub(crate) eos: u32,
    pub(crate) pad: u32,
    pub(crate) forced_eos: Option<u32>,
}

/// The part of both files that is used.
#[derive(Debug, Default, Deserialize)]
struct Said {
    decoder_start_token_id: Option<u32>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMore>,
    pad_token_id: Option<u32>,
    forced_bos_token_id: Option<OneOrMore>,
    forced_eos_token_id: Option<OneOrMore>,
    /// An old name of BART's for a forced first token.
    force_bos_token_to_be_generated: Option<bool>,
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
    bad_words_ids: Option<Vec<Vec<u32>>>,
    sequence_bias: Option<Vec<(Vec<u32>, f32)>>,
    encoder_repetition_penalty: Option<f32>,
    encoder_no_repeat_ngram_size: Option<usize>,
    exponential_decay_length_penalty: Option<(usize, f32)>,
    renormalize_logits: Option<bool>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    epsilon_cutoff: Option<f32>,
    eta_cutoff: Option<f32>,
    max_new_tokens: Option<usize>,
    max_length: Option<usize>,
    min_new_tokens: Option<usize>,
    min_length: Option<usize>,
    num_beams: Option<usize>,
    num_return_sequences: Option<usize>,
    stop_strings: Option<Texts>,
    length_penalty: Option<f32>,
    early_stopping: Option<Stopping>,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    More(Vec<String>),
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        let mut texts = match texts {
            Texts::One(text) => vec![text],
            Texts::More(texts) => texts,
        };
        texts.retain(|text| !text.is_empty());
        texts
    }
}

/// What changes answers in transformers, or did in an earlier version, and is not done here; with the
/// number that changes nothing.
const NOT_DONE: [(&str, f64); 12] = [
    ("constraints", 0.0),
    ("diversity_penalty", 0.0),
    ("dola_layers", 0.0),
    ("force_words_ids", 0.0),
    ("forced_decoder_ids", 0.0),
    ("guidance_scale", 1.0),
    ("max_time", f64::INFINITY),
    ("num_beam_groups", 1.0),
    ("penalty_alpha", 0.0),
    ("token_healing", 0.0),
    ("top_h", 1.0),
    ("watermarking_config", 0.0),
];

/// Says what of a file is left out, where it asks for more than nothing.
fn warn_of_what_is_not_done(file: &Path, said: &Value) {
    for (key, neutral) in NOT_DONE {
        let value = &said[key];
        let is_nothing =
            value.is_null() || *value == false || value.as_f64().is_some_and(|x| x == neutral);
        if !is_nothing {
            let (file, value) = (file.display(), value.to_string());
            tracing::warn!(%file, key, value, "this way of making texts is not done: it is left out");
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stopping {
    At(bool),
    Word(String),
}

impl From<OneOrMore> for Vec<u32> {
    fn from(ids: OneOrMore) -> Self {
        match ids {
            OneOrMore::One(id) => vec![id],
            OneOrMore::More(ids) => ids,
        }
    }
}

/// Reads what `generation_config.json` says, and where there is none what `config.json` does.
pub(crate) fn read(
    folder: &Path,
    generation: Option<&Value>,
    config: &Value,
    class: ClassDefaults,
) -> Result<GenerationDefaults, LoadError> {
    let name = if generation.is_some() { "generation_config.json" } else { "config.json" };
    let file = folder.join(name);
    let said = Said::deserialize(generation.unwrap_or(config))
        .map_err(|source| LoadError::Json { file: file.clone(), source })?;
    warn_of_what_is_not_done(&file, generation.unwrap_or(config));
    let early_stopping = match &said.early_stopping {
        None | Some(Stopping::At(false)) => EarlyStopping::No,
        Some(Stopping::At(true)) => EarlyStopping::Yes,
        Some(Stopping::Word(word)) if word == "never" => EarlyStopping::Never,
        Some(Stopping::Word(word)) => {
            let (found, what) = (word.clone(), "early_stopping");
            return Err(LoadError::Unsupported {
                file,
                what,
                found,
                supported: "true, false, never",
            });
        }
    };
    // Only the configuration has the defaults of its class behind it.
    let is_config = generation.is_none();
    let from_class = |id: u32| is_config.then_some(id);
    let eos = said.eos_token_id.map_or_else(|| vec![class.eos], Vec::from);
    let forced_eos = match said.forced_eos_token_id {
        Some(ids) => ids.into(),
        None => class.forced_eos.and_then(from_class).into_iter().collect(),
    };
    let rules = ScoreRules {
        // An end of the text is no bad word, whatever the list says.
        bad_words: words(said.bad_words_ids, |word| !eos.iter().any(|end| word[..] == [*end])),
        sequence_bias: biases(said.sequence_bias.unwrap_or_default()),
        suppressed: tokens(said.suppress_tokens),
        begin_suppressed: tokens(said.begin_suppress_tokens),
        encoder_repetition_penalty: said.encoder_repetition_penalty.unwrap_or(1.0),
        encoder_no_repeat_ngram_size: said.encoder_no_repeat_ngram_size.unwrap_or(0),
        length_decay: said.exponential_decay_length_penalty,
        renormalize: said.renormalize_logits == Some(true),
    };
    let draw_limits = DrawLimits {
        min_p: said.min_p.unwrap_or(0.0),
        typical_p: said.typical_p.unwrap_or(1.0),
        epsilon_cutoff: said.epsilon_cutoff.unwrap_or(0.0),
        eta_cutoff: said.eta_cutoff.unwrap_or(0.0),
    };
    check_ranges(&file, &rules, draw_limits)?;
    let is_bos_forced = said.force_bos_token_to_be_generated == Some(true);
    let forced_bos = match said.forced_bos_token_id {
        Some(ids) => ids.into(),
        None => said.bos_token_id.filter(|_| is_bos_forced).into_iter().collect(),
    };
    let usual = GenerationDefaults::default();
    Ok(GenerationDefaults {
        decoder_start: said
            .decoder_start_token_id
            .or_else(|| from_class(class.decoder_start))
            .or(said.bos_token_id)
            .unwrap_or(class.decoder_start),
        pad: said.pad_token_id.unwrap_or(class.pad),
        forced_bos,
        forced_eos,
        rules,
        draw_limits,
        eos,
        max_new_tokens: said
            .max_new_tokens
            .or_else(|| said.max_length.map(|length| length.saturating_sub(1))),
        min_new_tokens: said
            .min_new_tokens
            .unwrap_or_else(|| said.min_length.unwrap_or(0).saturating_sub(1)),
        num_beams: said.num_beams.unwrap_or(usual.num_beams),
        num_return_sequences: said.num_return_sequences.unwrap_or(usual.num_return_sequences),
        stop: said.stop_strings.map_or_else(Vec::new, Vec::from),
        length_penalty: said.length_penalty.unwrap_or(usual.length_penalty),
        early_stopping,
        do_sample: said.do_sample.unwrap_or(usual.do_sample),
        temperature: said.temperature.unwrap_or(usual.temperature),
        top_k: said.top_k.unwrap_or(usual.top_k),
        // 0 leaves the likeliest alone, as the smallest number does.
        top_p: said.top_p.unwrap_or(usual.top_p).max(f32::MIN_POSITIVE),
        repetition_penalty: said.repetition_penalty.unwrap_or(usual.repetition_penalty),
        no_repeat_ngram_size: said.no_repeat_ngram_size.unwrap_or(usual.no_repeat_ngram_size),
    })
}

/// Numbers of tokens; others, such as -1 for none, are none.
fn tokens(numbers: Option<Vec<i64>>) -> Vec<u32> {
    numbers.unwrap_or_default().into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

/// Runs of tokens that are some.
fn words(words: Option<Vec<Vec<u32>>>, is_one: impl Fn(&Vec<u32>) -> bool) -> Vec<Vec<u32>> {
    let mut words = words.unwrap_or_default();
    words.retain(|word| !word.is_empty() && is_one(word));
    words
}

/// What is added for each run of tokens: of several that are said for one, the last.
fn biases(said: Vec<(Vec<u32>, f32)>) -> Vec<(Vec<u32>, f32)> {
    let by_run: BTreeMap<Vec<u32>, f32> = said.into_iter().collect();
    by_run.into_iter().filter(|(run, _)| !run.is_empty()).collect()
}

/// Refuses numbers that transformers refuses too.
fn check_ranges(file: &Path, rules: &ScoreRules, draw: DrawLimits) -> Result<(), LoadError> {
    let penalty = rules.encoder_repetition_penalty;
    let factor = rules.length_decay.map_or(1.0, |(_, factor)| factor);
    let share = |of: f32| (0.0..=1.0).contains(&of);
    for (what, found, is_right, supported) in [
        ("encoder_repetition_penalty", penalty, penalty > 0.0, "numbers above 0"),
        ("exponential_decay_length_penalty", factor, factor > 0.0, "factors above 0"),
        ("min_p", draw.min_p, share(draw.min_p), "numbers from 0 to 1"),
        ("typical_p", draw.typical_p, draw.typical_p > 0.0, "numbers above 0"),
        ("epsilon_cutoff", draw.epsilon_cutoff, draw.epsilon_cutoff >= 0.0, "numbers from 0 on"),
        ("eta_cutoff", draw.eta_cutoff, draw.eta_cutoff >= 0.0, "numbers from 0 on"),
    ] {
        if !is_right || !found.is_finite() {
            let (file, found) = (file.to_owned(), found.to_string());
            return Err(LoadError::Unsupported { file, what, found, supported });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use emberd_protocol::EarlyStopping;
    use serde_json::{Value, json};

    use super::{ClassDefaults, read};
    use crate::api::generation::{DrawLimits, GenerationDefaults, ScoreRules};
    use crate::checkpoint::load_error::LoadError;

    const BART: ClassDefaults =
        ClassDefaults { decoder_start: 2, eos: 2, pad: 1, forced_eos: Some(2) };

    fn of(generation: Option<&Value>, config: &Value) -> GenerationDefaults {
        read(Path::new("folder"), generation, config, BART).unwrap()
    }

    #[test]
    fn several_answers_and_stops_are_taken_from_the_file() {
        let got = of(Some(&json!({"num_return_sequences": 3, "stop_strings": "."})), &json!({}));
        assert_eq!((got.num_return_sequences, got.stop), (3, vec![".".to_owned()]));
        let got = of(Some(&json!({"stop_strings": ["", "e"]})), &json!({}));
        assert_eq!((got.num_return_sequences, got.stop), (1, vec!["e".to_owned()]));
    }

    #[test]
    fn the_generation_file_counts_alone_where_there_is_one() {
        let config = json!({"num_beams": 4, "forced_eos_token_id": 2, "max_length": 142});
        let got = of(Some(&json!({"eos_token_id": [2, 5], "pad_token_id": 1})), &config);
        assert_eq!((got.num_beams, got.forced_eos, got.max_new_tokens), (1, vec![], None));
        assert_eq!((got.eos, got.pad, got.decoder_start), (vec![2, 5], 1, 2));
    }

    #[test]
    fn without_it_the_configuration_counts_with_what_its_class_sets() {
        let config = json!({
            "num_beams": 4, "max_length": 142, "min_length": 56, "length_penalty": 2.0,
            "early_stopping": true, "no_repeat_ngram_size": 3, "bos_token_id": 0,
            "force_bos_token_to_be_generated": true, "temperature": null,
        });
        let got = of(None, &config);
        let want = GenerationDefaults {
            decoder_start: 2,
            eos: vec![2],
            pad: 1,
            forced_bos: vec![0],
            forced_eos: vec![2],
            max_new_tokens: Some(141),
            min_new_tokens: 55,
            num_beams: 4,
            length_penalty: 2.0,
            early_stopping: EarlyStopping::Yes,
            no_repeat_ngram_size: 3,
            ..GenerationDefaults::default()
        };
        assert_eq!(got, want);
    }

    #[test]
    fn the_start_is_the_first_token_of_texts_where_nothing_else_is_said() {
        assert_eq!(of(Some(&json!({"bos_token_id": 7})), &json!({})).decoder_start, 7);
        let both = json!({"bos_token_id": 7, "decoder_start_token_id": 9});
        assert_eq!(of(Some(&both), &json!({})).decoder_start, 9);
    }

    #[test]
    fn rules_of_scores_and_draws_are_taken_from_the_file() {
        let said = json!({
            "bad_words_ids": [[9], [2], [4, 5], []], "suppress_tokens": [6, 9],
            "begin_suppress_tokens": [-1, 3], "sequence_bias": [[[7], 1], [[1, 2], -1.5], [[7], 2], [[], 1]],
            "encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 4,
            "exponential_decay_length_penalty": [10, 1.2], "renormalize_logits": true,
            "min_p": 0.1, "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02,
            "forced_eos_token_id": [2, 5],
        });
        let got = of(Some(&said), &json!({}));
        let rules = ScoreRules {
            // The end is none.
            bad_words: vec![vec![9], vec![4, 5]],
            sequence_bias: vec![(vec![1, 2], -1.5), (vec![7], 2.0)],
            suppressed: vec![6, 9],
            begin_suppressed: vec![3],
            encoder_repetition_penalty: 1.5,
            encoder_no_repeat_ngram_size: 4,
            length_decay: Some((10, 1.2)),
            renormalize: true,
        };
        let draw_limits =
            DrawLimits { min_p: 0.1, typical_p: 0.9, epsilon_cutoff: 0.01, eta_cutoff: 0.02 };
        assert_eq!((got.rules, got.draw_limits, got.forced_eos), (rules, draw_limits, vec![2, 5]));
    }

    #[test]
    fn the_least_number_of_new_tokens_comes_before_the_least_length() {
        let least = |said: Value| of(Some(&said), &json!({})).min_new_tokens;
        assert_eq!(least(json!({"min_new_tokens": 1, "min_length": 9})), 1);
        assert_eq!(least(json!({"min_length": 9})), 8);
        assert!(of(Some(&json!({"top_p": 0.0})), &json!({})).top_p > 0.0);
    }

    #[test]
    fn numbers_out_of_their_range_are_refused_by_name() {
        for (key, value) in [
            ("encoder_repetition_penalty", json!(0.0)),
            ("exponential_decay_length_penalty", json!([3, -1.0])),
            ("min_p", json!(1.5)),
            ("typical_p", json!(0.0)),
            ("epsilon_cutoff", json!(-0.1)),
            ("eta_cutoff", json!(-0.1)),
        ] {
            let said = json!({ key: value });
            let error = read(Path::new("folder"), Some(&said), &json!({}), BART).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn mistakes_name_the_file() {
        for (said, is_json) in
            [(json!({"early_stopping": "soon"}), false), (json!({"num_beams": -1}), true)]
        {
            let error = read(Path::new("folder"), Some(&said), &json!({}), BART).unwrap_err();
            assert!(error.to_string().contains("folder/generation_config.json"), "{error}");
            assert_eq!(matches!(error, LoadError::Json { .. }), is_json);
        }
    }
}
