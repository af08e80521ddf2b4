//! The classification head of a folder, before its weights are read.

use std::path::Path;

use emberd_protocol::ScoreActivation;
use serde_json::Value;

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::folder::{read_json, read_json_if_there};
use crate::checkpoint::head_kind::has_rank_head;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::{SavedAs, check_bare};
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::text_limits::TextLimits;
use crate::encoder::architecture::Architecture;
use crate::encoder::head_names::ClassifierNames;

/// The description of a classification head, before its weights are read.
pub(crate) struct ClassifierSpec {
    pub(super) names: ClassifierNames,
    pub(super) labels: Vec<String>,
    pub(super) activation: ScoreActivation,
    /// Precedes the first text of each pair.
    pub(super) prompt: String,
    saved_as: SavedAs,
}

impl ClassifierSpec {
    /// Reads the description of the head on this architecture.
    pub(crate) fn read(path: &Path, architecture: &dyn Architecture) -> Result<Self, LoadError> {
        let file = path.join("config.json");
        let json: Value = read_json(&file)?;
        let config = RawConfig { file: &file, json: &json };
        let names = architecture.classifier().filter(|_| has_rank_head(&json)).ok_or_else(|| {
            let found = json["architectures"][0].as_str().unwrap_or("(none)");
            let supported =
                "…ForSequenceClassification of BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, MPNet, ModernBERT";
            config.unsupported("the head", found, supported)
        })?;
        let saved_as = SavedAs::of(path)?;
        let labels = labels(config)?;
        let activation = activation(path, config, labels.len(), saved_as)?;
        if saved_as == SavedAs::CrossEncoder {
            check_bare(path)?;
        }
        let settings = SentenceSettings::of_folder(path, SavedAs::CrossEncoder)?;
        let prompt = settings.default_prompt_text().to_owned();
        Ok(Self { names, labels, activation, prompt, saved_as })
    }

    /// How pairs are truncated.
    pub(crate) fn limits(&self, path: &Path, spec: &EncoderSpec) -> Result<TextLimits, LoadError> {
        TextLimits::read(path, spec, self.saved_as == SavedAs::CrossEncoder)
    }
}

/// The names of the labels by their number. A configuration without names has two labels, unless it
/// sets their number.
fn labels(config: RawConfig<'_>) -> Result<Vec<String>, LoadError> {
    let Some(names) = config.json["id2label"].as_object() else {
        let count = config.size_or("num_labels", 2)?;
        if count > MOST_LABELS {
            let wanted = format!("at most {MOST_LABELS}");
            return Err(config.setting("num_labels", count, wanted));
        }
        return Ok((0..count).map(|number| format!("LABEL_{number}")).collect());
    };
    let by_number = |number: usize| names.get(&number.to_string()).and_then(Value::as_str);
    let labels: Option<Vec<String>> =
        (0..names.len()).map(|number| by_number(number).map(str::to_owned)).collect();
    labels.filter(|labels| !labels.is_empty()).ok_or_else(|| {
        let found = config.json["id2label"].to_string();
        config.unsupported("id2label", &found, "a name for each number from 0 on")
    })
}

/// The activation of the logits, chosen as by sentence-transformers. Since version 6 the library writes
/// it to a file of its own. It ignores a class from outside torch.
fn activation(
    path: &Path,
    config: RawConfig<'_>,
    labels: usize,
    saved_as: SavedAs,
) -> Result<ScoreActivation, LoadError> {
    let own = if saved_as == SavedAs::CrossEncoder {
        read_json_if_there::<Value>(&path.join("config_sentence_transformers.json"))?
    } else {
        None
    };
    let newest = own.as_ref().map_or(&Value::Null, |own| &own["activation_fn"]);
    let newer = &config.json["sentence_transformers"]["activation_fn"];
    let older = &config.json["sbert_ce_default_activation_function"];
    let trusted = |class: &&str| class.starts_with("torch.");
    let class = [newest, newer, older].into_iter().filter_map(Value::as_str).find(trusted);
    let Some(class) = class else {
        return Ok(match labels {
            1 => ScoreActivation::Sigmoid,
            _ => ScoreActivation::Identity,
        });
    };
    match class.rsplit('.').next() {
        Some("Sigmoid") => Ok(ScoreActivation::Sigmoid),
        Some("Identity") => Ok(ScoreActivation::Identity),
        Some("Softmax") => Ok(ScoreActivation::Softmax),
        _ => {
            let supported = "Sigmoid, Identity, Softmax";
            Err(config.unsupported("the activation of scores", class, supported))
        }
    }
}

/// More labels are a mistake in the file: each is a name in the answer.
const MOST_LABELS: usize = 100_000;
