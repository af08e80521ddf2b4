//! What the daemon is told to do: a TOML file of flat keys, checked before anything runs.
//!
//! Dotted keys (`models.minilm.type = "embedding"`) and tables (`[models.minilm]`) mean the same.
//! Nothing is ignored: a key that does not exist, a value that cannot be, and a key of a later
//! version are all refused, with the file, the line and what would be right, all at once.

mod file;
mod table;

pub use file::{Problem, SettingsError};
pub use table::{KeyLine, Origin};

use crate::cache::CacheSettings;
use emberd_protocol::{ModelId, SegmentBackend};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The id under which the built-in model is always offered.
pub const BUILTIN_ID: &str = "builtin";

/// The name of the built-in embedding model.
pub const BUILTIN_STATIC: &str = "builtin:static-minilm";

/// The type of models that turn texts into rows.
pub const EMBEDDING_TYPE: &str = "embedding";

/// Everything the daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The models, by id.
    pub models: BTreeMap<ModelId, ModelSettings>,
    /// Threads that compute for one model on the CPU.
    pub cpu_workers: usize,
    /// Where models compute that do not say it themselves.
    pub device_preference: DeviceChoice,
    /// Shared memory.
    pub segments: SegmentSettings,
    /// Rows that were computed before.
    pub cache: CacheSettings,
    /// Bounds on clients.
    pub limits: LimitSettings,
    /// What was set, and where; the rest are defaults.
    origins: BTreeMap<String, Origin>,
}

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// Where there is room.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
}

impl DeviceChoice {
    /// As settings spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
        }
    }
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// What it is: `embedding`, or a type that the program registered.
    pub model_type: String,
    /// Where its files are.
    pub source: ModelSource,
    /// Where it computes. This version has the CPU alone.
    pub device: DeviceChoice,
    /// Values in a row, if fewer than the model has.
    pub dimension: Option<usize>,
    /// Texts computed together, at most.
    pub batch_size: usize,
    /// Whether its rows are kept for those who ask again, if there is a cache.
    pub cache_embeddings: bool,
}

/// Where a model's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// Inside the program.
    Builtin(String),
    /// A folder.
    Folder(PathBuf),
}

/// Shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSettings {
    /// How segments are made.
    pub backend: SegmentBackend,
    /// Results up to this size come inline.
    pub inline_bytes: u32,
    /// What one connection may hold unfreed.
    pub credit_bytes: u64,
    /// What all segments of all connections may take.
    pub total_bytes: u64,
    /// How long a result waits for freed memory before it fails.
    pub wait: Duration,
    /// A segment that nobody uses is given up after this time.
    pub idle: Duration,
}

/// Bounds on clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections at the same time.
    pub connections: usize,
    /// Leases of one connection.
    pub leases: u32,
    /// Requests of one connection that are not answered yet.
    pub requests_in_flight: u32,
    /// How long a connection may take to say hello.
    pub handshake: Duration,
    /// How long running work may take to end when the daemon stops.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let builtin = ModelSettings {
            model_type: EMBEDDING_TYPE.into(),
            source: ModelSource::Builtin(BUILTIN_STATIC.into()),
            ..ModelSettings::default()
        };
        let id = ModelId::new(BUILTIN_ID).expect("the constant is a model id");
        Self {
            models: BTreeMap::from([(id, builtin)]),
            cpu_workers: 0,
            device_preference: DeviceChoice::Auto,
            segments: SegmentSettings {
                backend: SegmentBackend::Memfd,
                inline_bytes: 32 << 10,
                credit_bytes: 256 << 20,
                total_bytes: 1 << 30,
                wait: Duration::from_secs(2),
                idle: Duration::from_secs(30),
            },
            cache: CacheSettings::default(),
            limits: LimitSettings {
                connections: 1024,
                leases: 1024,
                requests_in_flight: 64,
                handshake: Duration::from_secs(10),
                drain: Duration::from_secs(30),
            },
            origins: BTreeMap::new(),
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            model_type: String::new(),
            source: ModelSource::Folder(PathBuf::new()),
            device: DeviceChoice::Auto,
            dimension: None,
            batch_size: 32,
            cache_embeddings: true,
        }
    }
}

impl Settings {
    /// Reads a settings file over the defaults. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong in it, at once.
    pub fn read(path: &Path, custom_types: &[String]) -> Result<Self, SettingsError> {
        file::read(path, custom_types)
    }

    /// Checks the text of a settings file; `path` is named in errors, and paths in the text are
    /// relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong in it, at once.
    pub fn parse(text: &str, path: &Path, custom_types: &[String]) -> Result<Self, SettingsError> {
        file::parse(text, path, custom_types)
    }

    /// Adds an embedding model in a folder, as `emberd serve --model ID=FOLDER` does.
    pub fn add_folder_model(&mut self, id: ModelId, folder: PathBuf) {
        let model = ModelSettings {
            model_type: EMBEDDING_TYPE.into(),
            source: ModelSource::Folder(folder),
            ..ModelSettings::default()
        };
        for key in ["type", "local_path"] {
            self.origins.insert(format!("models.{id}.{key}"), Origin::CommandLine);
        }
        self.models.insert(id, model);
    }

    /// Every key, its value, and where it came from, ordered by key.
    #[must_use]
    pub fn lines(&self) -> Vec<KeyLine> {
        table::lines(self)
    }

    /// The keys of one model without their `models.<id>.`, and their values as TOML.
    #[must_use]
    pub fn model_lines(&self, id: &ModelId) -> Vec<(String, String)> {
        let prefix = format!("models.{id}.");
        let own = |line: KeyLine| Some((line.key.strip_prefix(&prefix)?.to_owned(), line.value));
        self.lines().into_iter().filter_map(own).collect()
    }

    /// The number of workers that a model on the CPU gets: as set, or one for each core.
    #[must_use]
    pub fn effective_cpu_workers(&self) -> usize {
        match self.cpu_workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

impl std::fmt::Display for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Builtin(name) => f.write_str(name),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}
