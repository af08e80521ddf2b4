use crate::batching::queue::{BatchLimits, Queue};
use crate::batching::row_job::{JobError, RowJob};
use crate::batching::row_shape::RowShape;
use crate::batching::worker::{WorkDone, Workers};
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use crate::segment::{Finished, Output};
use emberd_engine::{
    ComputeContext, ComputeError, DeviceMemory, EmbeddingModel, ModelSpec, Sequence,
};
use emberd_protocol::{TextBlock, TextBuilder};
use std::sync::{Arc, Mutex};

/// A model with memory for `tokens` tokens at a time. A row is the length of its text.
#[derive(Debug)]
struct Tight {
    spec: ModelSpec,
    tokens: usize,
    /// The number of texts of each batch, and whether there was memory for it.
    seen: Mutex<Vec<(usize, bool)>>,
}

impl EmbeddingModel for Tight {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        Ok(Sequence { ids: vec![0; text.len()], ..Sequence::default() })
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(TightContext(self))
    }
}

struct TightContext(Arc<Tight>);

impl ComputeContext for TightContext {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let tokens: usize = batch.iter().map(|sequence| sequence.ids.len()).sum();
        let fits = tokens <= self.0.tokens;
        lock(&self.0.seen).push((batch.len(), fits));
        if !fits {
            let memory = DeviceMemory::Known { free_bytes: 1 << 20, total_bytes: 1 << 30 };
            let source = candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".into()).into();
            return Err(ComputeError::OutOfMemory { tokens, memory, source });
        }
        for (sequence, row) in batch.iter().zip(rows) {
            row[0] = f32::from(u16::try_from(sequence.ids.len()).unwrap());
        }
        Ok(())
    }
}

/// Embeds texts with one worker, in one batch if it fits. Returns the rows and the batches.
async fn embed(
    tokens: usize,
    texts: &[String],
) -> (Result<Vec<f32>, JobError>, Vec<(usize, bool)>) {
    let spec = ModelSpec { dimension: 1, max_tokens: 1000, ..ModelSpec::default() };
    let tight = Arc::new(Tight { spec, tokens, seen: Mutex::default() });
    let model: Arc<dyn EmbeddingModel> = Arc::clone(&tight) as _;
    let queue = Arc::new(Queue::new(BatchLimits { tokens: 1 << 20, texts: 1000 }));
    let workers = Workers::start("tight", 1, &model, &queue, &Arc::new(WorkDone::default()));
    let mut builder = TextBuilder::default();
    texts.iter().for_each(|text| builder.push(text).unwrap());
    let block = TextBlock::parse(builder.count(), builder.into_bytes()).unwrap();
    let mut output = Output::heap(texts.len(), 1);
    let shape = RowShape { model: 1, used: 1, renormalize: false };
    let (job, handle) = RowJob::new(ConnectionId(1), None, block, output.take_rows(), shape);
    queue.push(job).unwrap();
    let done = handle.done().await;
    // Ends after the last batch.
    drop(workers.unwrap());
    let rows = done.map(|_| match output.finish() {
        Ok(Finished::Inline(bytes)) => {
            bytes.chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().unwrap())).collect()
        }
        _ => panic!("rows on the heap"),
    });
    let seen = std::mem::take(&mut *lock(&tight.seen));
    (rows, seen)
}

fn texts(lengths: impl Iterator<Item = usize>) -> Vec<String> {
    lengths.map(|len| "x".repeat(len)).collect()
}

#[tokio::test]
async fn a_batch_that_the_device_has_no_memory_for_is_halved_until_it_fits() {
    for tokens in [10, 25, 60, 300, 100_000] {
        let lengths: Vec<usize> = (0..100).map(|i| i * 7 % 11).collect();
        let (rows, seen) = embed(tokens, &texts(lengths.iter().copied())).await;
        #[expect(clippy::cast_precision_loss, reason = "short texts")]
        let want: Vec<f32> = lengths.iter().map(|len| *len as f32).collect();
        assert_eq!(rows.unwrap(), want, "{tokens} tokens at once");
        let computed: usize = seen.iter().filter(|(_, fits)| *fits).map(|(texts, _)| texts).sum();
        assert_eq!(computed, 100, "each text once: {seen:?}");
        assert_eq!(seen[0].0, 100, "first the whole batch");
        let failures = seen.iter().filter(|(_, fits)| !fits).count();
        assert_eq!(failures + 1, seen.len() - failures, "every failed batch is halved once");
    }
}

#[tokio::test]
async fn a_text_that_alone_is_too_large_fails_its_request_with_figures() {
    let (rows, _) = embed(50, &texts([3, 51, 4].into_iter())).await;
    let error = rows.unwrap_err().to_string();
    assert!(error.contains("51 tokens") && error.contains("1.0 MiB of 1.0 GiB"), "{error}");
    // With memory for the longest text the whole request succeeds.
    let (rows, _) = embed(51, &texts([3, 51, 4].into_iter())).await;
    assert_eq!(rows.unwrap(), [3.0, 51.0, 4.0]);
}
