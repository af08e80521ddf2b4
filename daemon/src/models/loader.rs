//! From a model's settings to a model in memory.

mod known;
mod prepared;

use crate::ground::error_chain::chain;
use crate::hub::{Hub, HubError, HubProgress, HubSettings};
use crate::models::load_failure::{CustomError, LoadFailure};
use crate::models::load_target::LoadTarget;
use crate::models::loader::prepared::Files;
use crate::settings::{BUILTIN_STATIC, BUILTIN_VERBALIZER, ModelSettings, ModelType};
use emberd_engine::{DeviceMemory, LoadError, ModelParts, Need, is_out_of_memory};
use emberd_protocol::{Event, ModelId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Handle;

pub(crate) use crate::models::loader::prepared::Prepared;

/// The loaders of all model types: the built-in ones, and those that the program registered.
#[derive(Default)]
pub(crate) struct Loaders {
    custom: BTreeMap<String, Box<CustomLoader>>,
    hub: Option<Hub>,
    /// The same hub without network access: only files that were fetched before.
    hub_cache: Option<Hub>,
}

/// How a model's files are looked for.
pub(super) struct FileSearch<'a> {
    /// Threads that will compute for the model on the CPU.
    pub(super) cpu_workers: usize,
    /// For fetching files from the hub.
    pub(super) runtime: Option<&'a Handle>,
    /// Whether missing files may be fetched.
    pub(super) may_fetch: bool,
    /// Receives the progress of a fetch.
    pub(super) progress: &'a (dyn Fn(Event) + Sync + Send),
}

impl Loaders {
    /// Registers a type; replaces an earlier one of the same name.
    pub(crate) fn register<F>(&mut self, model_type: impl Into<String>, loader: F)
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<ModelParts, CustomError> + Send + Sync + 'static,
    {
        self.custom.insert(model_type.into(), Box::new(loader));
    }

    /// Sets the hub that models with a name come from.
    pub(crate) fn set_hub(&mut self, settings: HubSettings) {
        let offline = HubSettings { is_offline: true, ..settings.clone() };
        self.hub_cache = Some(Hub::new(offline));
        self.hub = Some(Hub::new(settings));
    }

    /// Finds a model's files and computes its need. Of the weights, only headers are read.
    ///
    /// # Errors
    /// When the files cannot be found or used.
    pub(super) fn prepare(
        &self,
        settings: ModelSettings,
        search: &FileSearch<'_>,
    ) -> Result<Prepared, LoadFailure> {
        let model_type = &settings.model_type;
        let (files, source, need) = if self.custom.contains_key(model_type.name()) {
            // Only the custom loader knows its need, and tells it with the loaded model.
            (Files::Custom, settings.source(), Need::default())
        } else if let ModelType::Custom(name) = model_type {
            return Err(LoadFailure::NoSuchType(name.clone()));
        } else {
            let (files, source) = self.find(&settings, search)?;
            let need = known::need(model_type, &files, search.cpu_workers, settings.dtype)?;
            (files, source, need)
        };
        Ok(Prepared { files, need, source, settings: Arc::new(settings) })
    }

    /// Brings a model into memory. Takes as long as its files take to read.
    ///
    /// # Errors
    /// When the files cannot be used, or the device has too little memory.
    pub(super) fn load(
        &self,
        id: &ModelId,
        prepared: &Prepared,
        target: &LoadTarget,
    ) -> Result<ModelParts, LoadFailure> {
        let settings = &prepared.settings;
        let model_type = &settings.model_type;
        if let Some(loader) = self.custom.get(model_type.name()) {
            return loader(id, settings).map_err(|source| LoadFailure::Custom {
                model_type: model_type.to_string(),
                source,
            });
        }
        let loaded = known::load(model_type, &prepared.files, &target.tensors, settings.dtype);
        loaded.map_err(|error| match error {
            LoadFailure::Files(LoadError::Tensor { source, .. }) if is_out_of_memory(&source) => {
                let report = DeviceMemory::of(&target.tensors).to_string();
                LoadFailure::OutOfMemory { device: target.device, report }
            }
            error => error,
        })
    }

    /// Finds a model's files, and describes their source.
    fn find(
        &self,
        settings: &ModelSettings,
        search: &FileSearch<'_>,
    ) -> Result<(Files, String), LoadFailure> {
        let model_type = &settings.model_type;
        match (&settings.local_path, &settings.name) {
            (Some(folder), Some(name)) if !known::is_in(model_type, folder) => {
                let files = Files::Folder(folder.clone());
                let need = known::need(model_type, &files, search.cpu_workers, settings.dtype);
                let fault = need.err().map(|fault| chain(&fault));
                tracing::warn!(
                    folder = %folder.display(),
                    fault,
                    "local_path does not hold the model: \"{name}\" is used instead"
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
            Some(name) => Ok((self.fetch(name, &settings.revision, search)?, name.to_owned())),
            None => Err(LoadFailure::NoSource),
        }
    }

    /// Finds a model by its name on the hub, and fetches it if need be.
    fn fetch(
        &self,
        name: &str,
        revision: &str,
        search: &FileSearch<'_>,
    ) -> Result<Files, LoadFailure> {
        let hub = if search.may_fetch { &self.hub } else { &self.hub_cache };
        let Some((hub, runtime)) = hub.as_ref().zip(search.runtime) else {
            return Err(LoadFailure::NoHub(name.into()));
        };
        let progress = |progress: HubProgress| {
            (search.progress)(Event::Fetching {
                file: progress.file,
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
            });
        };
        match runtime.block_on(hub.folder(name, revision, &progress)) {
            Ok(folder) => Ok(Files::Folder(folder)),
            Err(HubError::Offline { .. }) if !search.may_fetch => {
                Err(LoadFailure::NotFetched(name.into()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Loaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaders").field("custom", &self.custom.keys()).finish()
    }
}

type CustomLoader =
    dyn Fn(&ModelId, &ModelSettings) -> Result<ModelParts, CustomError> + Send + Sync;
