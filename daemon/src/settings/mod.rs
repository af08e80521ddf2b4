//! What the daemon is told to do: a TOML file of flat keys, checked before anything runs.
//!
//! Dotted keys (`models.minilm.type = "embedding"`) and tables (`[models.minilm]`) mean the same.
//! Nothing is ignored: a key that does not exist and a value that cannot be are refused, with the
//! file, the line and what would be right, all at once.

pub(crate) mod file;
pub(crate) mod reload;
pub(crate) mod table;

use crate::models::scheduler::Change;
pub use crate::models::scheduler::DeviceChoice;
pub use crate::settings::file::{Problem, SettingsError};
pub use crate::settings::table::{KeyLine, Origin};

use crate::cache::CacheSettings;
pub use emberd_engine::WeightType;
use emberd_protocol::{ModelId, SegmentBackend};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The id under which the built-in embedding model is always offered.
pub const BUILTIN_ID: &str = "builtin";

/// The id under which the built-in model that makes texts is always offered.
pub const BUILTIN_TEXT_ID: &str = "builtin-t5";

/// The name of the built-in embedding model.
pub const BUILTIN_STATIC: &str = "builtin:static-minilm";

/// The name of the built-in model that makes texts.
pub const BUILTIN_VERBALIZER: &str = "builtin:verbalizer-t5";

/// The models inside the program: the id under which each is always offered, its name and its type.
pub(crate) const BUILTINS: [(&str, &str, &str); 2] = [
    (BUILTIN_ID, BUILTIN_STATIC, EMBEDDING_TYPE),
    (BUILTIN_TEXT_ID, BUILTIN_VERBALIZER, TEXT2TEXT_TYPE),
];

/// Whether an id is that of a model inside the program.
#[must_use]
pub fn is_builtin_id(id: &str) -> bool {
    BUILTINS.iter().any(|(builtin, ..)| *builtin == id)
}

/// The id under which the built-in model of this name, such as `builtin:static-minilm`, is offered.
#[must_use]
pub fn builtin_id(name: &str) -> Option<&'static str> {
    BUILTINS.iter().find(|(_, builtin, _)| *builtin == name).map(|(id, ..)| *id)
}

/// The type of models that turn texts into rows.
pub const EMBEDDING_TYPE: &str = "embedding";

/// The type of models that score pairs of texts.
pub const RERANK_TYPE: &str = "rerank";

/// The type of models that turn texts into texts, or fill masks in them.
pub const TEXT2TEXT_TYPE: &str = "text2text";

/// The hub name of the model that is `embedding` where no file says otherwise.
pub const DEFAULT_EMBEDDING: &str = "mixedbread-ai/mxbai-embed-large-v1";

/// Everything the daemon is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The models, by id.
    pub models: BTreeMap<ModelId, ModelSettings>,
    /// Threads that compute for one model on the CPU.
    pub cpu_workers: usize,
    /// Where models compute that do not say it themselves.
    pub device_preference: DeviceChoice,
    /// The share of a GPU's memory that models may take.
    pub gpu_memory_fraction: f64,
    /// Whether a GPU's memory is taken when it is needed; else all of the share at the start.
    pub allow_gpu_growth: bool,
    /// Who shares what, and for how long.
    pub sharing: SharingSettings,
    /// Whose members may use the daemon beside its own user and root.
    pub access: Option<AccessGroup>,
    /// Shared memory.
    pub segments: SegmentSettings,
    /// Rows that were computed before.
    pub cache: CacheSettings,
    /// Bounds on clients.
    pub limits: LimitSettings,
    /// What was set, and where; the rest are defaults.
    origins: BTreeMap<String, Origin>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// What it is: `embedding`, `rerank`, `text2text`, or a type that the program registered.
    pub model_type: String,
    /// Its name on the hub, or `builtin:…`.
    pub name: Option<String>,
    /// Which revision on the hub: a branch, a tag or a commit.
    pub revision: String,
    /// A folder with its files; taken first if it holds the model.
    pub local_path: Option<PathBuf>,
    /// Where it computes.
    pub device: DeviceChoice,
    /// As what its weights are held in memory on the CPU (embedding, rerank).
    pub dtype: WeightType,
    /// Whether all who use it share one copy; else each lease has its own.
    pub shared: bool,
    /// Values in a row, if fewer than the model has.
    pub dimension: Option<usize>,
    /// Texts computed together, at most; of a text2text model answers and beams.
    pub batch_size: usize,
    /// Whether its rows are kept in the embedding cache.
    pub cache_embeddings: bool,
    /// Tokens of an input that are used (text2text).
    pub max_input_length: usize,
    /// Tokens of an output (text2text).
    pub max_output_length: usize,
}

/// Who shares what, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharingSettings {
    /// Whether models are shared at all.
    pub enabled: bool,
    /// Shared models in memory at once.
    pub max_shared_models: usize,
    /// A shared model that nobody holds or uses leaves the memory after this time.
    pub unload_after: Duration,
    /// Whether a lease keeps its model in memory.
    pub reference_counting: bool,
}

