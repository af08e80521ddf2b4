//! Options of requests and folders, and what they resolve to.

use crate::batching::generation::config::{GenerationConfig, GenerationLimits, Search};
use crate::batching::generation::option_error::OptionError;
use emberd_engine::GenerationDefaults;
use emberd_protocol::{EarlyStopping, GenerateOptions};

const LIMITS: GenerationLimits =
    GenerationLimits { max_input_tokens: 512, max_new_tokens: 128, rows: 8 };

fn resolve(options: &GenerateOptions) -> Result<GenerationConfig, OptionError> {
    GenerationConfig::resolve(options, false, &GenerationDefaults::default(), LIMITS)
}

fn message(options: &GenerateOptions) -> String {
    resolve(options).unwrap_err().to_string()
}

#[test]
fn a_request_overrides_the_folder_and_the_folder_is_capped_by_the_settings() {
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
        sampling: None,
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
fn an_option_out_of_range_is_refused_with_its_name_and_range() {
    let sample = GenerateOptions { do_sample: Some(true), ..GenerateOptions::default() };
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let options = GenerateOptions { temperature: Some(temperature), ..sample.clone() };
        let text = message(&options);
        assert!(text.starts_with("temperature is ") && text.ends_with("above 0"), "{text}");
    }
    for top_p in [0.0, 1.1, f32::NAN] {
        let text = message(&GenerateOptions { top_p: Some(top_p), ..sample.clone() });
        assert!(text.ends_with("it must be above 0 and at most 1"), "{text}");
    }
    let plain = GenerateOptions::default();
    assert_eq!(
        message(&GenerateOptions { max_new_tokens: Some(0), ..plain.clone() }),
        "max_new_tokens is 0: it must be from 1 to 128"
    );
    assert_eq!(
        message(&GenerateOptions { max_new_tokens: Some(129), ..plain.clone() }),
        "max_new_tokens is 129, more than this model's limit of 128"
    );
    let options =
        GenerateOptions { max_new_tokens: Some(5), min_new_tokens: Some(6), ..plain.clone() };
    assert_eq!(message(&options), "min_new_tokens is 6: it must be at most 5, as max_new_tokens");
    assert_eq!(
        message(&GenerateOptions { num_beams: Some(9), ..plain.clone() }),
        "num_beams is 9, more than this model's limit of 8"
    );
    let options =
        GenerateOptions { num_beams: Some(2), num_return_sequences: Some(3), ..plain.clone() };
    assert_eq!(message(&options), "num_return_sequences is 3: it must be at most 2, as num_beams");
    let options = GenerateOptions { repetition_penalty: Some(0.0), ..plain.clone() };
    assert!(message(&options).starts_with("repetition_penalty is 0"));
    let options = GenerateOptions { stop: vec![String::new()], ..plain.clone() };
    assert!(message(&options).starts_with("stop is an empty string"));
    let options = GenerateOptions { stop: vec!["x".into(); 65], ..plain };
    assert_eq!(message(&options), "stop is 65 strings: it must be at most 64 strings");
}

#[test]
fn options_that_do_not_go_together_are_refused_with_a_remedy() {
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
        assert!(error.to_string().starts_with("stream cannot be combined with num_"), "{error}");
    }
}
