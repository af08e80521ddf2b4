//! Which new settings apply while the daemon runs.

use crate::settings::model::ModelSettings;
use crate::settings::values::Settings;
use emberd_protocol::{ModelId, Reloaded, SettingChange};
use std::collections::BTreeMap;

/// Keys that apply from the next start on, and why.
const FIXED: [(&str, &str); 7] = [
    ("cpu_workers", "the workers of loaded models are running: restart the daemon"),
    ("gpu_memory_fraction", "GPU memory was divided at the start: restart the daemon"),
    ("allow_gpu_growth", "GPU memory was divided at the start: restart the daemon"),
    ("access.group", "the socket was opened at the start: restart the daemon"),
    ("segments.backend", "open connections use the old one: restart the daemon"),
    (
        "embedding_cache.persist_to_disk",
        "the cache file is opened at the start: restart the daemon",
    ),
    ("embedding_cache.file", "the cache file is opened at the start: restart the daemon"),
];

/// Keys that apply to later connections or results, not to present ones.
const LATER: [(&str, &str); 3] = [
    ("segments.credit_mib", "for new connections"),
    ("segments.inline_kib", "from the next result on"),
    ("limits.requests_in_flight", "for new connections"),
];

/// The settings in force after new ones were read, and the effect of each key that differs.
///
/// `is_loading_or_loaded` answers for a model; if so, its new settings apply from
/// its next load on.
pub(crate) fn merge(
    old: &Settings,
    new: Settings,
    is_loading_or_loaded: impl Fn(&ModelId) -> bool,
) -> (Settings, Reloaded) {
    let lines = |settings: &Settings| -> BTreeMap<String, String> {
        settings.lines().into_iter().map(|line| (line.key, line.value)).collect()
    };
    let (before, after) = (lines(old), lines(&new));
    let mut merged = new;
    // These stay as they are until the next start.
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
        let change = |effect: &str| SettingChange {
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
                reloaded.changed.push(change("a new model"));
            }
            Some(_) if value.is_empty() && !after.keys().any(|other| is_of(other, key)) => {
                reloaded
                    .unchanged
                    .push(change("a removed model stays configured until the daemon restarts"));
            }
            Some(_) if key.ends_with(".shared") => {
                reloaded.changed.push(change("for the next leases"));
            }
            Some(id) if is_loading_or_loaded(&id) => {
                reloaded.unchanged.push(change("from the next load of the model on"));
            }
            Some(_) => reloaded.changed.push(change("now")),
            None => match (fixed, later) {
                (Some((_, why)), _) => reloaded.unchanged.push(change(why)),
                (None, Some((_, when))) => reloaded.changed.push(change(when)),
                (None, None) if key == "embedding_cache.enabled" && merged.cache.persists => {
                    reloaded.changed.push(change(
                        "now for the cache in memory; for its file at the next start",
                    ));
                }
                (None, None) => reloaded.changed.push(change("now")),
            },
        }
    }
    (merged, reloaded)
}

/// Whether two keys belong to the same model.
fn is_of(key: &str, other: &str) -> bool {
    let model = |key: &str| key.rsplit_once('.').map(|(model, _)| model.to_owned());
    model(key) == model(other)
}
