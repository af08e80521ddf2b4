//! What a model in memory computes with: a part for each thing that can be asked of it.

use crate::batching::fill_mask::{FillQueue, FillWorkers};
use crate::batching::generation::{GenerationLimits, TextQueue, TextWork, TextWorker};
use crate::batching::queue::{BatchLimits, Queue};
use crate::batching::row_shape::RowShape;
use crate::batching::worker::{WorkDone, Workers};
use crate::settings::ModelSettings;
use emberd_engine::{EmbeddingModel, RankHead};
use emberd_engine::{MaskedModel, Seq2SeqModel};
use emberd_protocol::ScoreActivation;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Rows for texts.
#[derive(Debug)]
pub(crate) struct Embedding {
    /// Where its work is put.
    pub(crate) queue: Arc<Queue>,
    /// What of its rows is used, where a request does not ask for something else.
    pub(crate) shape: RowShape,
    /// Whether whole rows have length 1 as the model makes them.
    pub(crate) normalizes: bool,
    /// What may go in front of a text, by name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// What determines its rows; `None` where they are not cached.
    pub(crate) fingerprint: Option<[u8; 32]>,
    pub(crate) workers: Workers,
}

/// Scores for pairs of texts.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// Where its work is put.
    pub(crate) queue: Arc<Queue>,
    /// One value for each label.
    pub(crate) shape: RowShape,
    /// The names of the scores of a pair.
    pub(crate) labels: Vec<String>,
    /// What the folder wants done with what the head puts out.
    pub(crate) activation: ScoreActivation,
    pub(crate) workers: Workers,
}

/// Texts from texts.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Where its work is put.
    pub(crate) queue: Arc<TextQueue>,
    /// What it says about how texts are made.
    pub(crate) model: Arc<dyn Seq2SeqModel>,
    /// What a request may ask for.
    pub(crate) limits: GenerationLimits,
    pub(crate) threads: usize,
    _worker: TextWorker,
}

/// What may stand at the masks of texts.
#[derive(Debug)]
pub(crate) struct Masks {
    /// Where its work is put.
    pub(crate) queue: Arc<FillQueue>,
    /// Tokens of a text that are read.
    pub(crate) max_tokens: usize,
    pub(crate) workers: FillWorkers,
}

impl Embedding {
    pub(crate) fn start(
        name: &str,
        model: &Arc<dyn EmbeddingModel>,
        shape: RowShape,
        settings: &ModelSettings,
        limits: BatchLimits,
        threads: usize,
        done: &Arc<WorkDone>,
    ) -> io::Result<Self> {
        let (queue, workers) = rows(name, model, limits, threads, done)?;
        let fingerprint = model.fingerprint().filter(|_| settings.cache_embeddings);
        let prompts = model.spec().prompts.clone();
        let normalizes = model.spec().normalized;
        Ok(Self { queue, shape, normalizes, prompts, fingerprint, workers })
    }
}

impl Ranking {
    pub(crate) fn start(
        name: &str,
        head: RankHead,
        limits: BatchLimits,
        threads: usize,
        done: &Arc<WorkDone>,
    ) -> io::Result<Self> {
        let (queue, workers) = rows(name, &head.model, limits, threads, done)?;
        let scores = head.model.spec().dimension;
        let shape = RowShape { model: scores, used: scores, renormalize: false };
        let RankHead { labels, activation, .. } = head;
        Ok(Self { queue, shape, labels, activation, workers })
    }
}

impl Generation {
    pub(crate) fn start(
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
                "the folder's num_beams is more than batch_size: where a request says nothing there are as \
                 many beams as that"
            );
        }
        let queue = Arc::new(TextQueue::new(limits.rows));
        let worker = TextWorker::start(name, threads, &model, &queue, work)?;
        Ok(Self { queue, model, limits, threads, _worker: worker })
    }
}

impl Masks {
    pub(crate) fn start(
        name: &str,
        model: &Arc<dyn MaskedModel>,
        settings: &ModelSettings,
        limits: BatchLimits,
        threads: usize,
        done: &Arc<WorkDone>,
    ) -> io::Result<Self> {
        let queue = Arc::new(FillQueue::default());
        let max_tokens = settings.max_input_length.min(model.spec().max_tokens);
        let workers = FillWorkers::start(name, threads, model, max_tokens, limits, &queue, done)?;
        Ok(Self { queue, max_tokens, workers })
    }
}

/// A queue, and the threads that make rows of what is in it.
fn rows(
    name: &str,
    model: &Arc<dyn EmbeddingModel>,
    limits: BatchLimits,
    threads: usize,
    done: &Arc<WorkDone>,
) -> io::Result<(Arc<Queue>, Workers)> {
    let queue = Arc::new(Queue::new(limits));
    let workers = Workers::start(name, threads, model, &queue, done)?;
    Ok((queue, workers))
}
