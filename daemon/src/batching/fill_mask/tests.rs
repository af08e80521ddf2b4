//! From a queue to answers, through a real worker, with a model that a test can hold up.

use crate::batching::fill_mask::*;
use crate::ground::sync::lock;
use emberd_engine::{ComputeError, ModelSpec};
use emberd_protocol::TextBuilder;
use std::sync::{Condvar, Mutex, PoisonError};

const VOCABULARY: u32 = 5;

/// A model in which every byte is a token, and every underscore a mask. The most likely token is
/// always 4, then 3, and so on.
#[derive(Debug, Default)]
struct Blanks {
    spec: ModelSpec,
    recorded: Mutex<Recorded>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Recorded {
    open: bool,
    /// The number of texts of each batch.
    batches: Vec<usize>,
}

impl MaskedModel for Blanks {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }
    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        let ids = text.bytes().take(max_tokens).map(u32::from).collect();
        Ok(Sequence { ids, truncated: text.len() > max_tokens, ..Sequence::default() })
    }
    fn mask(&self) -> &'static str {
        "_"
    }
    fn token_text(&self, id: u32) -> String {
        format!("t{id}")
    }
    fn mask_context(self: Arc<Self>) -> Box<dyn MaskContext> {
        Box::new(BlanksContext(self))
    }
}

struct BlanksContext(Arc<Blanks>);

impl MaskContext for BlanksContext {
    fn fill(
        &mut self,
        batch: &[&Sequence],
        top_k: usize,
    ) -> Result<Vec<Vec<MaskScores>>, ComputeError> {
        let mut recorded = lock(&self.0.recorded);
        recorded.batches.push(batch.len());
        self.0.changed.notify_all();
        while !recorded.open {
            recorded = self.0.changed.wait(recorded).unwrap_or_else(PoisonError::into_inner);
        }
        drop(recorded);
        let fill = |input: &&Sequence| {
            assert!(!input.ids.contains(&u32::from(b'!')), "a text that cannot be computed");
            let masks = (0..).zip(&input.ids).filter(|(_, id)| **id == u32::from(b'_'));
            let candidates: Vec<_> =
                (0..VOCABULARY).rev().map(|id| (id, 0.2)).take(top_k).collect();
            masks
                .map(|(position, _)| MaskScores { position, candidates: candidates.clone() })
                .collect()
        };
        Ok(batch.iter().map(fill).collect())
    }
}

struct Bench {
    model: Arc<Blanks>,
    queue: Arc<FillQueue>,
    done: Arc<WorkDone>,
    _workers: FillWorkers,
}

impl Bench {
    fn start() -> Self {
        let (model, queue): (Arc<Blanks>, Arc<FillQueue>) = (Arc::default(), Arc::default());
        let done = Arc::default();
        let limits = BatchLimits { tokens: 12, texts: 4 };
        let work = FillWork {
            model: model.clone(),
            max_tokens: 8,
            limits,
            queue: Arc::clone(&queue),
            done: Arc::clone(&done),
        };
        let workers = FillWorkers::start("blanks", 1, &work).unwrap();
        Self { model, queue, done, _workers: workers }
    }

    fn push(&self, connection: u64, texts: &[&str], top_k: u32) -> FillHandle {
        let mut builder = TextBuilder::default();
        texts.iter().for_each(|text| builder.push(text).unwrap());
        let texts = TextBlock::parse(builder.count(), builder.into_bytes()).unwrap();
        self.queue.push(ConnectionId(connection), texts, top_k).unwrap()
    }

    fn open(&self) {
        lock(&self.model.recorded).open = true;
        self.model.changed.notify_all();
    }

    /// Waits until this many batches have arrived, computed or held up.
    fn wait_for_batches(&self, batches: usize) {
        let mut recorded = lock(&self.model.recorded);
        while recorded.batches.len() < batches {
            recorded = self.model.changed.wait(recorded).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn positions(filled: &MasksFilled) -> Vec<Vec<u32>> {
    let texts = filled.texts.iter();
    texts.map(|text| text.masks.iter().map(|mask| mask.position).collect()).collect()
}

#[tokio::test]
async fn texts_of_several_clients_are_batched_up_to_a_number_of_tokens() {
    let bench = Bench::start();
    let first = bench.push(1, &["_"], 2);
    bench.wait_for_batches(1);
    let second = bench.push(2, &["ab_d", "_bc_", "abc_defg__"], 2);
    let third = bench.push(3, &["_"], 2);
    assert_eq!(bench.queue.queued_texts(), 4);
    bench.open();
    let filled = second.done().await.unwrap();
    assert_eq!(positions(&filled), [vec![2], vec![0, 3], vec![3]]);
    assert_eq!(filled.tokens, 16);
    let truncated: Vec<bool> = filled.texts.iter().map(|text| text.truncated).collect();
    assert_eq!(truncated, [false, false, true]);
    let candidate = |id| MaskCandidate { id, text: format!("t{id}"), score: 0.2 };
    assert_eq!(filled.texts[0].masks[0].candidates, [candidate(4), candidate(3)]);
    assert_eq!(positions(&first.done().await.unwrap()), [[0]]);
    assert_eq!(positions(&third.done().await.unwrap()), [[0]]);
    // In turn: 4 tokens of the second client, 1 of the third, then 4 and 8 of the second.
    assert_eq!(lock(&bench.model.recorded).batches, [1, 4]);
    assert_eq!(bench.done.tokens.load(Ordering::Relaxed), 18);
}

#[tokio::test]
async fn requests_that_cannot_be_met_are_refused_with_the_reason() {
    let bench = Bench::start();
    bench.open();
    let refused = async |texts: &[&str], top_k| {
        bench.push(1, texts, top_k).done().await.unwrap_err().to_string()
    };
    let no_mask = "text 1 has no mask within the tokens that the model reads: write it as _";
    assert_eq!(refused(&["a_", "ab"], 1).await, no_mask);
    assert_eq!(refused(&["a_", "abcdefgh_"], 1).await, no_mask);
    assert_eq!(refused(&["a_"], 0).await, "top_k is 0: it must be at least 1");
    assert_eq!(
        refused(&["a_"], 6).await,
        "top_k is 6: this model has only 5 tokens to choose from"
    );
    let large = refused(&["a_"], 100_000).await;
    assert!(large.starts_with("the answers take more than the 1048576 bytes"), "{large}");
    let texts = vec!["____"; 3200];
    assert_eq!(refused(&texts, 5).await, large);
    assert!(bench.push(1, &["a_"], 5).done().await.is_ok());
}

#[tokio::test]
async fn a_text_that_cannot_be_computed_fails_alone() {
    let bench = Bench::start();
    let first = bench.push(1, &["_"], 1);
    bench.wait_for_batches(1);
    let poisoned = bench.push(2, &["!_"], 1);
    let kept = bench.push(3, &["a_"], 1);
    bench.open();
    assert!(matches!(poisoned.done().await, Err(TextError::Panicked)));
    assert_eq!(positions(&kept.done().await.unwrap()), [[1]]);
    assert_eq!(positions(&first.done().await.unwrap()), [[0]]);
}

#[tokio::test]
async fn cancelled_texts_are_not_computed() {
    let bench = Bench::start();
    let first = bench.push(1, &["_"], 1);
    bench.wait_for_batches(1);
    let gone = bench.push(2, &["_a", "_b"], 1);
    let kept = bench.push(3, &["a_"], 1);
    drop(gone);
    bench.open();
    assert_eq!(positions(&kept.done().await.unwrap()), [[1]]);
    first.done().await.unwrap();
    assert_eq!(lock(&bench.model.recorded).batches, [1, 1]);
}
