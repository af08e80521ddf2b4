//! All keys with their values, as `emberd config` shows them.

use crate::settings::origin::Origin;
use crate::settings::table::{model_keys, top_keys};
use crate::settings::values::Settings;
use emberd_protocol::ModelId;
use std::collections::BTreeMap;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    /// The whole key, such as `models.minilm.dimension`.
    pub key: String,
    /// Its value in TOML.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

impl KeyLine {
    /// Its value in JSON.
    #[must_use]
    pub fn json_value(&self) -> serde_json::Value {
        let line = format!("value = {}", self.value);
        let read = toml::from_str::<BTreeMap<String, serde_json::Value>>(&line);
        let value = read.ok().and_then(|mut line| line.remove("value"));
        value.unwrap_or_else(|| self.value.clone().into())
    }

    /// The key as a file spells it: an id with dots is in quotes.
    #[must_use]
    pub fn toml_key(&self) -> String {
        toml_key(&self.key)
    }
}

impl Settings {
    /// Every key that has a value, ordered by key.
    #[must_use]
    pub fn lines(&self) -> Vec<KeyLine> {
        let line = |(key, value): (String, Option<String>)| {
            let origin = self.origins.get(&key).cloned().unwrap_or(Origin::Default);
            Some(KeyLine { key, value: value?, origin })
        };
        let mut lines: Vec<_> = all(self).into_iter().filter_map(line).collect();
        lines.sort_by(|a, b| a.key.cmp(&b.key));
        lines
    }

    /// The keys without a value, ordered and spelled as in a file.
    #[must_use]
    pub fn unset(&self) -> Vec<String> {
        let unset =
            |(key, value): (String, Option<String>)| value.is_none().then(|| toml_key(&key));
        let mut keys: Vec<_> = all(self).into_iter().filter_map(unset).collect();
        keys.sort();
        keys
    }

    /// The keys of one model without their `models.<id>.`, and their values in TOML.
    #[must_use]
    pub fn model_lines(&self, id: &ModelId) -> Vec<(String, String)> {
        let prefix = format!("models.{id}.");
        let own = |line: KeyLine| Some((line.key.strip_prefix(&prefix)?.to_owned(), line.value));
        self.lines().into_iter().filter_map(own).collect()
    }
}

fn all(settings: &Settings) -> Vec<(String, Option<String>)> {
    let top = top_keys().into_iter();
    let mut all: Vec<_> = top.map(|key| (key.name.to_owned(), key.rule.get(settings))).collect();
    for (id, model) in &settings.models {
        let own = model_keys().into_iter().filter(|key| model.model_type.has_key(key.name));
        all.extend(own.map(|key| (format!("models.{id}.{}", key.name), key.rule.get(model))));
    }
    all
}

fn toml_key(key: &str) -> String {
    let of_model = key.strip_prefix("models.").and_then(|rest| rest.rsplit_once('.'));
    match of_model {
        Some((id, own)) if id.contains('.') => format!("models.\"{id}\".{own}"),
        _ => key.to_owned(),
    }
}