/// A group of users of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessGroup {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
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
    /// What is in force where no file says otherwise: the built-in models, one for embeddings and one
    /// for summaries, both from the hub.
    fn default() -> Self {
        let mut settings = Self::without_models();
        let id = |id| ModelId::new(id).expect("the constant is a model id");
        let embedding = ModelSettings {
            model_type: EMBEDDING_TYPE.into(),
            name: Some(DEFAULT_EMBEDDING.into()),
            dimension: Some(1024),
            ..ModelSettings::default()
        };
        let summarizer = ModelSettings {
            model_type: TEXT2TEXT_TYPE.into(),
            name: Some("google/flan-t5-large".into()),
            device: DeviceChoice::Cpu,
            ..ModelSettings::default()
        };
        settings.models.insert(id("embedding"), embedding);
        settings.models.insert(id("t5_summarizer"), summarizer);
        settings
    }
}

impl Settings {
    /// The defaults, with the built-in models alone.
    #[must_use]
    pub fn without_models() -> Self {
        let builtin = |(id, name, model_type): &(&str, &str, &str)| {
            let settings = ModelSettings {
                model_type: (*model_type).into(),
                name: Some((*name).into()),
                ..ModelSettings::default()
            };
            Some((ModelId::new(*id).ok()?, settings))
        };
        let models = BUILTINS.iter().filter_map(builtin).collect();
        Self {
            models,
            cpu_workers: 0,
            device_preference: DeviceChoice::Auto,
            gpu_memory_fraction: 0.8,
            allow_gpu_growth: true,
            sharing: SharingSettings {
                enabled: true,
                max_shared_models: 5,
                unload_after: Duration::from_secs(1800),
                reference_counting: true,
            },
            access: None,
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

impl ModelSettings {
    /// Whether it is a part of the program.
    #[must_use]
    pub fn is_builtin(&self) -> bool {
        self.local_path.is_none()
            && self.name.as_deref().is_some_and(|name| name.starts_with("builtin:"))
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            model_type: String::new(),
            name: None,
            revision: "main".into(),
            local_path: None,
            device: DeviceChoice::Auto,
            dtype: WeightType::F32,
            shared: true,
            dimension: None,
            batch_size: 32,
            cache_embeddings: true,
            max_input_length: 512,
            max_output_length: 128,
        }
    }
}

impl ModelSettings {
    /// Where its files come from, for people; before they were looked for, either place.
    #[must_use]
    pub fn source(&self) -> String {
        match (&self.local_path, &self.name) {
            (Some(path), Some(name)) => format!("{}, else {name}", path.display()),
            (Some(path), None) => path.display().to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => String::new(),
        }
    }

    /// What becomes other if these are in force instead.
    #[must_use]
    pub(crate) fn change_to(&self, new: &Self) -> Change {
        let source = |settings: &Self| {
            (settings.name.clone(), settings.revision.clone(), settings.local_path.clone())
        };
        if self == new {
            Change::None
        } else if source(self) == source(new) {
            Change::Settings
        } else {
            Change::Source
        }
    }
}

impl Settings {
    /// Whether a model may be on a GPU.
    #[must_use]
    pub(crate) fn wants_gpus(&self) -> bool {
        self.models.values().any(|model| match model.device {
            DeviceChoice::Auto => self.device_preference.allows_gpus(),
            choice => choice.allows_gpus(),
        })
    }

    /// Reads a settings file and environment variables over the defaults, the variables over the
    /// file. Paths in a file are relative to its folder.
    ///
    /// A variable is named after its key: `EMBERD_SHARING__MAX_SHARED_MODELS`, with two underscores
    /// for each dot; the id of a model stands as it is (`EMBERD_MODELS__minilm__DEVICE`).
    ///
    /// # Errors
    /// Everything that is wrong in them, at once.
    pub fn read(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        custom_types: &[String],
    ) -> Result<Self, SettingsError> {
        file::read(path, variables, custom_types)
    }

    /// Checks the text of a settings file; `path` is named in errors, and paths in the text are
    /// relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong in it, at once.
    pub fn parse(text: &str, path: &Path, custom_types: &[String]) -> Result<Self, SettingsError> {
        file::parse(Some((text, path)), [], custom_types)
    }

    /// Adds an embedding model in a folder, as `emberd serve --model ID=FOLDER` does.
    pub fn add_folder_model(&mut self, id: ModelId, folder: PathBuf) {
        let model = ModelSettings {
            model_type: EMBEDDING_TYPE.into(),
            local_path: Some(folder),
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

    /// The keys that have no value, ordered and as they stand in a file.
    #[must_use]
    pub fn unset(&self) -> Vec<String> {
        table::unset(self)
    }

    /// Makes relative paths absolute, as seen from a folder. Those of a file are seen from its own.
    pub fn resolve_paths(&mut self, here: &Path) {
        let of_models = self.models.values_mut().filter_map(|model| model.local_path.as_mut());
        for path in of_models.chain(self.cache.file.as_mut()) {
            *path = here.join(&*path);
        }
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
