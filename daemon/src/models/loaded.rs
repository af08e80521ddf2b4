//! A configured model, what happened to it, and the model in memory.

use crate::batching::generation::TextWork;
use crate::batching::queue::BatchLimits;
use crate::batching::row_shape::RowShape;
use crate::batching::worker::WorkDone;
use crate::ground::sync::lock;
use crate::models::loader::{LoadFailure, Loaders, Prepared};
use crate::models::scheduler::Device;
use crate::request::failure::RequestError;
use crate::settings::ModelSettings;
use emberd_engine::{ModelParts, ModelSpec};
use emberd_protocol::{Method, ModelId, ModelInfo, ModelKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) use crate::models::parts::{Embedding, Generation, Masks, Ranking};

/// Tokens of one batch on the CPU: enough rows for the matrix kernels to run at full rate, few
/// enough that activations stay in the caches and a single query behind it waits little.
pub(crate) const CPU_BATCH_TOKENS: usize = 512;

/// Tokens of one batch on a GPU: its thousands of threads are busy only with thousands of rows, and
/// each operation is started anew for each batch. Activations of so many tokens stay small beside the
/// memory of a GPU.
pub(crate) const GPU_BATCH_TOKENS: usize = 16 << 10;

/// Where a model goes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// As decisions and figures name it.
    pub(crate) device: Device,
    /// Where its tensors are made.
    pub(crate) tensors: candle_core::Device,
}

/// A model in memory, with the threads that compute for it: a part for each thing that can be asked
/// of it.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    /// What clients are told.
    pub(crate) info: ModelInfo,
    embedding: Option<Embedding>,
    ranking: Option<Ranking>,
    generation: Option<Generation>,
    masks: Option<Masks>,
    /// Where it is.
    pub(crate) device: Device,
    /// Where its files came from, for people.
    pub(crate) source: String,
    /// Its type, as it was configured when it was loaded.
    pub(crate) model_type: String,
}

impl LoadedModel {
    /// What makes rows.
    ///
    /// # Errors
    /// When it makes none.
    pub(crate) fn embedding(&self) -> Result<&Embedding, RequestError> {
        self.embedding.as_ref().ok_or_else(|| self.without(Method::Embed))
    }

    /// What scores pairs.
    ///
    /// # Errors
    /// When it scores none.
    pub(crate) fn ranking(&self) -> Result<&Ranking, RequestError> {
        self.ranking.as_ref().ok_or_else(|| self.without(Method::Rerank))
    }

    /// What makes texts.
    ///
    /// # Errors
    /// When it makes none.
    pub(crate) fn generation(&self) -> Result<&Generation, RequestError> {
        self.generation.as_ref().ok_or_else(|| self.without(Method::Generate))
    }

    /// What fills masks.
    ///
    /// # Errors
    /// When it fills none.
    pub(crate) fn masks(&self) -> Result<&Masks, RequestError> {
        self.masks.as_ref().ok_or_else(|| self.without(Method::FillMask))
    }

    /// Threads that compute for it.
    #[must_use]
    pub(crate) fn workers(&self) -> usize {
        let embedding = self.embedding.as_ref().map_or(0, |part| part.workers.count());
        let ranking = self.ranking.as_ref().map_or(0, |part| part.workers.count());
        let generation = self.generation.as_ref().map_or(0, |part| part.threads);
        let masks = self.masks.as_ref().map_or(0, |part| part.workers.count());
        embedding + ranking + generation + masks
    }

    /// Texts that wait.
    #[must_use]
    pub(crate) fn queued_texts(&self) -> usize {
        let embedding = self.embedding.as_ref().map_or(0, |part| part.queue.queued_texts());
        let ranking = self.ranking.as_ref().map_or(0, |part| part.queue.queued_texts());
        let generation = self.generation.as_ref().map_or(0, |part| part.queue.queued_texts());
        let masks = self.masks.as_ref().map_or(0, |part| part.queue.queued_texts());
        embedding + ranking + generation + masks
    }

    /// What its settings allow is told, too.
    fn with_limits(mut self) -> Self {
        if let Some(generation) = &self.generation {
            self.info.max_tokens = number(generation.limits.max_input_tokens);
            self.info.max_output_tokens = number(generation.limits.max_new_tokens);
        }
        if let Some(masks) = &self.masks {
            self.info.max_tokens = number(masks.max_tokens);
        }
        self
    }

