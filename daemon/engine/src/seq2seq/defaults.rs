//! The defaults that a folder sets for generating.
//!
//! Transformers takes them from `generation_config.json`. Without that file it takes them from
//! `config.json`, and the token ids that are missing there from the model's class.

use std::collections::BTreeMap;
use std::path::Path;

use emberd_protocol::EarlyStopping;
use serde::Deserialize;
use serde_json::Value;

use crate::api::generation_defaults::{GenerationDefaults, LogitsSettings, SamplingLimits};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;

/// The token ids that a model's class sets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClassDefaults {
    pub(super) decoder_start: u32,
    pub(super) eos: u32,
    pub(super) pad: u32,
    pub(super) forced_eos: Option<u32>,
}

/// Reads the defaults from `generation`, or from `config` if there is no `generation_config.json`.
pub(super) fn read(
    folder: &Path,
    generation: Option<&Value>,
    config: &Value,
    class: ClassDefaults,
) -> Result<GenerationDefaults, LoadError> {
    let name = if generation.is_some() { "generation_config.json" } else { "config.json" };
    let raw = RawConfig { file: &folder.join(name), json: generation.unwrap_or(config) };
    warn_of_ignored_settings(raw);
    // The defaults of the class stand behind `config.json` only.
    let from_class = |id: u32| generation.is_none().then_some(id);
    let eos = ids(raw, "eos_token_id")?.unwrap_or_else(|| vec![class.eos]);
    let forced_eos = match ids(raw, "forced_eos_token_id")? {
        Some(ids) => ids,
        None => class.forced_eos.and_then(from_class).into_iter().collect(),
    };
    let bos: Option<u32> = raw.value("bos_token_id")?;
    // An old name of BART's for a forced first token.
    let is_bos_forced = raw.flag_or("force_bos_token_to_be_generated", false)?;
    let forced_bos = match ids(raw, "forced_bos_token_id")? {
        Some(ids) => ids,
        None => bos.filter(|_| is_bos_forced).into_iter().collect(),
    };
    let decoder_start = raw
        .value("decoder_start_token_id")?
        .or_else(|| from_class(class.decoder_start))
        .or(bos)
        .unwrap_or(class.decoder_start);
    let usual = GenerationDefaults::default();
    Ok(GenerationDefaults {
        decoder_start,
        pad: raw.value("pad_token_id")?.unwrap_or(class.pad),
        forced_bos,
        forced_eos,
        logits: logits_settings(raw, &eos)?,
        sampling_limits: sampling_limits(raw)?,
        eos,
        max_new_tokens: match raw.value("max_new_tokens")? {
            Some(tokens) => Some(tokens),
            None => raw.value("max_length")?.map(|length: usize| length.saturating_sub(1)),
        },
        min_new_tokens: match raw.value("min_new_tokens")? {
            Some(tokens) => tokens,
            None => raw.value("min_length")?.unwrap_or(0_usize).saturating_sub(1),
        },
        num_beams: raw.value("num_beams")?.unwrap_or(usual.num_beams),
        num_return_sequences: raw
            .value("num_return_sequences")?
            .unwrap_or(usual.num_return_sequences),
        stop: stop_strings(raw)?,
        length_penalty: raw.value("length_penalty")?.unwrap_or(usual.length_penalty),
        early_stopping: early_stopping(raw)?,
        do_sample: raw.flag_or("do_sample", usual.do_sample)?,
        temperature: raw.value("temperature")?.unwrap_or(usual.temperature),
        top_k: raw.value("top_k")?.unwrap_or(usual.top_k),
        // 0 keeps the most probable token alone, as the smallest positive number does.
        top_p: raw.value("top_p")?.unwrap_or(usual.top_p).max(f32::MIN_POSITIVE),
        repetition_penalty: raw.value("repetition_penalty")?.unwrap_or(usual.repetition_penalty),
        no_repeat_ngram_size: raw
            .value("no_repeat_ngram_size")?
            .unwrap_or(usual.no_repeat_ngram_size),
    })
}

