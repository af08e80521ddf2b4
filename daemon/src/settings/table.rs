//! The table of all keys: the range of each, and the field that holds its value.

use crate::settings::model::ModelSettings;
use crate::settings::rule::{Key, Rule};
use crate::settings::texts;
use crate::settings::values::Settings;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const DAY_SECONDS: u64 = 24 * 60 * 60;
const DAY_MS: u64 = DAY_SECONDS * 1000;

/// Ten years: practically forever, but still a moment that a clock can express.
const MAX_SECONDS: u64 = 10 * 365 * DAY_SECONDS;

/// A row whose values are true or false.
macro_rules! flag {
    ($name:literal, $($field:ident).+) => {
        Key {
            name: $name,
            rule: Rule::Flag { set: |t, v| t.$($field).+ = v, get: |t| t.$($field).+ },
        }
    };
}

/// A row whose values are whole numbers; the field holds a multiple of them if a unit is given.
macro_rules! integer {
    ($name:literal, $range:expr, $($field:ident).+) => {
        integer!($name, $range, 1, $($field).+)
    };
    ($name:literal, $range:expr, $unit:expr, $($field:ident).+) => {
        Key {
            name: $name,
            rule: Rule::Integer {
                range: $range,
                set: |t, v| t.$($field).+ = narrow(v * $unit),
                get: |t| Some(wide(t.$($field).+) / $unit),
            },
        }
    };
}

/// A row whose values are seconds or milliseconds.
macro_rules! time {
    ($name:literal, $range:expr, $from:ident, $to:ident, $($field:ident).+) => {
        Key {
            name: $name,
            rule: Rule::Integer {
                range: $range,
                set: |t, v| t.$($field).+ = Duration::$from(v),
                get: |t| Some(wide(t.$($field).+.$to())),
            },
        }
    };
}

/// A row whose values are texts, with a function that sets one and a function that reads it.
macro_rules! text {
    ($name:literal, $set:expr, $get:expr) => {
        Key { name: $name, rule: Rule::Text { set: $set, get: $get } }
    };
}

/// The keys outside of `models`.
pub(super) fn top_keys() -> Vec<Key<Settings>> {
    vec![
        integer!("cpu_workers", 0..=1024, cpu_workers),
        text!(
            "device_preference",
            |s, value, _| texts::device(value).map(|device| s.device_preference = device),
            |s| Some(s.device_preference.to_string())
        ),
        text!(
            "access.group",
            |s, value, _| texts::group(value).map(|group| s.access = Some(group)),
            |s| s.access.as_ref().map(|group| group.name.clone())
        ),
        text!(
            "segments.backend",
            |s, value, _| texts::backend(value).map(|backend| s.segments.backend = backend),
            |s| Some(s.segments.backend.to_string())
        ),
        integer!("segments.inline_kib", 0..=1024, KIB, segments.inline_bytes),
        integer!("segments.credit_mib", 4..=65_536, MIB, segments.credit_bytes),
        integer!("segments.total_mib", 4..=1_048_576, MIB, segments.total_bytes),
        time!("segments.wait_ms", 0..=DAY_MS, from_millis, as_millis, segments.wait),
        time!("segments.idle_seconds", 1..=DAY_SECONDS, from_secs, as_secs, segments.idle),
        integer!("limits.connections", 1..=100_000, limits.connections),
        integer!("limits.leases", 1..=1_000_000, limits.leases),
        integer!("limits.requests_in_flight", 1..=4096, limits.requests_in_flight),
        time!("limits.handshake_ms", 1..=DAY_MS, from_millis, as_millis, limits.handshake),
        time!("limits.drain_seconds", 0..=DAY_SECONDS, from_secs, as_secs, limits.drain),
        Key {
            name: "gpu_memory_fraction",
            rule: Rule::Fraction {
                range: (0.0, 1.0),
                set: |s, v| s.gpu_memory_fraction = v,
                get: |s| s.gpu_memory_fraction,
            },
        },
        flag!("allow_gpu_growth", allow_gpu_growth),
        flag!("sharing.enabled", sharing.enabled),
        integer!("sharing.max_shared_models", 1..=100_000, sharing.max_shared_models),
        time!(
            "sharing.unload_after_seconds",
            0..=MAX_SECONDS,
            from_secs,
            as_secs,
            sharing.unload_after
        ),
        flag!("sharing.reference_counting", sharing.reference_counting),
        flag!("embedding_cache.enabled", cache.enabled),
        integer!("embedding_cache.max_cache_size", 1..=100_000_000, cache.max_entries),
        time!("embedding_cache.ttl_seconds", 1..=MAX_SECONDS, from_secs, as_secs, cache.ttl),
        flag!("embedding_cache.persist_to_disk", cache.persists),
        text!(
            "embedding_cache.file",
            |s, value, folder| {
                texts::path(value, folder, "give the file that rows are kept in")
                    .map(|path| s.cache.file = Some(path))
            },
            |s| s.cache.file.as_ref().map(|path| path.display().to_string())
        ),
        flag!("embedding_cache.shared_between_users", cache.is_shared_between_users),
    ]
}

/// The keys below `models.<id>.`.
pub(super) fn model_keys() -> Vec<Key<ModelSettings>> {
    vec![
        // Whether the type exists is checked with all of the model's keys.
        text!(
            "type",
            |m, value, _| {
                m.model_type = value.into();
                Ok(())
            },
            |m| Some(m.model_type.to_string())
        ),
        text!(
            "name",
            |m, value, _| texts::model_name(value).map(|name| m.name = Some(name)),
            |m| m.name.clone()
        ),
        text!(
            "revision",
            |m, value, _| texts::revision(value).map(|revision| m.revision = revision),
            |m| Some(m.revision.clone())
        ),
        text!(
            "local_path",
            |m, value, folder| {
                texts::model_folder(value, folder).map(|path| m.local_path = Some(path))
            },
            |m| m.local_path.as_ref().map(|path| path.display().to_string())
        ),
        text!("device", |m, value, _| texts::device(value).map(|device| m.device = device), |m| {
            Some(m.device.to_string())
        }),
        text!("dtype", |m, value, _| texts::weight_type(value).map(|dtype| m.dtype = dtype), |m| {
            Some(texts::weight_type_name(m.dtype).to_owned())
        }),
        Key {
            name: "dimension",
            rule: Rule::Integer {
                range: 1..=1_000_000,
                set: |m, v| m.dimension = Some(narrow(v)),
                get: |m| m.dimension.map(wide),
            },
        },
        integer!("batch_size", 1..=65_536, batch_size),
        flag!("shared", shared),
        flag!("cache_embeddings", cache_embeddings),
        integer!("max_input_length", 1..=1_000_000, max_input_length),
        integer!("max_output_length", 1..=1_000_000, max_output_length),
    ]
}

/// A number that was checked against a range that fits its field.
fn narrow<N: TryFrom<u64>>(value: u64) -> N {
    N::try_from(value).ok().expect("the key's range fits its field")
}

fn wide<N: TryInto<u64>>(value: N) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}
