//! Every key there is: its range, and where its value lives.

use crate::settings::{
    AccessGroup, DeviceChoice, EMBEDDING_TYPE, ModelSettings, RERANK_TYPE, Settings, TEXT2TEXT_TYPE,
};
use emberd_engine::WeightType;
use emberd_protocol::SegmentBackend;
use nix::unistd::Group;
use std::collections::BTreeMap;
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
    /// An environment variable.
    Variable(String),
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
            Self::Variable(name) => f.write_str(name),
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

impl KeyLine {
    /// Its value as JSON.
    #[must_use]
    pub fn json_value(&self) -> serde_json::Value {
        let line = format!("value = {}", self.value);
        let read = toml::from_str::<BTreeMap<String, serde_json::Value>>(&line);
        let value = read.ok().and_then(|mut line| line.remove("value"));
        value.unwrap_or_else(|| self.value.clone().into())
    }

    /// The key as it stands in a file: an id with dots is in quotes.
    #[must_use]
    pub fn toml_key(&self) -> String {
        toml_key(&self.key)
    }
}

/// A key as it stands in a file: an id with dots is in quotes.
pub(super) fn toml_key(key: &str) -> String {
    let of_model = key.strip_prefix("models.").and_then(|rest| rest.rsplit_once('.'));
    match of_model {
        Some((id, own)) if id.contains('.') => format!("models.\"{id}\".{own}"),
        _ => key.to_owned(),
    }
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
    /// Yes or no.
    Flag { set: fn(&mut T, bool), get: fn(&T) -> bool },
    /// A number above the start of the range, up to its end.
    Fraction { range: (f64, f64), set: fn(&mut T, f64), get: fn(&T) -> f64 },
}

impl<T> Rule<T> {
    /// Whether values are texts.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Ten years: for ever, and yet a moment that can be told.
const MOST_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;

fn flag<T>(name: &'static str, set: fn(&mut T, bool), get: fn(&T) -> bool) -> Key<T> {
    Key { name, rule: Rule::Flag { set, get } }
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
            |s| Some(s.device_preference.to_string()),
        ),
        text(
            "access.group",
            |s, value, _| match Group::from_name(value) {
                Ok(Some(group)) => {
                    s.access = Some(AccessGroup { name: group.name, gid: group.gid.as_raw() });
                    Ok(())
                }
                _ => Err("give the name of a group of this machine".into()),
            },
            |s| s.access.as_ref().map(|group| group.name.clone()),
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
        Key {
            name: "gpu_memory_fraction",
            rule: Rule::Fraction {
                range: (0.0, 1.0),
                set: |s, v| s.gpu_memory_fraction = v,
                get: |s| s.gpu_memory_fraction,
            },
        },
        flag("allow_gpu_growth", |s, v| s.allow_gpu_growth = v, |s| s.allow_gpu_growth),
        flag("sharing.enabled", |s, v| s.sharing.enabled = v, |s| s.sharing.enabled),
        integer(
            "sharing.max_shared_models",
            1..=100_000,
            |s, v| s.sharing.max_shared_models = narrow(v),
            |s| Some(s.sharing.max_shared_models as u64),
        ),
        integer(
            "sharing.unload_after_seconds",
            0..=MOST_SECONDS,
            |s, v| s.sharing.unload_after = Duration::from_secs(v),
            |s| Some(s.sharing.unload_after.as_secs()),
        ),
        flag(
            "sharing.reference_counting",
            |s, v| s.sharing.reference_counting = v,
            |s| s.sharing.reference_counting,
        ),
        flag("embedding_cache.enabled", |s, v| s.cache.enabled = v, |s| s.cache.enabled),
        integer(
            "embedding_cache.max_cache_size",
            1..=100_000_000,
            |s, v| s.cache.max_entries = narrow(v),
            |s| Some(s.cache.max_entries as u64),
        ),
        integer(
            "embedding_cache.ttl_seconds",
            1..=MOST_SECONDS,
            |s, v| s.cache.ttl = Duration::from_secs(v),
            |s| Some(s.cache.ttl.as_secs()),
        ),
        flag("embedding_cache.persist_to_disk", |s, v| s.cache.persists = v, |s| s.cache.persists),
        text(
            "embedding_cache.file",
            |s, value, base| {
                if value.is_empty() {
                    return Err("give the file that rows are kept in".into());
                }
                s.cache.file = Some(base.join(value));
                Ok(())
            },
            |s| s.cache.file.as_ref().map(|path| path.display().to_string()),
        ),
        flag(
            "embedding_cache.shared_between_users",
            |s, v| s.cache.is_shared_between_users = v,
            |s| s.cache.is_shared_between_users,
        ),
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
                check_name(value)?;
                m.name = Some(value.into());
                Ok(())
            },
            |m| m.name.clone(),
        ),
        text(
            "revision",
            |m, value, _| {
                if !crate::hub::is_revision(value) {
                    return Err("give a branch, a tag or a commit of the model's repository".into());
                }
                value.clone_into(&mut m.revision);
                Ok(())
            },
            |m| Some(m.revision.clone()),
        ),
        text(
            "local_path",
            |m, value, base| {
                if value.is_empty() {
                    return Err("give the folder that holds the model".into());
                }
                if value.starts_with("builtin:") {
                    return Err("a built-in model is in no folder: give it as the name".into());
                }
                m.local_path = Some(base.join(value));
                Ok(())
            },
            |m| m.local_path.as_ref().map(|path| path.display().to_string()),
        ),
        text(
            "device",
            |m, value, _| device(value).map(|device| m.device = device),
            |m| Some(m.device.to_string()),
        ),
        text(
            "dtype",
            |m, value, _| weight_type(value).map(|dtype| m.dtype = dtype),
            |m| Some(weight_type_name(m.dtype).to_owned()),
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
        flag("shared", |m, v| m.shared = v, |m| m.shared),
        flag("cache_embeddings", |m, v| m.cache_embeddings = v, |m| m.cache_embeddings),
        integer(
            "max_input_length",
            1..=1_000_000,
            |m, v| m.max_input_length = narrow(v),
            |m| Some(m.max_input_length as u64),
        ),
        integer(
            "max_output_length",
            1..=1_000_000,
            |m, v| m.max_output_length = narrow(v),
            |m| Some(m.max_output_length as u64),
        ),
    ]
}

