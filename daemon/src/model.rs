//! A configured model, what happened to it, and the model in memory.

use crate::engine::model::EmbeddingModel;
use crate::loader::{LoadFailure, Loaders, Prepared};
use crate::queue::{BatchLimits, Queue};
use crate::row_shape::RowShape;
use crate::scheduler::Device;
use crate::settings::ModelSettings;
use crate::sync::lock;
use crate::worker::{WorkDone, Workers};
use emberd_protocol::{ModelId, ModelInfo, ModelKind};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Tokens of one batch on the CPU: enough rows for the matrix kernels to run at full rate, few
/// enough that activations stay in the caches and a single query behind it waits little.
pub(crate) const CPU_BATCH_TOKENS: usize = 512;

/// A model in memory, with the threads that compute for it.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    /// What clients are told.
    pub(crate) info: ModelInfo,
    /// Where its work is put.
    pub(crate) queue: Arc<Queue>,
    /// What of its rows is used, where a request does not ask for something else.
    pub(crate) shape: RowShape,
    /// What may go in front of a text, by name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// What determines its rows; `None` where they are not cached.
    pub(crate) fingerprint: Option<[u8; 32]>,
    workers: Workers,
}

impl LoadedModel {
    /// Threads that compute for it.
    #[must_use]
    pub(crate) fn workers(&self) -> usize {
        self.workers.count()
    }
}

/// What happened to a model since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Successful loads.
    pub(crate) loads: AtomicU64,
    /// How long the last one took, in milliseconds.
    pub(crate) load_ms: AtomicU64,
    /// Copies that left the memory.
    pub(crate) unloads: AtomicU64,
    /// Embed requests answered with rows.
    pub(crate) requests: AtomicU64,
    /// Rows that went inline.
    pub(crate) rows_inline: AtomicU64,
    /// Rows that went through shared memory.
    pub(crate) rows_shared: AtomicU64,
    /// Texts that were not computed: the cache had their rows, another request wanted them too, or
    /// they stood in the request twice.
    pub(crate) texts_cached: AtomicU64,
    /// What the workers did.
    pub(crate) work: Arc<WorkDone>,
}

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
    pub(crate) fn new(id: ModelId, settings: ModelSettings) -> Self {
        Self { id, counters: Counters::default(), settings: Mutex::new(settings) }
    }

    /// How it is configured now.
    #[must_use]
    pub(crate) fn settings(&self) -> ModelSettings {
        lock(&self.settings).clone()
    }

    /// Other settings, for its next load.
    pub(crate) fn set_settings(&self, settings: ModelSettings) {
        *lock(&self.settings) = settings;
    }

    /// Brings it into memory. Takes as long as its files take to read.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn load(
        &self,
        loaders: &Loaders,
        prepared: Option<&Prepared>,
        device: Device,
        workers: usize,
    ) -> Result<LoadedModel, LoadFailure> {
        let started = Instant::now();
        let settings = self.settings();
        let model = loaders.load(&self.id, &settings, prepared, device)?;
        let loaded = self.start(&model, &settings, device, workers)?;
        let took = started.elapsed();
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        self.counters.load_ms.store(millis(took), Ordering::Relaxed);
        tracing::info!(
            model = %self.id,
            architecture = loaded.info.architecture,
            device = loaded.info.device,
            dimension = loaded.info.dimension,
            weight_bytes = loaded.info.weight_bytes,
            workers = loaded.workers(),
            ms = millis(took),
            "model loaded"
        );
        Ok(loaded)
    }

    fn start(
        &self,
        model: &Arc<dyn EmbeddingModel>,
        settings: &ModelSettings,
        device: Device,
        cpu_workers: usize,
    ) -> Result<LoadedModel, LoadFailure> {
        let card = model.card();
        let used = match settings.dimension {
            None => {
                card.truncate_dim.filter(|&used| used > 0).unwrap_or(usize::MAX).min(card.dimension)
            }
            Some(wanted) if (1..=card.dimension).contains(&wanted) => wanted,
            Some(wanted) => {
                return Err(LoadFailure::Dimension { wanted, available: card.dimension });
            }
        };
        let shape = RowShape {
            model: card.dimension,
            used,
            renormalize: card.normalized && used < card.dimension,
        };
        let info = ModelInfo {
            id: self.id.clone(),
            kind: ModelKind::Embedding,
            methods: vec![emberd_protocol::Method::Embed],
            architecture: card.architecture.clone(),
            device: device.to_string(),
            dimension: u32::try_from(used).unwrap_or(u32::MAX),
            max_tokens: u32::try_from(card.max_tokens).unwrap_or(u32::MAX),
            normalized: card.normalized,
            max_output_tokens: 0,
            prompts: card.prompts.keys().cloned().collect(),
            default_prompt: card.default_prompt.clone(),
            similarity: card.similarity.clone(),
            labels: Vec::new(),
            weight_bytes: card.weight_bytes,
        };
        let limits = BatchLimits { tokens: CPU_BATCH_TOKENS, texts: settings.batch_size };
        let queue = Arc::new(Queue::new(limits));
        let done = &self.counters.work;
        let workers = Workers::start(self.id.as_str(), cpu_workers, model, &queue, done)
            .map_err(LoadFailure::Threads)?;
        let fingerprint = model.fingerprint().filter(|_| settings.cache_embeddings);
        let prompts = card.prompts.clone();
        Ok(LoadedModel { info, queue, shape, prompts, fingerprint, workers })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
