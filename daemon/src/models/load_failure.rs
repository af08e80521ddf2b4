//! Why a model could not be loaded.

use crate::ground::device::Device;
use crate::hub::HubError;
use emberd_engine::LoadError;
use std::path::PathBuf;
use std::time::Duration;

/// The error of a loader that the program registered.
pub type CustomError = Box<dyn std::error::Error + Send + Sync>;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadFailure {
    /// Its files cannot be used.
    #[error(transparent)]
    Files(#[from] LoadError),
    /// The loader of a custom type failed.
    #[error("the loader of model type \"{model_type}\" failed")]
    Custom {
        /// The model type in the settings.
        model_type: String,
        /// The loader's error.
        source: CustomError,
    },
    /// The settings name a built-in model that does not exist.
    #[error("there is no built-in model \"{0}\"")]
    NoSuchBuiltin(String),
    /// The settings name a model type that does not exist.
    #[error("no loader is registered for model type \"{0}\"")]
    NoSuchType(String),
    /// The files are those of a model of another type.
    #[error("{} holds {found}, but a model of type {model_type} needs {wanted}", folder.display())]
    OfAnotherType {
        /// The folder of the files.
        folder: PathBuf,
        /// The model that the files make.
        found: String,
        /// The type in the settings.
        model_type: String,
        /// The models of that type.
        wanted: &'static str,
    },
    /// The settings ask for longer rows than the model makes.
    #[error(
        "the model's rows have {available} values, not {wanted}: set a dimension of at most \
             {available}, or none"
    )]
    Dimension {
        /// The dimension in the settings.
        wanted: usize,
        /// The length of the model's rows.
        available: usize,
    },
    /// A custom loader returned a model that answers no method.
    #[error("the custom loader returned a model without any method")]
    NoMethods,
    /// The settings name no files.
    #[error("the settings name neither a folder nor a name on the hub")]
    NoSource,
    /// The program that built this daemon configured no hub.
    #[error(
        "model \"{0}\" must come from the hub, but no hub is configured: set models.<id>.local_path"
    )]
    NoHub(String),
    /// A plan was requested for a model whose files would have to be fetched first.
    #[error(
        "the files of \"{0}\" have not been fetched, so its size is unknown: the first request \
             or a preload fetches them"
    )]
    NotFetched(String),
    /// The hub or its local cache failed.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The device had too little memory.
    #[error("{device} has too little memory for it: {report}")]
    OutOfMemory {
        /// The device that was full.
        device: Device,
        /// The device's own account of its memory.
        report: String,
    },
    /// The device on which it was placed has disappeared.
    #[error("{0} is no longer available")]
    NoDevice(Device),
    /// The system could not start a thread.
    #[error("cannot start the model's threads")]
    Threads(#[source] std::io::Error),
    /// The loader panicked.
    #[error("the loader panicked")]
    Panicked,
}

impl LoadFailure {
    /// For how long the hub asked to receive no further request.
    #[must_use]
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Self::Hub(HubError::TooManyRequests { after, .. }) = self else { return None };
        Some(*after)
    }

    /// Whether the load may succeed on another device.
    #[must_use]
    pub(super) fn is_of_the_device(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. } | Self::NoDevice(_))
    }
}