/// Whether a key below `models.<id>.` means anything for a type of model.
pub(super) fn concerns(key: &str, model_type: &str) -> bool {
    match key {
        "dtype" => model_type != TEXT2TEXT_TYPE,
        "dimension" | "cache_embeddings" => ![RERANK_TYPE, TEXT2TEXT_TYPE].contains(&model_type),
        "max_input_length" | "max_output_length" => {
            ![EMBEDDING_TYPE, RERANK_TYPE].contains(&model_type)
        }
        _ => true,
    }
}

/// Every key with its value and origin, but for those that have none.
pub(super) fn lines(settings: &Settings) -> Vec<KeyLine> {
    let line = |(key, value): (String, Option<String>)| {
        let origin = settings.origins.get(&key).cloned().unwrap_or(Origin::Default);
        Some(KeyLine { key, value: value?, origin })
    };
    let mut lines: Vec<_> = all(settings).into_iter().filter_map(line).collect();
    lines.sort_by(|a, b| a.key.cmp(&b.key));
    lines
}

/// The keys that have no value.
pub(super) fn unset(settings: &Settings) -> Vec<String> {
    let is_unset = |(key, value): (String, Option<String>)| value.is_none().then(|| toml_key(&key));
    let mut keys: Vec<_> = all(settings).into_iter().filter_map(is_unset).collect();
    keys.sort();
    keys
}

fn all(settings: &Settings) -> Vec<(String, Option<String>)> {
    let top = top_keys().into_iter();
    let mut all: Vec<_> =
        top.map(|key| (key.name.to_owned(), value(&key.rule, settings))).collect();
    for (id, model) in &settings.models {
        let own = model_keys().into_iter().filter(|key| concerns(key.name, &model.model_type));
        all.extend(own.map(|key| (format!("models.{id}.{}", key.name), value(&key.rule, model))));
    }
    all
}

fn value<T>(rule: &Rule<T>, target: &T) -> Option<String> {
    match rule {
        Rule::Integer { get, .. } => get(target).map(|number| number.to_string()),
        Rule::Text { get, .. } => get(target).map(|text| toml::Value::String(text).to_string()),
        Rule::Flag { get, .. } => Some(get(target).to_string()),
        Rule::Fraction { get, .. } => Some(format!("{:?}", get(target))),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn weight_type(value: &str) -> Result<WeightType, String> {
    let types = [WeightType::F32, WeightType::Bf16];
    let found = types.into_iter().find(|dtype| weight_type_name(*dtype) == value);
    found.ok_or_else(|| "use \"f32\" or \"bf16\"".into())
}

fn weight_type_name(dtype: WeightType) -> &'static str {
    match dtype {
        WeightType::F32 => "f32",
        WeightType::Bf16 => "bf16",
    }
}

fn device(value: &str) -> Result<DeviceChoice, String> {
    value
        .parse()
        .map_err(|()| "use \"auto\", \"gpu\", \"cpu\", or one GPU such as \"cuda:0\"".into())
}

/// A name that can be one on the hub, or of a model in the program.
fn check_name(name: &str) -> Result<(), String> {
    if name.strip_prefix("builtin:").is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    let is_part = |part: &str| {
        let is_sound = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        !part.is_empty()
            && part.chars().all(is_sound)
            && !part.contains("..")
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_part(part)) {
        return Ok(());
    }
    Err("give a name on the hub, such as \"sentence-transformers/all-MiniLM-L6-v2\"".into())
}
