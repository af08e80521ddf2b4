//! Which head a folder has beside its encoder, by the class that `config.json` names.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::folder::read_json;

/// Whether a folder holds a model that classifies sequences.
#[must_use]
pub fn holds_rank_head(path: &Path) -> bool {
    let config = read_json::<Value>(&path.join("config.json"));
    config.is_ok_and(|config| has_rank_head(&config))
}

/// Whether a folder holds a masked language model.
#[must_use]
pub fn holds_masked_head(path: &Path) -> bool {
    let config = read_json::<Value>(&path.join("config.json"));
    config.is_ok_and(|config| has_masked_head(&config))
}

/// Whether a configuration names a class that classifies sequences.
pub(crate) fn has_rank_head(config: &Value) -> bool {
    is_class(config, &["ForSequenceClassification"])
}

/// Whether a configuration names a class with a masked language model. A class for pre-training has
/// another head beside it, for pairs of sentences.
pub(crate) fn has_masked_head(config: &Value) -> bool {
    is_class(config, &["ForMaskedLM", "ForPreTraining"])
}

fn is_class(config: &Value, endings: &[&str]) -> bool {
    let class = config["architectures"][0].as_str();
    class.is_some_and(|class| endings.iter().any(|ending| class.ends_with(ending)))
}
