//! Every key there is: its range, where its value lives, and whether this version acts on it.

use super::{BUILTIN_STATIC, DeviceChoice, ModelSettings, ModelSource, Settings};
use emberd_protocol::SegmentBackend;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The command line.
    CommandLine,
    /// A line of a settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One key as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    /// The whole key, such as `models.minilm.dimension`.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A key below `T`: the settings, or one model.
pub(super) struct Key<T: 'static> {
    pub(super) name: &'static str,
    pub(super) rule: Rule<T>,
}

pub(super) enum Rule<T: 'static> {
    /// A number in a range.
    Integer { range: RangeInclusive<u64>, set: fn(&mut T, u64), get: fn(&T) -> Option<u64> },
    /// A text; `set` tells what would be right, and gets the folder that paths are relative to.
    Text { set: fn(&mut T, &str, &Path) -> Result<(), String>, get: fn(&T) -> Option<String> },
    /// Part of the design, but nothing acts on it yet: refused rather than ignored.
    Later,
}

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

fn later<T>(name: &'static str) -> Key<T> {
    Key { name, rule: Rule::Later }
}

fn integer<T>(
    name: &'static str,
    range: RangeInclusive<u64>,
    set: fn(&mut T, u64),
    get: fn(&T) -> Option<u64>,
) -> Key<T> {
    Key { name, rule: Rule::Integer { range, set, get } }
}

fn text<T>(
    name: &'static str,
    set: fn(&mut T, &str, &Path) -> Result<(), String>,
    get: fn(&T) -> Option<String>,
) -> Key<T> {
    Key { name, rule: Rule::Text { set, get } }
}

/// Numbers were checked against a range that fits the target.
fn narrow<N: TryFrom<u64>>(value: u64) -> N {
    N::try_from(value).ok().expect("the key's range fits its type")
}

/// The keys outside of `models`.
pub(super) fn top_keys() -> Vec<Key<Settings>> {
    vec![
        integer(
            "cpu_workers",
            0..=1024,
            |s, v| s.cpu_workers = narrow(v),
            |s| Some(s.cpu_workers as u64),
        ),
        text(
            "device_preference",
            |s, value, _| device(value).map(|device| s.device_preference = device),
            |s| Some(s.device_preference.as_str().into()),
        ),
        text(
            "segments.backend",
            |s, value, _| {
                s.segments.backend = match value {
                    "memfd" => SegmentBackend::Memfd,
                    "posix" => SegmentBackend::Posix,
                    _ => return Err("use \"memfd\" or \"posix\"".into()),
                };
                Ok(())
            },
            |s| Some(s.segments.backend.to_string()),
        ),
        integer(
            "segments.inline_kib",
            0..=1024,
            |s, v| s.segments.inline_bytes = narrow(v * KIB),
            |s| Some(u64::from(s.segments.inline_bytes) / KIB),
        ),
        integer(
            "segments.credit_mib",
            4..=65_536,
            |s, v| s.segments.credit_bytes = v * MIB,
            |s| Some(s.segments.credit_bytes / MIB),
        ),
        integer(
            "segments.total_mib",
            4..=1_048_576,
            |s, v| s.segments.total_bytes = v * MIB,
            |s| Some(s.segments.total_bytes / MIB),
        ),
        integer(
            "segments.wait_ms",
            0..=MS_PER_DAY,
            |s, v| s.segments.wait = Duration::from_millis(v),
            |s| Some(millis(s.segments.wait)),
        ),
        integer(
            "segments.idle_seconds",
            1..=MS_PER_DAY / 1000,
            |s, v| s.segments.idle = Duration::from_secs(v),
            |s| Some(s.segments.idle.as_secs()),
        ),
        integer(
            "limits.connections",
            1..=100_000,
            |s, v| s.limits.connections = narrow(v),
            |s| Some(s.limits.connections as u64),
        ),
        integer(
            "limits.leases",
            1..=1_000_000,
            |s, v| s.limits.leases = narrow(v),
            |s| Some(u64::from(s.limits.leases)),
        ),
        integer(
            "limits.requests_in_flight",
            1..=4096,
            |s, v| s.limits.requests_in_flight = narrow(v),
            |s| Some(u64::from(s.limits.requests_in_flight)),
        ),
        integer(
            "limits.handshake_ms",
            1..=MS_PER_DAY,
            |s, v| s.limits.handshake = Duration::from_millis(v),
            |s| Some(millis(s.limits.handshake)),
        ),
        integer(
            "limits.drain_seconds",
            0..=MS_PER_DAY / 1000,
            |s, v| s.limits.drain = Duration::from_secs(v),
            |s| Some(s.limits.drain.as_secs()),
        ),
        later("gpu_memory_fraction"),
        later("allow_gpu_growth"),
        later("sharing.enabled"),
        later("sharing.max_shared_models"),
        later("sharing.unload_after_seconds"),
        later("sharing.reference_counting"),
        later("embedding_cache.enabled"),
        later("embedding_cache.max_cache_size"),
        later("embedding_cache.ttl_seconds"),
        later("embedding_cache.persist_to_disk"),
    ]
}

