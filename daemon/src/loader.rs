//! From a model's settings to a model in memory.

use crate::engine::model::EmbeddingModel;
use crate::engine::{LoadError, builtin_static_minilm, load_folder};
use crate::settings::{BUILTIN_STATIC, EMBEDDING_TYPE, ModelSettings, ModelSource};
use emberd_protocol::ModelId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a registered loader may fail with.
pub type CustomError = Box<dyn std::error::Error + Send + Sync>;

type CustomLoader =
    dyn Fn(&ModelId, &ModelSettings) -> Result<Arc<dyn EmbeddingModel>, CustomError> + Send + Sync;

/// The model types that can be loaded: `embedding`, and those that the program registered.
#[derive(Default)]
pub(crate) struct Loaders {
    custom: BTreeMap<String, Box<CustomLoader>>,
}

/// Why a model could not be brought up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LoadFailure {
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
    /// The system gave no thread.
    #[error("cannot start the model's threads")]
    Threads(#[source] std::io::Error),
    /// The loader panicked.
    #[error("the loader panicked")]
    Panicked,
}

impl Loaders {
    /// Registers a type. A later one of the same name takes its place.
    pub(crate) fn register<F>(&mut self, model_type: impl Into<String>, loader: F)
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<Arc<dyn EmbeddingModel>, CustomError>
            + Send
            + Sync
            + 'static,
    {
        self.custom.insert(model_type.into(), Box::new(loader));
    }

    /// The registered types.
    #[must_use]
    pub(crate) fn custom_types(&self) -> Vec<String> {
        self.custom.keys().cloned().collect()
    }

    /// Brings a model into memory. Takes as long as its files take to read.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn load(
        &self,
        id: &ModelId,
        settings: &ModelSettings,
    ) -> Result<Arc<dyn EmbeddingModel>, LoadFailure> {
        if let Some(loader) = self.custom.get(&settings.model_type) {
            return loader(id, settings).map_err(|source| LoadFailure::Custom {
                model_type: settings.model_type.clone(),
                source,
            });
        }
        if settings.model_type != EMBEDDING_TYPE {
            return Err(LoadFailure::NoSuchType(settings.model_type.clone()));
        }
        match &settings.source {
            ModelSource::Folder(folder) => Ok(load_folder(folder, settings.dimension)?),
            ModelSource::Builtin(name) if name == BUILTIN_STATIC => Ok(builtin_static_minilm()?),
            ModelSource::Builtin(name) => Err(LoadFailure::NoSuchBuiltin(name.clone())),
        }
    }
}

impl fmt::Debug for Loaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaders").field("custom", &self.custom_types()).finish()
    }
}
