use std::path::Path;

use emberd_protocol::EarlyStopping;
use serde_json::{Value, json};

use super::{ClassDefaults, read};
use crate::api::generation_defaults::{GenerationDefaults, LogitsSettings, SamplingLimits};
use crate::checkpoint::load_error::LoadError;

const BART: ClassDefaults = ClassDefaults { decoder_start: 2, eos: 2, pad: 1, forced_eos: Some(2) };

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
fn the_default_start_is_the_first_token_of_texts() {
    assert_eq!(of(Some(&json!({"bos_token_id": 7})), &json!({})).decoder_start, 7);
    let both = json!({"bos_token_id": 7, "decoder_start_token_id": 9});
    assert_eq!(of(Some(&both), &json!({})).decoder_start, 9);
}

#[test]
fn rules_of_scores_and_draws_are_taken_from_the_file() {
    let generation = json!({
        "bad_words_ids": [[9], [2], [4, 5], []], "suppress_tokens": [6, 9],
        "begin_suppress_tokens": [-1, 3], "sequence_bias": [[[7], 1], [[1, 2], -1.5], [[7], 2], [[], 1]],
        "encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 4,
        "exponential_decay_length_penalty": [10, 1.2], "renormalize_logits": true,
        "min_p": 0.1, "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02,
        "forced_eos_token_id": [2, 5],
    });
    let got = of(Some(&generation), &json!({}));
    let rules = LogitsSettings {
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
    let sampling_limits =
        SamplingLimits { min_p: 0.1, typical_p: 0.9, epsilon_cutoff: 0.01, eta_cutoff: 0.02 };
    assert_eq!(
        (got.logits, got.sampling_limits, got.forced_eos),
        (rules, sampling_limits, vec![2, 5])
    );
}

#[test]
fn the_least_number_of_new_tokens_comes_before_the_least_length() {
    let least = |generation: Value| of(Some(&generation), &json!({})).min_new_tokens;
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
        let generation = json!({ key: value });
        let error = read(Path::new("folder"), Some(&generation), &json!({}), BART).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn mistakes_name_the_file() {
    for (generation, is_json) in
        [(json!({"early_stopping": "soon"}), false), (json!({"num_beams": -1}), true)]
    {
        let error = read(Path::new("folder"), Some(&generation), &json!({}), BART).unwrap_err();
        assert!(error.to_string().contains("folder/generation_config.json"), "{error}");
        assert_eq!(matches!(error, LoadError::Json { .. }), is_json);
    }
}
