//! A configured model: its settings, its counters, and how it is loaded.

use crate::ground::sync::lock;
use crate::models::counters::Counters;
use crate::models::load_failure::LoadFailure;
use crate::models::load_target::LoadTarget;
use crate::models::loaded::LoadedModel;
use crate::models::loader::{Loaders, Prepared};
use crate::settings::ModelSettings;
use emberd_protocol::ModelId;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A configured model.
#[derive(Debug)]
pub(crate) struct ModelSlot {
    /// Its id.
    pub(crate) id: ModelId,
    /// What happened to it.
    pub(crate) counters: Counters,
    settings: Mutex<ModelSettings>,
}

impl ModelSlot {
    /// A model that was never loaded.
    pub(super) fn new(id: ModelId, settings: ModelSettings) -> Self {
        Self { id, counters: Counters::default(), settings: Mutex::new(settings) }
    }

    /// Its present settings.
    #[must_use]
    pub(crate) fn settings(&self) -> ModelSettings {
        lock(&self.settings).clone()
    }

    /// Replaces its settings, from its next load on.
    pub(super) fn set_settings(&self, settings: ModelSettings) {
        *lock(&self.settings) = settings;
    }

    /// Loads it and starts its workers. Takes as long as its files take to read.
    ///
    /// # Errors
    /// When the files cannot be used, or the device or the system fails.
    pub(super) fn load(
        &self,
        loaders: &Loaders,
        prepared: &Prepared,
        target: &LoadTarget,
        cpu_workers: usize,
    ) -> Result<LoadedModel, LoadFailure> {
        let started = Instant::now();
        let parts = loaders.load(&self.id, prepared, target)?;
        let loaded = LoadedModel::start(
            &self.id,
            parts,
            prepared,
            target.device,
            cpu_workers,
            &self.counters,
        )?;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        self.counters.load_ms.store(ms, Ordering::Relaxed);
        tracing::info!(
            model = %self.id,
            architecture = loaded.info.architecture,
            device = loaded.info.device,
            kind = %loaded.info.kind,
            dimension = loaded.info.dimension,
            weight_bytes = loaded.info.weight_bytes,
            workers = loaded.workers(),
            ms,
            "model loaded"
        );
        Ok(loaded)
    }
}
