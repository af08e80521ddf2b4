//! What a folder says about how its texts are made.
//!
//! Transformers takes `generation_config.json`, and where there is none the same names out of
//! `config.json`, with what the model's class sets where that says nothing either.

use std::path::Path;

use emberd_protocol::EarlyStopping;
use serde::Deserialize;
use serde_json::Value;

use crate::engine::load_error::LoadError;
use crate::engine::text_model::GenerationDefaults;

/// What a class of models sets by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClassDefaults {
    pub(super) decoder_start: u32,
    pub(super) eos: u32,
    pub(super) pad: u32,
    pub(super) forced_eos: Option<u32>,
}

/// The part of both files that is used.
#[derive(Debug, Default, Deserialize)]
struct Said {
    decoder_start_token_id: Option<u32>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMore>,
    pad_token_id: Option<u32>,
    forced_bos_token_id: Option<u32>,
    forced_eos_token_id: Option<OneOrMore>,
    /// An old name of BART's for a forced first token.
    force_bos_token_to_be_generated: Option<bool>,
    suppress_tokens: Option<Vec<u32>>,
    bad_words_ids: Option<Vec<Vec<u32>>>,
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

/// What changes answers in transformers and is not done here.
const NOT_DONE: [&str; 9] = [
    "renormalize_logits",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "sequence_bias",
    "num_beam_groups",
    "penalty_alpha",
    "typical_p",
];

/// Says what of a file is left out, where it asks for more than nothing.
fn warn_of_what_is_not_done(file: &Path, said: &Value) {
    let is_nothing = |value: &Value| {
        value.is_null() || value == false || value.as_f64().is_some_and(|x| x == 0.0 || x == 1.0)
    };
    for key in NOT_DONE.into_iter().filter(|key| !is_nothing(&said[key])) {
        let (file, value) = (file.display(), said[key].to_string());
        tracing::warn!(%file, key, value, "this way of making texts is not done: it is left out");
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
pub(super) fn read(
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
    let forced_eos = said.forced_eos_token_id.and_then(|ids| Vec::from(ids).first().copied());
    let forced_bos = said.forced_bos_token_id.or_else(|| {
        (said.force_bos_token_to_be_generated == Some(true)).then_some(said.bos_token_id).flatten()
    });
    let usual = GenerationDefaults::default();
    Ok(GenerationDefaults {
        decoder_start: said
            .decoder_start_token_id
            .or_else(|| from_class(class.decoder_start))
            .or(said.bos_token_id)
            .unwrap_or(class.decoder_start),
        pad: said.pad_token_id.unwrap_or(class.pad),
        forced_bos,
        forced_eos: forced_eos.or(class.forced_eos.and_then(from_class)),
        suppressed: suppressed(&file, said.suppress_tokens, said.bad_words_ids, &eos),
        eos,
        max_new_tokens: said
            .max_new_tokens
            .or_else(|| said.max_length.map(|length| length.saturating_sub(1))),
        min_new_tokens: said
            .min_new_tokens
            .unwrap_or(0)
            .max(said.min_length.unwrap_or(0).saturating_sub(1)),
        num_beams: said.num_beams.unwrap_or(usual.num_beams),
        num_return_sequences: said.num_return_sequences.unwrap_or(usual.num_return_sequences),
        stop: said.stop_strings.map_or_else(Vec::new, Vec::from),
        length_penalty: said.length_penalty.unwrap_or(usual.length_penalty),
        early_stopping,
        do_sample: said.do_sample.unwrap_or(usual.do_sample),
        temperature: said.temperature.unwrap_or(usual.temperature),
        top_k: said.top_k.unwrap_or(usual.top_k),
        top_p: said.top_p.unwrap_or(usual.top_p),
        repetition_penalty: said.repetition_penalty.unwrap_or(usual.repetition_penalty),
        no_repeat_ngram_size: said.no_repeat_ngram_size.unwrap_or(usual.no_repeat_ngram_size),
    })
}

/// The tokens that are never made. An end of the text is not one, whatever the list of words says.
fn suppressed(
    file: &Path,
    tokens: Option<Vec<u32>>,
    words: Option<Vec<Vec<u32>>>,
    eos: &[u32],
) -> Vec<u32> {
    let mut suppressed = tokens.unwrap_or_default();
    let mut longer = 0;
    for word in words.unwrap_or_default() {
        match word[..] {
            [token] if eos.contains(&token) => {}
            [token] => suppressed.push(token),
            _ => longer += 1,
        }
    }
    if longer > 0 {
        let file = file.display();
        tracing::warn!(%file, longer, "bad_words_ids of several tokens are not kept out");
    }
    suppressed.sort_unstable();
    suppressed.dedup();
    suppressed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use emberd_protocol::EarlyStopping;
    use serde_json::{Value, json};

    use super::{ClassDefaults, read};
    use crate::engine::load_error::LoadError;
    use crate::engine::text_model::GenerationDefaults;

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
        assert_eq!((got.num_beams, got.forced_eos, got.max_new_tokens), (1, None, None));
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
            forced_bos: Some(0),
            forced_eos: Some(2),
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
    fn words_of_one_token_are_kept_out_but_for_the_end() {
        let said = json!({"bad_words_ids": [[9], [2], [4, 5]], "suppress_tokens": [6, 9]});
        assert_eq!(of(Some(&said), &json!({})).suppressed, [6, 9]);
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
