//! The models that this daemon knows, and the state of each.
//!
//! ```text
//!   Configured ──first request──▶ Loading ──▶ Loaded
//!                                  │  ▲
//!                                  ▼  │ next request
//!                                 Failed
//! ```
//! Requests for a model that is on its way wait for the same load. The load runs on a thread of
//! its own, so a client that leaves while it waits stops nothing. A failure is told to all who
//! waited; the next request tries again, since the cause may have been mended.

use crate::engine::model::EmbeddingModel;
use crate::loader::{LoadFailure, Loaders};
use crate::queue::{BatchLimits, Queue};
use crate::settings::{ModelSettings, Settings};
use crate::sync::lock;
use crate::worker::{WorkDone, Workers};
use emberd_protocol::{ModelId, ModelInfo, ModelKind};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Tokens of one batch on the CPU: enough rows for the matrix kernels to run at full rate, few
/// enough that activations stay in the caches and a single query behind it waits little.
const CPU_BATCH_TOKENS: usize = 512;

/// A model in memory, with the threads that compute for it.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    /// What clients are told.
    pub(crate) info: ModelInfo,
    /// Where its work is put.
    pub(crate) queue: Arc<Queue>,
    /// What determines its rows; `None` where they are not cached.
    pub(crate) fingerprint: Option<[u8; 32]>,
    workers: Workers,
}

/// What happened to a model since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Successful loads.
    pub(crate) loads: AtomicU64,
    /// How long the last one took, in milliseconds.
    pub(crate) load_ms: AtomicU64,
    /// Embed requests answered with rows.
    pub(crate) requests: AtomicU64,
    /// Rows that went inline.
    pub(crate) rows_inline: AtomicU64,
    /// Rows that went through shared memory.
    pub(crate) rows_shared: AtomicU64,
    /// What the workers did.
    pub(crate) work: Arc<WorkDone>,
}

/// A configured model.
#[derive(Debug)]
pub(crate) struct ModelSlot {
    /// Its id.
    pub(crate) id: ModelId,
    /// How it is configured.
    pub(crate) settings: ModelSettings,
    /// What happened to it.
    pub(crate) counters: Counters,
    state: Mutex<State>,
}

type LoadResult = Result<Arc<LoadedModel>, Arc<LoadFailure>>;

#[derive(Debug, Clone)]
enum State {
    Configured,
    Loading(watch::Receiver<Option<LoadResult>>),
    Loaded(Arc<LoadedModel>),
    Failed(Arc<LoadFailure>),
}

/// A state as others see it.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// Not in memory.
    Configured,
    /// On its way.
    Loading,
    /// In memory.
    Loaded(Arc<LoadedModel>),
    /// The last load failed.
    Failed(Arc<LoadFailure>),
}

/// All models, by id.
#[derive(Debug)]
pub(crate) struct Registry {
    models: BTreeMap<ModelId, Arc<ModelSlot>>,
    loaders: Arc<Loaders>,
    cpu_workers: usize,
}

impl Registry {
    /// The models of the settings, none of them loaded.
    #[must_use]
    pub(crate) fn new(settings: &Settings, loaders: Loaders) -> Self {
        let slot = |(id, settings): (&ModelId, &ModelSettings)| {
            let slot = ModelSlot {
                id: id.clone(),
                settings: settings.clone(),
                counters: Counters::default(),
                state: Mutex::new(State::Configured),
            };
            (id.clone(), Arc::new(slot))
        };
        Self {
            models: settings.models.iter().map(slot).collect(),
            loaders: Arc::new(loaders),
            cpu_workers: settings.effective_cpu_workers(),
        }
    }

    /// A model by id.
    #[must_use]
    pub(crate) fn get(&self, id: &ModelId) -> Option<&Arc<ModelSlot>> {
        self.models.get(id)
    }