fn logits_settings(raw: RawConfig<'_>, eos: &[u32]) -> Result<LogitsSettings, LoadError> {
    let mut bad_words: Vec<Vec<u32>> = raw.value("bad_words_ids")?.unwrap_or_default();
    // As in transformers, the end of a text is never a bad word.
    bad_words.retain(|word| !word.is_empty() && !eos.iter().any(|end| word[..] == [*end]));
    // Of several biases for the same tokens the last one counts.
    let biases: Vec<(Vec<u32>, f32)> = raw.value("sequence_bias")?.unwrap_or_default();
    let by_tokens: BTreeMap<Vec<u32>, f32> = biases.into_iter().collect();
    let rules = LogitsSettings {
        bad_words,
        sequence_bias: by_tokens.into_iter().filter(|(tokens, _)| !tokens.is_empty()).collect(),
        suppressed: suppressed(raw, "suppress_tokens")?,
        begin_suppressed: suppressed(raw, "begin_suppress_tokens")?,
        encoder_repetition_penalty: raw.value("encoder_repetition_penalty")?.unwrap_or(1.0),
        encoder_no_repeat_ngram_size: raw.value("encoder_no_repeat_ngram_size")?.unwrap_or(0),
        length_decay: raw.value("exponential_decay_length_penalty")?,
        renormalize: raw.flag_or("renormalize_logits", false)?,
    };
    let penalty = rules.encoder_repetition_penalty;
    check(raw, "encoder_repetition_penalty", penalty, penalty > 0.0, "numbers above 0")?;
    let factor = rules.length_decay.map_or(1.0, |(_, factor)| factor);
    check(raw, "exponential_decay_length_penalty", factor, factor > 0.0, "factors above 0")?;
    Ok(rules)
}

fn sampling_limits(raw: RawConfig<'_>) -> Result<SamplingLimits, LoadError> {
    let limits = SamplingLimits {
        min_p: raw.value("min_p")?.unwrap_or(0.0),
        typical_p: raw.value("typical_p")?.unwrap_or(1.0),
        epsilon_cutoff: raw.value("epsilon_cutoff")?.unwrap_or(0.0),
        eta_cutoff: raw.value("eta_cutoff")?.unwrap_or(0.0),
    };
    let SamplingLimits { min_p, typical_p, epsilon_cutoff, eta_cutoff } = limits;
    check(raw, "min_p", min_p, (0.0..=1.0).contains(&min_p), "numbers from 0 to 1")?;
    check(raw, "typical_p", typical_p, typical_p > 0.0, "numbers above 0")?;
    let is_right = epsilon_cutoff >= 0.0;
    check(raw, "epsilon_cutoff", epsilon_cutoff, is_right, "numbers from 0 on")?;
    check(raw, "eta_cutoff", eta_cutoff, eta_cutoff >= 0.0, "numbers from 0 on")?;
    Ok(limits)
}

/// Refuses a number that transformers refuses, too.
fn check(
    raw: RawConfig<'_>,
    setting: &'static str,
    found: f32,
    is_right: bool,
    supported: &'static str,
) -> Result<(), LoadError> {
    if is_right && found.is_finite() {
        return Ok(());
    }
    Err(raw.unsupported(setting, &found.to_string(), supported))
}

fn early_stopping(raw: RawConfig<'_>) -> Result<EarlyStopping, LoadError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum FlagOrWord {
        Flag(bool),
        Word(String),
    }
    match raw.value("early_stopping")? {
        None | Some(FlagOrWord::Flag(false)) => Ok(EarlyStopping::No),
        Some(FlagOrWord::Flag(true)) => Ok(EarlyStopping::Yes),
        Some(FlagOrWord::Word(word)) if word == "never" => Ok(EarlyStopping::Never),
        Some(FlagOrWord::Word(word)) => {
            Err(raw.unsupported("early_stopping", &word, "true, false, never"))
        }
    }
}

/// One token id or a list of them.
fn ids(raw: RawConfig<'_>, setting: &str) -> Result<Option<Vec<u32>>, LoadError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    Ok(raw.value(setting)?.map(|ids| match ids {
        OneOrMany::One(id) => vec![id],
        OneOrMany::Many(ids) => ids,
    }))
}

/// Token ids; numbers that are none, such as -1, are left out.
fn suppressed(raw: RawConfig<'_>, setting: &str) -> Result<Vec<u32>, LoadError> {
    let numbers: Vec<i64> = raw.value(setting)?.unwrap_or_default();
    Ok(numbers.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}

fn stop_strings(raw: RawConfig<'_>) -> Result<Vec<String>, LoadError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let mut strings = match raw.value("stop_strings")? {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    strings.retain(|text| !text.is_empty());
    Ok(strings)
}

/// Settings that change the output of some version of transformers but not here, each with its
/// neutral value.
const IGNORED: [(&str, f64); 12] = [
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

fn warn_of_ignored_settings(raw: RawConfig<'_>) {
    for (key, neutral) in IGNORED {
        let value = &raw.json[key];
        let is_neutral =
            value.is_null() || *value == false || value.as_f64().is_some_and(|x| x == neutral);
        if !is_neutral {
            let (file, value) = (raw.file.display(), value.to_string());
            tracing::warn!(%file, key, value, "this generation setting is not supported and is ignored");
        }
    }
}

#[cfg(test)]
mod tests;
