//! For those who look after the daemon: what is in memory, and why.

use super::client::Client;
use crate::error::Error;
use crate::question::{Question, model_id};
use emberd_protocol::{CacheCleared, Decision, Event, Freed, Preloaded, Reloaded, Request};

impl Client {
    /// As [`crate::Client::preload`].
    ///
    /// # Errors
    /// As there.
    pub async fn preload(&self, id: &str) -> Result<Preloaded, Error> {
        self.ask(Request::Preload { model: model_id(id)?, events: false }).await?.preloaded()
    }

    /// As [`crate::Client::preload_with`]; events are called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn preload_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<Preloaded, Error> {
        let request = Request::Preload { model: model_id(id)?, events: true };
        self.ask_on(&mut Question::new(request)?, on_event).await?.1.preloaded()
    }

    /// As [`crate::Client::unload`].
    ///
    /// # Errors
    /// As there.
    pub async fn unload(&self, id: &str) -> Result<Freed, Error> {
        self.ask(Request::Unload { model: model_id(id)? }).await?.freed()
    }

    /// As [`crate::Client::cleanup_unused_models`].
    ///
    /// # Errors
    /// As there.
    pub async fn cleanup_unused_models(&self) -> Result<Freed, Error> {
        self.ask(Request::CleanupUnusedModels).await?.freed()
    }

    /// As [`crate::Client::clear_embedding_cache`].
    ///
    /// # Errors
    /// As there.
    pub async fn clear_embedding_cache(&self) -> Result<CacheCleared, Error> {
        self.ask(Request::ClearEmbeddingCache).await?.cleared()
    }

    /// As [`crate::Client::reload`].
    ///
    /// # Errors
    /// As there.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.ask(Request::Reload).await?.reloaded()
    }

    /// As [`crate::Client::why`].
    ///
    /// # Errors
    /// As there.
    pub async fn why(&self, id: &str) -> Result<Vec<Decision>, Error> {
        self.ask(Request::Why { model: model_id(id)? }).await?.decisions()
    }

    /// As [`crate::Client::plan`].
    ///
    /// # Errors
    /// As there.
    pub async fn plan(&self, id: &str) -> Result<Decision, Error> {
        self.ask(Request::Plan { model: model_id(id)? }).await?.decision()
    }
}