    fn without(&self, wanted: Method) -> RequestError {
        let offered: Vec<String> = self.info.methods.iter().map(Method::to_string).collect();
        RequestError::NotOffered {
            model: self.info.id.clone(),
            wanted,
            offered: offered.join(", "),
        }
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
    /// Requests answered with what was asked of the model.
    pub(crate) requests: AtomicU64,
    /// Rows that went inline.
    pub(crate) rows_inline: AtomicU64,
    /// Rows that went through shared memory.
    pub(crate) rows_shared: AtomicU64,
    /// Texts that were not computed: the cache had their rows, another request wanted them too, or
    /// they stood in the request twice.
    pub(crate) texts_cached: AtomicU64,
    /// What those did that make rows and scores, and fill masks.
    pub(crate) work: Arc<WorkDone>,
    /// What those did that make texts.
    pub(crate) texts: Arc<TextWork>,
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
        prepared: &Prepared,
        place: &Place,
        cpu_workers: usize,
    ) -> Result<LoadedModel, LoadFailure> {
        let started = Instant::now();
        let parts = loaders.load(&self.id, prepared, place)?;
        let loaded = self.start(parts, prepared, place.device, cpu_workers)?;
        let took = started.elapsed();
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        self.counters.load_ms.store(millis(took), Ordering::Relaxed);
        tracing::info!(
            model = %self.id,
            architecture = loaded.info.architecture,
            device = loaded.info.device,
            kind = %loaded.info.kind,
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
        parts: ModelParts,
        prepared: &Prepared,
        device: Device,
        cpu_workers: usize,
    ) -> Result<LoadedModel, LoadFailure> {
        let settings = &*prepared.settings;
        let (tokens, threads) = match device {
            Device::Cpu => (CPU_BATCH_TOKENS, cpu_workers),
            // One thread starts the operations of a model; a second would wait for the same device.
            Device::Cuda(_) => (GPU_BATCH_TOKENS, 1),
        };
        let limits = BatchLimits { tokens, texts: settings.batch_size };
        let name = self.id.as_str();
        let (work, texts) = (&self.counters.work, &self.counters.texts);
        let mut info = described(&self.id, &parts, device)?;
        let embedding = match &parts.embed {
            None => None,
            Some(model) => {
                let shape = shape(model.spec(), settings)?;
                info.dimension = number(shape.used);
                // Told of the rows that come where a request says nothing.
                info.normalized &= shape.renormalize || shape.used == shape.model;
                Some(Embedding::start(name, model, shape, settings, limits, threads, work))
            }
        };
        let ranking = parts.rank.map(|head| Ranking::start(name, head, limits, threads, work));
        let generation =
            parts.generate.map(|model| Generation::start(name, model, settings, threads, texts));
        let masks = parts
            .fill_mask
            .map(|model| Masks::start(name, &model, settings, limits, threads, work));
        let started = LoadedModel {
            embedding: embedding.transpose().map_err(LoadFailure::Threads)?,
            ranking: ranking.transpose().map_err(LoadFailure::Threads)?,
            generation: generation.transpose().map_err(LoadFailure::Threads)?,
            masks: masks.transpose().map_err(LoadFailure::Threads)?,
            info,
            device,
            source: prepared.source.clone(),
            model_type: settings.model_type.clone(),
        };
        Ok(started.with_limits())
    }
}

/// What clients are told of a model, but for what its settings add.
fn described(id: &ModelId, parts: &ModelParts, device: Device) -> Result<ModelInfo, LoadFailure> {
    let embed = parts.embed.as_ref().map(|model| model.spec());
    let rank = parts.rank.as_ref().map(|head| head.model.spec());
    let generate = parts.generate.as_ref().map(|model| model.spec());
    let fill_mask = parts.fill_mask.as_ref().map(|model| model.spec());
    let offered = [
        (Method::Embed, embed, ModelKind::Embedding),
        (Method::Generate, generate, ModelKind::Text2Text),
        (Method::FillMask, fill_mask, ModelKind::Text2Text),
        (Method::Rerank, rank, ModelKind::Rerank),
    ];
    let there = || offered.iter().filter_map(|(method, card, kind)| Some((method, (*card)?, kind)));
    // What it does first is what it is.
    let (_, card, kind) = there().next().ok_or(LoadFailure::NoMethods)?;
    let labels = parts.rank.as_ref().map(|head| head.labels.clone()).unwrap_or_default();
    Ok(ModelInfo {
        id: id.clone(),
        kind: kind.clone(),
        methods: there().map(|(method, ..)| *method).collect(),
        architecture: card.architecture.clone(),
        device: device.to_string(),
        dimension: number(card.dimension),
        max_tokens: number(card.max_tokens),
        normalized: card.normalized,
        max_output_tokens: 0,
        prompts: card.prompts.keys().cloned().collect(),
        default_prompt: card.default_prompt.clone(),
        similarity: card.similarity.clone(),
        labels,
        weight_bytes: there().map(|(_, card, _)| card.weight_bytes).sum(),
    })
}

/// What of a model's rows is used, where a request does not ask for something else.
fn shape(card: &ModelSpec, settings: &ModelSettings) -> Result<RowShape, LoadFailure> {
    let available = card.dimension;
    let used = match settings.dimension {
        Some(wanted) if !(1..=available).contains(&wanted) => {
            return Err(LoadFailure::Dimension { wanted, available });
        }
        Some(wanted) => wanted,
        None => card.truncate_dim.filter(|&used| used > 0).unwrap_or(available).min(available),
    };
    // Rows that the settings cut get the length 1, as designed; those that the folder cuts stay as
    // they are then, as with sentence-transformers.
    let renormalize = used < available && settings.dimension.is_some();
    Ok(RowShape { model: available, used, renormalize })
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
