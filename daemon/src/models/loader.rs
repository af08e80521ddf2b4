//! From a model's settings to a model in memory.

pub(crate) mod known;

use crate::hub::{Hub, HubError, HubProgress, HubSettings};
use crate::models::loaded::Place;
use crate::models::loader::known::Known;
use crate::models::scheduler::Device;
use crate::settings::{BUILTIN_STATIC, BUILTIN_VERBALIZER, ModelSettings};
use emberd_engine::ModelParts;
use emberd_engine::Need;
use emberd_engine::{DeviceMemory, LoadError, is_out_of_memory};
use emberd_protocol::{Event, ModelId};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What a registered loader may fail with.
pub type CustomError = Box<dyn std::error::Error + Send + Sync>;

type CustomLoader =
    dyn Fn(&ModelId, &ModelSettings) -> Result<ModelParts, CustomError> + Send + Sync;

/// The model types that can be loaded: those that are [`Known`], and those that the program
/// registered.
#[derive(Default)]
pub(crate) struct Loaders {
    custom: BTreeMap<String, Box<CustomLoader>>,
    hub: Option<Hub>,
    /// What of the hub is here already.
    hub_cache: Option<Hub>,
}

/// Why a model could not be brought up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadFailure {
    /// Its files cannot be used.
    #[error(transparent)]
    Files(#[from] LoadError),
    /// The loader of a custom type failed.
    #[error("the loader of model type \"{model_type}\" failed")]
    Custom {
        /// The type.
        model_type: String,
        /// Why.
        source: CustomError,
    },
    /// The settings name a built-in model that is not there.
    #[error("there is no built-in model \"{0}\"")]
    NoSuchBuiltin(String),
    /// The settings name a type that is not there.
    #[error("no loader is registered for model type \"{0}\"")]
    NoSuchType(String),
    /// The files are those of a model of another type.
    #[error("{} holds {found}, and a model of type {model_type} is {wanted}", folder.display())]
    OfAnotherType {
        /// Where the files are.
        folder: PathBuf,
        /// What they make.
        found: String,
        /// What the settings say.
        model_type: &'static str,
        /// What such a model is.
        wanted: &'static str,
    },
    /// The settings want longer rows than the model makes.
    #[error(
        "the model's rows have {available} values, not {wanted}: give a dimension of at most \
             {available}, or none"
    )]
    Dimension {
        /// The setting.
        wanted: usize,
        /// What the model makes.
        available: usize,
    },
    /// A loader of the program's own gave a model that does nothing.
    #[error("the loader gave a model of which nothing can be asked")]
    NoMethods,
    /// The settings name no files.
    #[error("the settings name neither a folder nor a name on the hub")]
    NoSource,
    /// The program that made this daemon gave it no hub.
    #[error("\"{0}\" is a name on the hub, and this daemon was not told of one: give a local_path")]
    NoHub(String),
    /// It was asked what a load would take, and nothing may be fetched for that.
    #[error(
        "the files of \"{0}\" are not here yet, and its size is not known before: they come \
             with its first use, or with a preload"
    )]
    NotFetched(String),
    /// The hub, or the cache before it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The device had no memory for it.
    #[error("{device} has no memory for it: {said}")]
    OutOfMemory {
        /// Which device.
        device: Device,
        /// What it has, and what it said.
        said: String,
    },
    /// It was to be loaded on a device that has gone.
    #[error("{0} is not there any more")]
    NoDevice(Device),
    /// The system gave no thread.
    #[error("cannot start the model's threads")]
    Threads(#[source] std::io::Error),
    /// The loader panicked.
    #[error("the loader panicked")]
    Panicked,
}

impl LoadFailure {
    /// How long whoever refused it wants to be left alone.
    #[must_use]
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Hub(HubError::TooManyRequests { after, .. }) => Some(*after),
            _ => None,
        }
    }

    /// Whether another device may do what this one could not.
    #[must_use]
    pub(crate) fn is_of_the_device(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. } | Self::NoDevice(_))
    }
}

impl Loaders {
    /// Registers a type. A later one of the same name takes its place.
    pub(crate) fn register<F>(&mut self, model_type: impl Into<String>, loader: F)
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<ModelParts, CustomError> + Send + Sync + 'static,
    {
        self.custom.insert(model_type.into(), Box::new(loader));
    }

    /// Models may be fetched by name.
    pub(crate) fn set_hub(&mut self, settings: HubSettings) {
        let offline = HubSettings { is_offline: true, ..settings.clone() };
        self.hub_cache = Some(Hub::new(offline));
        self.hub = Some(Hub::new(settings));
    }

    /// The registered types.
    #[must_use]
    pub(crate) fn custom_types(&self) -> Vec<String> {
        self.custom.keys().cloned().collect()
    }

