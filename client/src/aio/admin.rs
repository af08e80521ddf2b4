//! For administrators: what the daemon holds in memory, and why.

use super::client::AsyncClient;
use crate::error::Error;
use crate::wire::request::{PreparedRequest, model_id};
use emberd_protocol::{CacheCleared, Decision, Event, Freed, Preloaded, Reloaded, Request};

impl AsyncClient {
    /// As [`crate::Client::model_config`].
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub async fn model_config(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        self.request(Request::ModelConfig { model: model_id(id)? }).await?.config()
    }

    /// As [`crate::Client::preload`].
    ///
    /// # Errors
    /// As there.
    pub async fn preload(&self, id: &str) -> Result<Preloaded, Error> {
        self.request(Request::Preload { model: model_id(id)?, events: false }).await?.preloaded()
    }

    /// As [`crate::Client::preload_with`]; `on_event` is called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn preload_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<Preloaded, Error> {
        let request = Request::Preload { model: model_id(id)?, events: true };
        self.send_with(PreparedRequest::new(request)?, on_event).await?.preloaded()
    }

    /// As [`crate::Client::unload`].
    ///
    /// # Errors
    /// As there.
    pub async fn unload(&self, id: &str) -> Result<Freed, Error> {
        self.request(Request::Unload { model: model_id(id)? }).await?.freed()
    }

    /// As [`crate::Client::cleanup_unused_models`].
    ///
    /// # Errors
    /// As there.
    pub async fn cleanup_unused_models(&self) -> Result<Freed, Error> {
        self.request(Request::CleanupUnusedModels).await?.freed()
    }

    /// As [`crate::Client::clear_embedding_cache`].
    ///
    /// # Errors
    /// As there.
    pub async fn clear_embedding_cache(&self) -> Result<CacheCleared, Error> {
        self.request(Request::ClearEmbeddingCache).await?.cleared()
    }

    /// As [`crate::Client::reload`].
    ///
    /// # Errors
    /// As there.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.request(Request::Reload).await?.reloaded()
    }

    /// As [`crate::Client::why`].
    ///
    /// # Errors
    /// As there.
    pub async fn why(&self, id: &str) -> Result<Vec<Decision>, Error> {
        self.request(Request::Why { model: model_id(id)? }).await?.decisions()
    }

    /// As [`crate::Client::plan`].
    ///
    /// # Errors
    /// As there.
    pub async fn plan(&self, id: &str) -> Result<Decision, Error> {
        self.request(Request::Plan { model: model_id(id)? }).await?.decision()
    }
}
