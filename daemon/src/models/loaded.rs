//! A model in memory, with the threads that compute for it.

mod description;

use crate::batching::queue::BatchLimits;
use crate::ground::device::Device;
use crate::models::counters::Counters;
use crate::models::load_failure::LoadFailure;
use crate::models::load_target::{CPU_BATCH_TOKENS, GPU_BATCH_TOKENS};
use crate::models::loaded::description::{model_info, row_shape};
use crate::models::loader::Prepared;
use crate::models::parts::{Embedding, Generation, Masks, Ranking, WorkerPlan};
use crate::settings::ModelType;
use emberd_engine::ModelParts;
use emberd_protocol::{Method, ModelId, ModelInfo};

/// A model in memory, with the threads that compute for it: one part for each thing that it does.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    /// Its description for clients.
    pub(crate) info: ModelInfo,
    embedding: Option<Embedding>,
    ranking: Option<Ranking>,
    generation: Option<Generation>,
    masks: Option<Masks>,
    /// Its device.
    pub(crate) device: Device,
    /// The source of its files, for people.
    pub(crate) source: String,
    /// Its type in the settings when it was loaded.
    pub(crate) model_type: ModelType,
}

/// A model does not offer a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model \"{model}\" offers {offered}, not {wanted}")]
pub(crate) struct NotOffered {
    /// The model.
    pub(crate) model: ModelId,
    /// The method that was requested.
    pub(crate) wanted: Method,
    /// The methods that it offers, as a list for people.
    pub(crate) offered: String,
}

impl LoadedModel {
    /// Starts the workers of a model whose files were read.
    ///
    /// # Errors
    /// When its settings do not fit its files, or the system gives no thread.
    pub(super) fn start(
        id: &ModelId,
        parts: ModelParts,
        prepared: &Prepared,
        device: Device,
        cpu_workers: usize,
        counters: &Counters,
    ) -> Result<Self, LoadFailure> {
        let settings = &*prepared.settings;
        let (tokens, threads) = match device {
            Device::Cpu => (CPU_BATCH_TOKENS, cpu_workers),
            // One thread launches the operations of a model; a second would wait for the same GPU.
            Device::Cuda(_) => (GPU_BATCH_TOKENS, 1),
        };
        let limits = BatchLimits { tokens, texts: settings.batch_size };
        let name = id.as_str();
        let plan = WorkerPlan { name, threads, limits, done: &counters.work };
        let mut info = model_info(id, &parts, device)?;
        let embedding = match &parts.embed {
            None => None,
            Some(model) => {
                let shape = row_shape(model.spec(), settings)?;
                info.dimension = count(shape.used);
                // Of the rows that a request without options gets.
                info.normalized &= shape.renormalize || shape.used == shape.model;
                Some(Embedding::start(model, shape, settings, plan))
            }
        };
        let ranking = parts.rank.map(|head| Ranking::start(head, plan));
        let generation = parts
            .generate
            .map(|model| Generation::start(name, model, settings, threads, &counters.texts));
        let masks = parts.fill_mask.map(|model| Masks::start(model, settings, plan));
        let started = Self {
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

    /// The part that makes rows.
    ///
    /// # Errors
    /// When it makes none.
    pub(crate) fn embedding(&self) -> Result<&Embedding, NotOffered> {
        self.embedding.as_ref().ok_or_else(|| self.without(Method::Embed))
    }

    /// The part that scores pairs.
    ///
    /// # Errors
    /// When it scores none.
    pub(crate) fn ranking(&self) -> Result<&Ranking, NotOffered> {
        self.ranking.as_ref().ok_or_else(|| self.without(Method::Rerank))
    }

    /// The part that generates texts.
    ///
    /// # Errors
    /// When it generates none.
    pub(crate) fn generation(&self) -> Result<&Generation, NotOffered> {
        self.generation.as_ref().ok_or_else(|| self.without(Method::Generate))
    }

    /// The part that fills masks.
    ///
    /// # Errors
    /// When it fills none.
    pub(crate) fn masks(&self) -> Result<&Masks, NotOffered> {
        self.masks.as_ref().ok_or_else(|| self.without(Method::FillMask))
    }

    /// The number of threads that compute for it.
    #[must_use]
    pub(crate) fn workers(&self) -> usize {
        let embedding = self.embedding.as_ref().map_or(0, |part| part.workers.count());
        let ranking = self.ranking.as_ref().map_or(0, |part| part.workers.count());
        let generation = self.generation.as_ref().map_or(0, |part| part.threads);
        let masks = self.masks.as_ref().map_or(0, |part| part.workers.count());
        embedding + ranking + generation + masks
    }

    /// The number of texts in its queues.
    #[must_use]
    pub(crate) fn queued_texts(&self) -> usize {
        let embedding = self.embedding.as_ref().map_or(0, |part| part.queue.queued_texts());
        let ranking = self.ranking.as_ref().map_or(0, |part| part.queue.queued_texts());
        let generation = self.generation.as_ref().map_or(0, |part| part.queue.queued_texts());
        let masks = self.masks.as_ref().map_or(0, |part| part.queue.queued_texts());
        embedding + ranking + generation + masks
    }

    /// With the limits of its settings in its description.
    fn with_limits(mut self) -> Self {
        if let Some(generation) = &self.generation {
            self.info.max_tokens = count(generation.limits.max_input_tokens);
            self.info.max_output_tokens = count(generation.limits.max_new_tokens);
        }
        if let Some(masks) = &self.masks {
            self.info.max_tokens = count(masks.max_tokens);
        }
        self
    }

    fn without(&self, wanted: Method) -> NotOffered {
        let offered: Vec<String> = self.info.methods.iter().map(Method::to_string).collect();
        NotOffered { model: self.info.id.clone(), wanted, offered: offered.join(", ") }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