    /// All of them, ordered by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ModelSlot>> {
        self.models.values()
    }

    /// The model in memory, brought there first if need be.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) async fn loaded(&self, slot: &Arc<ModelSlot>) -> LoadResult {
        let mut loading = {
            let mut state = lock(&slot.state);
            match &*state {
                State::Loaded(model) => return Ok(Arc::clone(model)),
                State::Loading(receiver) => receiver.clone(),
                State::Configured | State::Failed(_) => match self.start_load(slot) {
                    Ok(receiver) => {
                        *state = State::Loading(receiver.clone());
                        receiver
                    }
                    Err(cause) => {
                        let failure = Arc::new(LoadFailure::Threads(cause));
                        *state = State::Failed(Arc::clone(&failure));
                        return Err(failure);
                    }
                },
            }
        };
        let result = match loading.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => None,
        };
        result.unwrap_or_else(|| Err(Arc::new(LoadFailure::Panicked)))
    }

    fn start_load(
        &self,
        slot: &Arc<ModelSlot>,
    ) -> std::io::Result<watch::Receiver<Option<LoadResult>>> {
        let (sender, receiver) = watch::channel(None);
        let (slot, loaders, workers) =
            (Arc::clone(slot), Arc::clone(&self.loaders), self.cpu_workers);
        std::thread::Builder::new().name(format!("load:{}", slot.id)).spawn(move || {
            let load = || slot.load(&loaders, workers);
            let result =
                catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(LoadFailure::Panicked));
            slot.settle(result, &sender);
        })?;
        Ok(receiver)
    }
}

impl ModelSlot {
    /// Where the model is in its life.
    #[must_use]
    pub(crate) fn seen(&self) -> Seen {
        match &*lock(&self.state) {
            State::Configured => Seen::Configured,
            State::Loading(_) => Seen::Loading,
            State::Loaded(model) => Seen::Loaded(Arc::clone(model)),
            State::Failed(failure) => Seen::Failed(Arc::clone(failure)),
        }
    }

    fn load(&self, loaders: &Loaders, workers: usize) -> Result<LoadedModel, LoadFailure> {
        let started = Instant::now();
        let model = loaders.load(&self.id, &self.settings)?;
        let loaded = self.start(&model, workers).map_err(LoadFailure::Threads)?;
        let took = started.elapsed();
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        self.counters.load_ms.store(millis(took), Ordering::Relaxed);
        tracing::info!(
            model = %self.id,
            architecture = loaded.info.architecture,
            dimension = loaded.info.dimension,
            weight_bytes = loaded.info.weight_bytes,
            workers,
            ms = millis(took),
            "model loaded"
        );
        Ok(loaded)
    }

    fn start(
        &self,
        model: &Arc<dyn EmbeddingModel>,
        workers: usize,
    ) -> std::io::Result<LoadedModel> {
        let card = model.card();
        let info = ModelInfo {
            id: self.id.clone(),
            kind: ModelKind::Embedding,
            architecture: card.architecture.clone(),
            device: "cpu".into(),
            dimension: u32::try_from(card.dimension).unwrap_or(u32::MAX),
            max_tokens: u32::try_from(card.max_tokens).unwrap_or(u32::MAX),
            normalized: card.normalized,
            weight_bytes: card.weight_bytes,
        };
        let limits = BatchLimits { tokens: CPU_BATCH_TOKENS, texts: self.settings.batch_size };
        let queue = Arc::new(Queue::new(limits));
        let done = &self.counters.work;
        let workers = Workers::start(self.id.as_str(), workers, model, &queue, done)?;
        Ok(LoadedModel { info, queue, fingerprint: model.fingerprint(), workers })
    }

    fn settle(
        &self,
        result: Result<LoadedModel, LoadFailure>,
        sender: &watch::Sender<Option<LoadResult>>,
    ) {
        let result = result.map(Arc::new).map_err(Arc::new);
        let state = match &result {
            Ok(model) => State::Loaded(Arc::clone(model)),
            Err(failure) => {
                let cause: &dyn std::error::Error = failure.as_ref();
                tracing::warn!(model = %self.id, error = %crate::error::chain(cause), "load failed");
                State::Failed(Arc::clone(failure))
            }
        };
        *lock(&self.state) = state;
        sender.send_replace(Some(result));
    }
}

impl LoadedModel {
    /// Threads that compute for it.
    #[must_use]
    pub(crate) fn workers(&self) -> usize {
        self.workers.count()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