    /// Finds a model's files, and computes what the model takes. Reads the headers of its weights
    /// alone.
    ///
    /// # Errors
    /// When the files are not there, or cannot be used.
    pub(crate) fn prepare(
        &self,
        settings: ModelSettings,
        cpu_workers: usize,
        runtime: Option<&Handle>,
        may_fetch: bool,
        tell: &(dyn Fn(Event) + Sync + Send),
    ) -> Result<Prepared, LoadFailure> {
        let (files, source, need) = if self.custom.contains_key(&settings.model_type) {
            // What a loader of the program's own will take, only it knows: the model's card tells
            // when it is there.
            (Files::Own, settings.source(), Need::default())
        } else {
            let known = Known::of(&settings.model_type)?;
            let (files, source) =
                self.find(known, &settings, cpu_workers, runtime, may_fetch, tell)?;
            let need = known.need(&files, cpu_workers, settings.dtype)?;
            (files, source, need)
        };
        Ok(Prepared { files, need, source, settings: Arc::new(settings) })
    }

    /// Finds a model's files, and tells where; fetches them if need be, and if it may.
    fn find(
        &self,
        known: Known,
        settings: &ModelSettings,
        cpu_workers: usize,
        runtime: Option<&Handle>,
        may_fetch: bool,
        tell: &(dyn Fn(Event) + Sync + Send),
    ) -> Result<(Files, String), LoadFailure> {
        match (&settings.local_path, &settings.name) {
            (Some(folder), Some(name)) if !known.is_in(folder) => {
                let files = Files::Folder(folder.clone());
                let fault = known.need(&files, cpu_workers, settings.dtype).err();
                let fault = fault.as_ref().map(|fault| crate::request::failure::chain(fault));
                tracing::warn!(
                    folder = %folder.display(),
                    fault,
                    "local_path does not hold the model: \"{name}\" is taken by its name"
                );
            }
            (Some(folder), _) => {
                return Ok((Files::Folder(folder.clone()), folder.display().to_string()));
            }
            (None, _) => {}
        }
        match settings.name.as_deref() {
            Some(name @ BUILTIN_STATIC) => Ok((Files::StaticTable, name.into())),
            Some(name @ BUILTIN_VERBALIZER) => Ok((Files::Verbalizer, name.into())),
            Some(name) if name.starts_with("builtin:") => {
                Err(LoadFailure::NoSuchBuiltin(name.into()))
            }
            Some(name) => {
                let hub = if may_fetch { &self.hub } else { &self.hub_cache };
                let Some((hub, runtime)) = hub.as_ref().zip(runtime) else {
                    return Err(LoadFailure::NoHub(name.into()));
                };
                let progress = |progress: HubProgress| {
                    tell(Event::Fetching {
                        file: progress.file,
                        done_bytes: progress.done_bytes,
                        total_bytes: progress.total_bytes,
                    });
                };
                let by_name = |folder| (Files::Folder(folder), name.to_owned());
                let folder = runtime.block_on(hub.folder(name, &settings.revision, &progress));
                folder.map(by_name).map_err(|error| match error {
                    HubError::Offline { .. } if !may_fetch => LoadFailure::NotFetched(name.into()),
                    error => error.into(),
                })
            }
            None => Err(LoadFailure::NoSource),
        }
    }

    /// Brings a model into memory. Takes as long as its files take to read.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn load(
        &self,
        id: &ModelId,
        prepared: &Prepared,
        place: &Place,
    ) -> Result<ModelParts, LoadFailure> {
        let settings = &prepared.settings;
        if let Some(loader) = self.custom.get(&settings.model_type) {
            return loader(id, settings).map_err(|source| LoadFailure::Custom {
                model_type: settings.model_type.clone(),
                source,
            });
        }
        let known = Known::of(&settings.model_type)?;
        known.load(&prepared.files, &place.tensors, settings.dtype).map_err(|error| match error {
            LoadFailure::Files(LoadError::Tensor { source, .. }) if is_out_of_memory(&source) => {
                let memory = DeviceMemory::of(&place.tensors);
                LoadFailure::OutOfMemory { device: place.device, said: memory.to_string() }
            }
            error => error,
        })
    }
}

/// A model's files, and what they will take.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    files: Files,
    /// Where they came from, for people.
    pub(crate) source: String,
    /// What they were found by. The load uses the same, whatever is set meanwhile.
    pub(crate) settings: Arc<ModelSettings>,
    /// What the model takes in memory.
    pub(crate) need: Need,
}

/// Where a model's files are.
#[derive(Debug, Clone)]
enum Files {
    /// The static table inside the program.
    StaticTable,
    /// The little T5 inside the program.
    Verbalizer,
    /// In the folder that the settings name.
    Folder(PathBuf),
    /// Where a loader of the program's own knows.
    Own,
}

impl fmt::Debug for Loaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaders").field("custom", &self.custom_types()).finish()
    }
}
