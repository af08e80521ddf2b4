//! For those who look after the daemon: what is in memory, and why.

use crate::client::Client;
use crate::error::Error;
use crate::question::{Question, model_id};
use emberd_protocol::{CacheCleared, Decision, Event, Freed, Preloaded, Reloaded, Request};

impl Client {
    /// Brings a model into memory, without a lease on it, and waits until it is there.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`, `MODEL_LOAD_ERROR`, `DEVICE_ERROR` (it has no room anywhere).
    pub fn preload(&self, id: &str) -> Result<Preloaded, Error> {
        self.ask(Request::Preload { model: model_id(id)?, events: false })?.preloaded()
    }

    /// As [`Client::preload`], told how far the load is: see [`Client::model_with`].
    ///
    /// # Errors
    /// As [`Client::preload`].
    pub fn preload_with(
        &self,
        id: &str,
        mut on_event: impl FnMut(Event),
    ) -> Result<Preloaded, Error> {
        let request = Request::Preload { model: model_id(id)?, events: true };
        self.ask_on(&mut Question::new(request)?, Some(&mut on_event))?.1.preloaded()
    }

    /// Takes a model that nobody holds out of the daemon's memory; running work ends first.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`; a failure, too, while somebody holds it. Not repeated after a lost
    /// connection ([`Error::Transport`]): whether it was done is not known.
    pub fn unload(&self, id: &str) -> Result<Freed, Error> {
        self.ask(Request::Unload { model: model_id(id)? })?.freed()
    }

    /// Takes all models that nobody holds or uses out of the daemon's memory.
    ///
    /// # Errors
    /// When the daemon cannot be reached. Not repeated, as [`Client::unload`].
    pub fn cleanup_unused_models(&self) -> Result<Freed, Error> {
        self.ask(Request::CleanupUnusedModels)?.freed()
    }

    /// Drops all rows of the daemon's embedding cache, from its memory and from the disk.
    ///
    /// # Errors
    /// `CACHE_ERROR`. Not repeated, as [`Client::unload`].
    pub fn clear_embedding_cache(&self) -> Result<CacheCleared, Error> {
        self.ask(Request::ClearEmbeddingCache)?.cleared()
    }

    /// Has the daemon read its settings file again. With an error in it nothing changes.
    ///
    /// # Errors
    /// A failure that names every error of the file. Not repeated, as [`Client::unload`].
    pub fn reload(&self) -> Result<Reloaded, Error> {
        self.ask(Request::Reload)?.reloaded()
    }

    /// What the daemon decided about a model, and why; the newest decision first.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn why(&self, id: &str) -> Result<Vec<Decision>, Error> {
        self.ask(Request::Why { model: model_id(id)? })?.decisions()
    }

    /// What a load of a model would do now; nothing is done.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn plan(&self, id: &str) -> Result<Decision, Error> {
        self.ask(Request::Plan { model: model_id(id)? })?.decision()
    }
}
