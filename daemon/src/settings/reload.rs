//! What of new settings can be put into force while the daemon runs.

use crate::settings::{ModelSettings, Settings};
use emberd_protocol::{ModelId, Reloaded, SettingChange};
use std::collections::BTreeMap;

/// Keys that count from the next start only, and why.
const FIXED: [(&str, &str); 7] = [
    ("cpu_workers", "the workers of loaded models run: start the daemon again"),
    ("gpu_memory_fraction", "memory was shared out with it: start the daemon again"),
    ("allow_gpu_growth", "memory was shared out with it: start the daemon again"),
    ("access.group", "the socket was opened for it: start the daemon again"),
    ("segments.backend", "connections use it: start the daemon again"),
    ("embedding_cache.persist_to_disk", "its file is open, or is not: start the daemon again"),
    ("embedding_cache.file", "another one is open, or none: start the daemon again"),
];

/// Keys that count for connections that come later, or results, or models: not for those there are.
const LATER: [(&str, &str); 3] = [
    ("segments.credit_mib", "for new connections"),
    ("segments.inline_kib", "from the next result on"),
    ("limits.requests_in_flight", "for new connections"),
];

/// The settings in force after new ones were read, and what became of each key that differs.
///
/// `is_begun` tells whether a model is in memory or on its way there: what is being fetched or read
/// is what was set then, and its new settings count from its next load.
pub(crate) fn merge(
    old: &Settings,
    new: Settings,
    is_begun: impl Fn(&ModelId) -> bool,
) -> (Settings, Reloaded) {
    let lines = |settings: &Settings| -> BTreeMap<String, String> {
        settings.lines().into_iter().map(|line| (line.key, line.value)).collect()
    };
    let (before, after) = (lines(old), lines(&new));
    let mut merged = new;
    // What cannot change stays as it was.
    merged.cpu_workers = old.cpu_workers;
    merged.gpu_memory_fraction = old.gpu_memory_fraction;
    merged.allow_gpu_growth = old.allow_gpu_growth;
    merged.segments.backend = old.segments.backend;
    merged.access.clone_from(&old.access);
    merged.cache.persists = old.cache.persists;
    merged.cache.file.clone_from(&old.cache.file);
    let removed: Vec<(ModelId, ModelSettings)> = old
        .models
        .iter()
        .filter(|(id, _)| !merged.models.contains_key(*id))
        .map(|(id, model)| (id.clone(), model.clone()))
        .collect();
    merged.models.extend(removed);

    let mut reloaded = Reloaded::default();
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    for key in keys.filter(|key| before.get(*key) != after.get(*key)) {
        let value = after.get(key).cloned().unwrap_or_default();
        let told = |effect: &str| SettingChange {
            key: key.clone(),
            value: value.clone(),
            effect: effect.into(),
        };
        let model = key.strip_prefix("models.").and_then(|rest| {
            let (id, _) = rest.rsplit_once('.')?;
            ModelId::new(id).ok()
        });
        let fixed = FIXED.iter().find(|(fixed, _)| fixed == key);
        let later = LATER.iter().find(|(later, _)| later == key);
        match model {
            Some(id) if !old.models.contains_key(&id) => {
                reloaded.changed.push(told("a new model"));
            }
            Some(_) if value.is_empty() && !after.keys().any(|other| is_of(other, key)) => {
                reloaded.unchanged.push(told("a model stays known until the daemon starts again"));
            }
            Some(_) if key.ends_with(".shared") => {
                reloaded.changed.push(told("for the next leases"));
            }
            Some(id) if is_begun(&id) => {
                reloaded.unchanged.push(told("from the next load of the model on"));
            }
            Some(_) => reloaded.changed.push(told("now")),
            None => match (fixed, later) {
                (Some((_, why)), _) => reloaded.unchanged.push(told(why)),
                (None, Some((_, when))) => reloaded.changed.push(told(when)),
                (None, None) if key == "embedding_cache.enabled" && merged.cache.persists => {
                    reloaded.changed.push(told("now in memory; for its file at the next start"));
                }
                (None, None) => reloaded.changed.push(told("now")),
            },
        }
    }
    (merged, reloaded)
}

/// Whether two keys are of the same model.
fn is_of(key: &str, other: &str) -> bool {
    let model = |key: &str| key.rsplit_once('.').map(|(model, _)| model.to_owned());
    model(key) == model(other)
}
