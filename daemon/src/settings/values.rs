//! All settings, as values.

use crate::cache::CacheSettings;
use crate::ground::device::DeviceChoice;
use crate::settings::builtin::{BUILTINS, Builtin, DEFAULT_EMBEDDING, DEFAULT_SUMMARIZER};
use crate::settings::model::ModelSettings;
use crate::settings::model_type::ModelType;
use crate::settings::origin::Origin;
use emberd_protocol::{ModelId, SegmentBackend};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All settings of the daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The models, by id.
    pub models: BTreeMap<ModelId, ModelSettings>,
    /// Threads that compute for one model on the CPU; 0: one for each core.
    pub cpu_workers: usize,
    /// The devices of models without a device of their own.
    pub device_preference: DeviceChoice,
    /// The share of a GPU's memory that models may take.
    pub gpu_memory_fraction: f64,
    /// Whether a GPU's memory is taken when models need it; otherwise the whole share at the start.
    pub allow_gpu_growth: bool,
    /// Which models are shared, and for how long.
    pub sharing: SharingSettings,
    /// The group whose members may use the daemon, in addition to its own user and root.
    pub access: Option<AccessGroup>,
    /// Shared memory.
    pub segments: SegmentSettings,
    /// The embedding cache.
    pub cache: CacheSettings,
    /// The limits of clients.
    pub limits: LimitSettings,
    /// The origin of each key that was set; the other keys have their defaults.
    pub(super) origins: BTreeMap<String, Origin>,
}

/// Which models are shared, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharingSettings {
    /// Whether models are shared at all.
    pub enabled: bool,
    /// Shared models in memory at once.
    pub max_shared_models: usize,
    /// A shared model that is neither held nor used is unloaded after this time.
    pub unload_after: Duration,
    /// Whether a lease keeps its model in memory.
    pub reference_counting: bool,
}

/// A group of users of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessGroup {
    /// Name of the group.
    pub name: String,
    /// Number of the group in the system.
    pub gid: u32,
}

/// Shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSettings {
    /// How segments are created.
    pub backend: SegmentBackend,
    /// Results up to this size are sent inline.
    pub inline_bytes: u32,
    /// Result memory that one connection may hold.
    pub credit_bytes: u64,
    /// Memory that all segments of all connections may take.
    pub total_bytes: u64,
    /// How long a result waits for memory before it fails.
    pub wait: Duration,
    /// An unused segment is removed after this time.
    pub idle: Duration,
}

/// The limits of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections at the same time.
    pub connections: usize,
    /// Leases of one connection.
    pub leases: u32,
    /// Unanswered requests of one connection.
    pub requests_in_flight: u32,
    /// How long a connection may take for its handshake.
    pub handshake: Duration,
    /// How long running work may take to end when the daemon stops.
    pub drain: Duration,
}

impl Settings {
    /// The defaults, with the built-in models alone.
    #[must_use]
    pub fn without_models() -> Self {
        let builtin = |Builtin { id, name, model_type }: Builtin| {
            let settings =
                ModelSettings { model_type, name: Some(name.into()), ..ModelSettings::default() };
            Some((ModelId::new(id).ok()?, settings))
        };
        Self {
            models: BUILTINS.into_iter().filter_map(builtin).collect(),
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

    /// Adds an embedding model in a folder, as `emberd serve --model ID=FOLDER` does.
    pub fn add_folder_model(&mut self, id: ModelId, folder: PathBuf) {
        let model = ModelSettings {
            model_type: ModelType::Embedding,
            local_path: Some(folder),
            ..ModelSettings::default()
        };
        for key in ["type", "local_path"] {
            self.origins.insert(format!("models.{id}.{key}"), Origin::CommandLine);
        }
        self.models.insert(id, model);
    }

    /// Makes relative paths absolute, below this folder. Paths in a file are already absolute.
    pub fn resolve_paths(&mut self, folder: &Path) {
        let of_models = self.models.values_mut().filter_map(|model| model.local_path.as_mut());
        for path in of_models.chain(self.cache.file.as_mut()) {
            *path = folder.join(&*path);
        }
    }

    /// The number of workers of a model on the CPU: as set, or one for each core.
    #[must_use]
    pub fn effective_cpu_workers(&self) -> usize {
        match self.cpu_workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }

    /// Whether any model may use a GPU.
    #[must_use]
    pub(crate) fn wants_gpus(&self) -> bool {
        self.models.values().any(|model| match model.device {
            DeviceChoice::Auto => self.device_preference.allows_gpus(),
            choice => choice.allows_gpus(),
        })
    }
}

impl Default for Settings {
    /// The settings without a file: the built-in models, and one model for embeddings and one for
    /// summaries, both from the hub.
    fn default() -> Self {
        let mut settings = Self::without_models();
        let id = |id| ModelId::new(id).expect("the constant is a model id");
        let embedding = ModelSettings {
            model_type: ModelType::Embedding,
            name: Some(DEFAULT_EMBEDDING.into()),
            dimension: Some(1024),
            ..ModelSettings::default()
        };
        let summarizer = ModelSettings {
            model_type: ModelType::Text2Text,
            name: Some(DEFAULT_SUMMARIZER.into()),
            device: DeviceChoice::Cpu,
            ..ModelSettings::default()
        };
        settings.models.insert(id("embedding"), embedding);
        settings.models.insert(id("t5_summarizer"), summarizer);
        settings
    }
}