/// The keys below `models.<id>.`.
pub(super) fn model_keys() -> Vec<Key<ModelSettings>> {
    vec![
        // Checked against the types that the program knows, by the reader of the file.
        text(
            "type",
            |m, value, _| {
                value.clone_into(&mut m.model_type);
                Ok(())
            },
            |m| Some(m.model_type.clone()),
        ),
        text(
            "name",
            |m, value, _| {
                if value == BUILTIN_STATIC {
                    m.source = ModelSource::Builtin(value.into());
                    return Ok(());
                }
                Err(format!(
                    "fetching a model by its hub name is not yet acted on by this version: leave it \
                     out and give models.<id>.local_path, or name \"{BUILTIN_STATIC}\""
                ))
            },
            |m| match &m.source {
                ModelSource::Builtin(name) => Some(name.clone()),
                ModelSource::Folder(_) => None,
            },
        ),
        text(
            "local_path",
            |m, value, base| {
                if value.is_empty() {
                    return Err("give the folder that holds the model".into());
                }
                m.source = ModelSource::Folder(base.join(value));
                Ok(())
            },
            |m| match &m.source {
                ModelSource::Folder(path) => Some(path.display().to_string()),
                ModelSource::Builtin(_) => None,
            },
        ),
        text(
            "device",
            |m, value, _| device(value).map(|device| m.device = device),
            |m| Some(m.device.as_str().into()),
        ),
        integer(
            "dimension",
            1..=1_000_000,
            |m, v| m.dimension = Some(narrow(v)),
            |m| m.dimension.map(|d| d as u64),
        ),
        integer(
            "batch_size",
            1..=65_536,
            |m, v| m.batch_size = narrow(v),
            |m| Some(m.batch_size as u64),
        ),
        later("shared"),
        later("cache_embeddings"),
        later("max_input_length"),
        later("max_output_length"),
    ]
}

/// Every key with its value and origin.
pub(super) fn lines(settings: &Settings) -> Vec<KeyLine> {
    let mut lines = Vec::new();
    let mut push = |key: String, value: Option<String>| {
        if let Some(value) = value {
            let origin = settings.origins.get(&key).cloned().unwrap_or(Origin::Default);
            lines.push(KeyLine { key, value, origin });
        }
    };
    for key in top_keys() {
        push(key.name.to_owned(), value(&key.rule, settings));
    }
    for (id, model) in &settings.models {
        for key in model_keys() {
            push(format!("models.{id}.{}", key.name), value(&key.rule, model));
        }
    }
    lines.sort_by(|a, b| a.key.cmp(&b.key));
    lines
}

fn value<T>(rule: &Rule<T>, target: &T) -> Option<String> {
    match rule {
        Rule::Integer { get, .. } => get(target).map(|number| number.to_string()),
        Rule::Text { get, .. } => get(target).map(|text| toml::Value::String(text).to_string()),
        Rule::Later => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn device(value: &str) -> Result<DeviceChoice, String> {
    match value {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        _ => Err("this version computes on the CPU: use \"auto\" or \"cpu\"".into()),
    }
}
