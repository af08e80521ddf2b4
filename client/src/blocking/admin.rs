//! For administrators: what the daemon holds in memory, and why.

use super::client::Client;
use crate::error::Error;
use crate::wire::request::{PreparedRequest, model_id};
use emberd_protocol::{CacheCleared, Decision, Event, Freed, Preloaded, Reloaded, Request};

impl Client {
    /// How a model is configured: the keys below `models.<id>.`, and their values as TOML.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn model_config(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        self.request(Request::ModelConfig { model: model_id(id)? })?.config()
    }

    /// Loads a model without a lease, and waits until it is loaded.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`, `MODEL_LOAD_ERROR`, `DEVICE_ERROR` (no device has room for it).
    pub fn preload(&self, id: &str) -> Result<Preloaded, Error> {
        self.request(Request::Preload { model: model_id(id)?, events: false })?.preloaded()
    }

    /// As [`Client::preload`], reporting the progress of the load: see [`Client::model_with`].
    ///
    /// # Errors
    /// As [`Client::preload`].
    pub fn preload_with(&self, id: &str, on_event: impl FnMut(Event)) -> Result<Preloaded, Error> {
        let request = Request::Preload { model: model_id(id)?, events: true };
        self.send_with(PreparedRequest::new(request)?, on_event)?.preloaded()
    }

    /// Unloads a model that has no leases, after its running work.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`; also fails while the model has leases. Not repeated after a lost
    /// connection ([`Error::Transport`]): the daemon may or may not have unloaded it.
    pub fn unload(&self, id: &str) -> Result<Freed, Error> {
        self.request(Request::Unload { model: model_id(id)? })?.freed()
    }

    /// Unloads all models that have neither leases nor work.
    ///
    /// # Errors
    /// When the daemon cannot be reached. Not repeated, as [`Client::unload`].
    pub fn cleanup_unused_models(&self) -> Result<Freed, Error> {
        self.request(Request::CleanupUnusedModels)?.freed()
    }

    /// Removes all rows from the daemon's embedding cache, in memory and on disk.
    ///
    /// # Errors
    /// `CACHE_ERROR`. Not repeated, as [`Client::unload`].
    pub fn clear_embedding_cache(&self) -> Result<CacheCleared, Error> {
        self.request(Request::ClearEmbeddingCache)?.cleared()
    }

    /// Makes the daemon read its settings file again. If the file has an error, nothing changes.
    ///
    /// # Errors
    /// A failure that names every error of the file. Not repeated, as [`Client::unload`].
    pub fn reload(&self) -> Result<Reloaded, Error> {
        self.request(Request::Reload)?.reloaded()
    }

    /// The daemon's decisions about a model and their reasons, the newest first.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn why(&self, id: &str) -> Result<Vec<Decision>, Error> {
        self.request(Request::Why { model: model_id(id)? })?.decisions()
    }

    /// What loading a model would do now. Changes nothing.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn plan(&self, id: &str) -> Result<Decision, Error> {
        self.request(Request::Plan { model: model_id(id)? })?.decision()
    }
}
