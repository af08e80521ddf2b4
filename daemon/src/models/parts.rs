//! The parts of a model in memory, one for each thing that it does: queues and workers.

use crate::batching::fill_mask::{FillQueue, FillWork, FillWorkers};
use crate::batching::generation::{GenerationLimits, TextQueue, TextWork, TextWorker};
use crate::batching::queue::{BatchLimits, Queue};
use crate::batching::row_shape::RowShape;
use crate::batching::worker::{WorkDone, Workers};
use crate::settings::ModelSettings;
use emberd_engine::{EmbeddingModel, MaskedModel, RankHead, Seq2SeqModel};
use emberd_protocol::ScoreActivation;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The workers that a part of a model starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerPlan<'a> {
    /// The model's name.
    pub(super) name: &'a str,
    pub(super) threads: usize,
    pub(super) limits: BatchLimits,
    /// Counts their work.
    pub(super) done: &'a Arc<WorkDone>,
}

/// Makes rows of texts.
#[derive(Debug)]
pub(crate) struct Embedding {
    /// Its work.
    pub(crate) queue: Arc<Queue>,
    /// The shape of the rows that a request without options gets.
    pub(crate) shape: RowShape,
    /// Whether the model makes rows of unit length (L2-normalised).
    pub(crate) normalizes: bool,
    /// Its prompts, by name: texts that are put before an input.
    pub(crate) prompts: BTreeMap<String, String>,
    /// Identifies all that determines its rows; `None` if they are not cached.
    pub(crate) fingerprint: Option<[u8; 32]>,
    pub(crate) workers: Workers,
}

/// Scores pairs of texts.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// Its work.
    pub(crate) queue: Arc<Queue>,
    /// The shape of its scores: one value for each label.
    pub(crate) shape: RowShape,
    /// The names of a pair's scores.
    pub(crate) labels: Vec<String>,
    /// The activation that its folder sets for the head's output.
    pub(crate) activation: ScoreActivation,
    pub(crate) workers: Workers,
}

/// Generates texts from texts.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Its work.
    pub(crate) queue: Arc<TextQueue>,
    /// The model, for its defaults and its tokens.
    pub(crate) model: Arc<dyn Seq2SeqModel>,
    /// The limits of a request.
    pub(crate) limits: GenerationLimits,
    pub(crate) threads: usize,
    _worker: TextWorker,
}

/// Fills the masks of texts.
#[derive(Debug)]
pub(crate) struct Masks {
    /// Its work.
    pub(crate) queue: Arc<FillQueue>,
    /// Tokens of a text that are used.
    pub(crate) max_tokens: usize,
    pub(crate) workers: FillWorkers,
}

impl Embedding {
    pub(super) fn start(
        model: &Arc<dyn EmbeddingModel>,
        shape: RowShape,
        settings: &ModelSettings,
        plan: WorkerPlan<'_>,
    ) -> io::Result<Self> {
        let (queue, workers) = rows(model, plan)?;
        let fingerprint = model.fingerprint().filter(|_| settings.cache_embeddings);
        let prompts = model.spec().prompts.clone();
        let normalizes = model.spec().normalized;
        Ok(Self { queue, shape, normalizes, prompts, fingerprint, workers })
    }
}

impl Ranking {
    pub(super) fn start(head: RankHead, plan: WorkerPlan<'_>) -> io::Result<Self> {
        let (queue, workers) = rows(&head.model, plan)?;
        let scores = head.model.spec().dimension;
        let shape = RowShape { model: scores, used: scores, renormalize: false };
        let RankHead { labels, activation, .. } = head;
        Ok(Self { queue, shape, labels, activation, workers })
    }
}

impl Generation {
    pub(super) fn start(
        name: &str,
        model: Arc<dyn Seq2SeqModel>,
        settings: &ModelSettings,
        threads: usize,
        work: &Arc<TextWork>,
    ) -> io::Result<Self> {
        let limits = GenerationLimits::of(
            &*model,
            settings.max_input_length,
            settings.max_output_length,
            settings.batch_size,
        );
        let beams = model.defaults().num_beams;
        if beams > limits.rows {
            tracing::warn!(
                model = name,
                beams,
                batch_size = limits.rows,
                "the folder's num_beams exceeds batch_size: requests without num_beams use \
                 batch_size beams"
            );
        }
        let queue = Arc::new(TextQueue::new(limits.rows));
        let worker = TextWorker::start(name, threads, &model, &queue, work)?;
        Ok(Self { queue, model, limits, threads, _worker: worker })
    }
}

impl Masks {
    pub(super) fn start(
        model: Arc<dyn MaskedModel>,
        settings: &ModelSettings,
        plan: WorkerPlan<'_>,
    ) -> io::Result<Self> {
        let WorkerPlan { name, threads, limits, done } = plan;
        let queue = Arc::new(FillQueue::default());
        let max_tokens = settings.max_input_length.min(model.spec().max_tokens);
        let work = FillWork {
            model,
            max_tokens,
            limits,
            queue: Arc::clone(&queue),
            done: Arc::clone(done),
        };
        let workers = FillWorkers::start(name, threads, &work)?;
        Ok(Self { queue, max_tokens, workers })
    }
}

/// A queue, and the workers that make rows of its texts.
fn rows(
    model: &Arc<dyn EmbeddingModel>,
    WorkerPlan { name, threads, limits, done }: WorkerPlan<'_>,
) -> io::Result<(Arc<Queue>, Workers)> {
    let queue = Arc::new(Queue::new(limits));
    let workers = Workers::start(name, threads, model, &queue, done)?;
    Ok((queue, workers))
}
