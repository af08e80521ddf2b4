//! From look-up to rows, through a real queue and real workers, with a model that can be held up.

use crate::batching::queue::{BatchLimits, Queue};
use crate::batching::row_job::{Done, JobError, RowJob};
use crate::batching::worker::{WorkDone, Workers};
use crate::cache::{CacheSettings, EmbeddingCache};
use crate::ground::sync::lock;
use crate::models::lease::ConnectionId;
use crate::request::embed::lookup::*;
use crate::segment::{Finished, Output};
use emberd_engine::{ComputeContext, ComputeError, EmbeddingModel, ModelSpec, Sequence};
use emberd_protocol::TextBuilder;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;

/// Texts are cut to this many tokens. Each byte is a token.
const MAX_TOKENS: usize = 100;

const FINGERPRINT: [u8; 32] = [3; 32];

const WHOLE: RowShape = RowShape { model: 2, used: 2, renormalize: false };

/// A model that computes while its barrier is open, and remembers what it computed.
#[derive(Debug)]
struct Gated {
    spec: ModelSpec,
    barrier: Mutex<Barrier>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Barrier {
    is_open: bool,
    /// Batches that have reached the barrier.
    arrived: usize,
    computed: Vec<String>,
    /// How many more times this text fails.
    fails: Option<(String, usize)>,
}

impl EmbeddingModel for Gated {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        let ids = text.bytes().take(MAX_TOKENS).map(u32::from).collect();
        Ok(Sequence { ids, truncated: text.len() > MAX_TOKENS, ..Sequence::default() })
    }

    fn fingerprint(&self) -> Option<[u8; 32]> {
        Some(FINGERPRINT)
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(GatedComputer(self))
    }
}

struct GatedComputer(Arc<Gated>);

impl ComputeContext for GatedComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let mut barrier = lock(&self.0.barrier);
        barrier.arrived += 1;
        barrier = self.0.changed.wait_while(barrier, |barrier| !barrier.is_open).unwrap();
        let text = |sequence: &Sequence| -> String {
            sequence.ids.iter().map(|&id| char::from_u32(id).unwrap()).collect()
        };
        for sequence in batch {
            if let Some((failing, left)) = &mut barrier.fails
                && *failing == text(sequence)
                && *left > 0
            {
                *left -= 1;
                return Err(candle_core::Error::Msg("as requested".into()).into());
            }
        }
        for (sequence, row) in batch.iter().zip(rows) {
            row.copy_from_slice(&expected(&text(sequence)));
            barrier.computed.push(text(sequence));
        }
        Ok(())
    }
}

/// What the model makes of a text.
fn expected(text: &str) -> [f32; 2] {
    let sum: u32 = text.bytes().take(MAX_TOKENS).map(u32::from).sum();
    [sum as f32, 1.0 / sum as f32]
}

struct Bench {
    model: Arc<Gated>,
    flights: Arc<RowFlights>,
    queue: Arc<Queue>,
    _workers: Workers,
}

/// An answer and its rows.
type Answered = Result<(Done, Vec<[f32; 2]>), JobError>;

fn bench(workers: usize, max_entries: usize) -> Bench {
    let spec = ModelSpec {
        architecture: "gated".into(),
        dimension: 2,
        max_tokens: MAX_TOKENS,
        normalized: false,
        weight_bytes: 0,
        ..ModelSpec::default()
    };
    let model = Arc::new(Gated { spec, barrier: Mutex::default(), changed: Condvar::new() });
    let settings = CacheSettings { max_entries, ..CacheSettings::default() };
    let cache = EmbeddingCache::open(&settings, Instant::now(), SystemTime::now());
    let queue = Arc::new(Queue::new(BatchLimits { tokens: 20, texts: 4 }));
    let shared: Arc<dyn EmbeddingModel> = model.clone();
    let done = Arc::new(WorkDone::default());
    let workers = Workers::start("gated", workers, &shared, &queue, &done).unwrap();
    let flights = Arc::new(RowFlights::new(Arc::new(cache)));
    Bench { model, flights, queue, _workers: workers }
}

impl Bench {
    /// Asks as a user on a connection of their own; the texts are looked up before this returns.
    async fn ask(&self, user: u32, texts: &[&str]) -> JoinHandle<Answered> {
        self.ask_on(u64::from(user), user, texts).await
    }

    async fn ask_on(&self, connection: u64, user: u32, texts: &[&str]) -> JoinHandle<Answered> {
        self.ask_for(WHOLE, connection, user, texts).await
    }

    /// Values that are not asked for are zero in the answer.
    async fn ask_for(
        &self,
        shape: RowShape,
        connection: u64,
        user: u32,
        texts: &[&str],
    ) -> JoinHandle<Answered> {
        let mut builder = TextBuilder::default();
        texts.iter().for_each(|text| builder.push(text).unwrap());
        let texts = TextBlock::parse(builder.count(), builder.into_bytes()).unwrap();
        let mut output = Output::heap(texts.len(), shape.used);
        let keys = KeySpace::new(&FINGERPRINT, shape.model, Some(user), "");
        let lookup = CacheLookup::new(&self.flights, keys, shape);
        let found = lookup.find(texts, output.take_rows()).await.unwrap();
        let LookedUp { texts, missing, truncated } = found;
        let (job, waiting) =
            RowJob::of_targets(ConnectionId(connection), None, texts, missing, truncated);
        if job.len() > 0 {
            self.queue.push(job).unwrap();
        } else {
            drop(job);
        }
        tokio::spawn(async move {
            let done = waiting.done().await?;
            let Ok(Finished::Inline(bytes)) = output.finish() else { panic!("a row is out") };
            let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            let values: Vec<f32> = values.collect();
            let whole = |row: &[f32]| [row[0], row.get(1).copied().unwrap_or_default()];
            Ok((done, values.chunks(shape.used).map(whole).collect()))
        })
    }

    async fn answer(&self, user: u32, texts: &[&str]) -> (Done, Vec<[f32; 2]>) {
        self.ask(user, texts).await.await.unwrap().unwrap()
    }

    fn open(&self) {
        lock(&self.model.barrier).is_open = true;
        self.model.changed.notify_all();
    }

    fn fail(&self, text: &str, times: usize) {
        lock(&self.model.barrier).fails = Some((text.to_owned(), times));
    }

    /// Waits until this many batches have reached the barrier.
    async fn arrived(&self, batches: usize) {
        self.until(|| lock(&self.model.barrier).arrived >= batches).await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        let soon = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), soon).await.expect("it never came to be");
    }

    fn computed(&self) -> Vec<String> {
        lock(&self.model.barrier).computed.clone()
    }

    /// Nothing is wanted any more, and nothing was left behind.
    async fn is_quiet(&self) {
        self.until(|| self.flights.len() == 0 && self.queue.queued_texts() == 0).await;
    }
}

#[tokio::test]
async fn a_repeated_text_is_computed_once_and_cached_for_the_next_request() {
    let bench = bench(1, 100);
    bench.open();
    let long = "x".repeat(MAX_TOKENS + 1);
    let texts = ["a", &long, "a", "b", &long];
    let rows: Vec<[f32; 2]> = texts.iter().map(|text| expected(text)).collect();
    let (done, found) = bench.answer(1, &texts).await;
    assert_eq!(found, rows);
    assert_eq!(done, Done { computed: 3, tokens: 102, truncated: vec![1, 4] });
    assert_eq!(bench.computed().len(), 3);

    let (done, found) = bench.answer(1, &["c", &long, "b"]).await;
    assert_eq!(found, [expected("c"), rows[1], rows[3]]);
    assert_eq!(done, Done { computed: 1, tokens: 1, truncated: vec![1] });
    let (done, found) = bench.answer(1, &texts).await;
    assert_eq!((found, done), (rows, Done { computed: 0, tokens: 0, truncated: vec![1, 4] }));
    assert_eq!(bench.computed().len(), 4);
    assert_eq!((bench.flights.cache().stats().hits, bench.flights.cache().stats().misses), (7, 6));
    bench.is_quiet().await;
}

#[tokio::test]
async fn many_texts_are_looked_up_as_well() {
    let bench = bench(2, 10_000);
    bench.open();
    let texts: Vec<String> = (0..5000).map(|n| format!("t{}", n % 1000)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for round in 0..2 {
        let (done, found) = bench.answer(1, &texts).await;
        assert!(found.iter().zip(&texts).all(|(row, text)| *row == expected(text)));
        assert_eq!(done.tokens == 0, round == 1);
        assert_eq!(bench.computed().len(), 1000);
    }
    bench.is_quiet().await;
}

#[tokio::test]
async fn one_entry_serves_rows_of_every_length() {
    let first_alone = RowShape { used: 1, ..WHOLE };
    let of_length_one = RowShape { used: 1, renormalize: true, ..WHOLE };
    let bench = bench(2, 100);
    // Two lengths at the same time, computed by whoever comes first.
    let whole = bench.ask_for(WHOLE, 1, 7, &["a", "b"]).await;
    let cut = bench.ask_for(first_alone, 2, 7, &["b", "a", "c"]).await;
    bench.arrived(1).await;
    bench.open();
    let [a, b, c] = ["a", "b", "c"].map(expected);
    assert_eq!(whole.await.unwrap().unwrap().1, [a, b]);
    assert_eq!(cut.await.unwrap().unwrap().1, [[b[0], 0.0], [a[0], 0.0], [c[0], 0.0]]);
    // What was computed for the shorter ones serves the whole ones, and the other way round.
    for (shape, rows) in [(WHOLE, [c, a]), (of_length_one, [[1.0, 0.0]; 2])] {
        let found = bench.ask_for(shape, 3, 7, &["c", "a"]).await.await.unwrap().unwrap();
        let near = |(a, b): (&[f32; 2], &[f32; 2])| (a[0] - b[0]).abs() < 1e-6 && a[1] == b[1];
        assert!(found.1.iter().zip(&rows).all(near), "{:?} {rows:?}", found.1);
        assert_eq!(found.0.computed, 0);
    }
    assert_eq!(bench.computed().len(), 3);
    bench.is_quiet().await;
}

#[tokio::test]
async fn users_do_not_share() {
    let bench = bench(1, 100);
    bench.open();
    bench.answer(1, &["a"]).await;
    let (done, _) = bench.answer(2, &["a"]).await;
    assert_eq!(done.tokens, 1);
    assert_eq!(bench.computed(), ["a", "a"]);
}

/// With no room in the cache at all, so that only the flight can have handed the row on.
#[tokio::test]
async fn a_text_in_flight_is_computed_once_for_all() {
    for workers in [1, 3] {
        let bench = bench(workers, 0);
        let first = bench.ask(1, &["a", "b"]).await;
        bench.arrived(1).await;
        // Some come while it is computed, and one of its own texts is among others.
        let mut others = Vec::new();
        for texts in [&["a"][..], &["b", "a"], &["c", "b"]] {
            others.push(bench.ask(1, texts).await);
        }
        // With more workers, the others have reached what is left: `c`.
        bench.arrived(workers.min(2)).await;
        bench.open();
        let mut tokens = 0;
        for asked in [first].into_iter().chain(others) {
            tokens += asked.await.unwrap().unwrap().0.tokens;
        }
        let mut computed = bench.computed();
        computed.sort();
        assert_eq!(computed, ["a", "b", "c"], "{workers} workers");
        assert_eq!(tokens, 3, "each was counted where it was computed");
        bench.is_quiet().await;
    }
}

#[tokio::test]
async fn a_waiter_gets_its_row_if_the_other_request_is_dropped() {
    for workers in [1, 2] {
        let bench = bench(workers, 100);
        let held = bench.ask_on(1, 7, &["held"]).await;
        bench.arrived(1).await;
        // Dropped while it is queued, and dropped while it is computed.
        let queued = bench.ask_on(2, 7, &["q", "nobody else wants this"]).await;
        let waits = bench.ask_on(3, 7, &["held", "q"]).await;
        queued.abort();
        held.abort();
        let _ = (queued.await, held.await);
        bench.open();
        let (_, rows) = waits.await.unwrap().unwrap();
        assert_eq!(rows, [expected("held"), expected("q")]);
        let computed = bench.computed();
        assert_eq!(computed.iter().filter(|text| *text == "held").count(), 1, "{computed:?}");
        if workers == 1 {
            assert_eq!(computed, ["held", "q"], "what nobody wants is not computed");
        }
        bench.is_quiet().await;
    }
}

#[tokio::test]
async fn a_failed_request_does_not_fail_its_waiters() {
    for (workers, times) in [(1, 1), (2, 1), (2, 2)] {
        let bench = bench(workers, 100);
        bench.fail("bad", times);
        let first = bench.ask_on(1, 7, &["bad"]).await;
        bench.arrived(1).await;
        let mut answers = vec![first];
        for (connection, texts) in [(2, &["bad", "good"][..]), (3, &["bad"]), (1, &["bad"])] {
            answers.push(bench.ask_on(connection, 7, texts).await);
        }
        bench.open();
        let mut failed = 0;
        for asked in answers {
            match asked.await.unwrap() {
                Ok((_, rows)) => assert_eq!(rows[0], expected("bad")),
                Err(error) => {
                    assert!(matches!(error, JobError::Compute(_)), "{error}");
                    failed += 1;
                }
            }
        }
        // A failure of several texts at once is nobody's: they are computed again, one by one.
        assert!((1..=times).contains(&failed), "{failed} failed, of {times} at most");
        bench.is_quiet().await;
    }
}

#[tokio::test]
async fn a_query_does_not_wait_for_another_lanes_bulk_that_has_its_text() {
    let bench = bench(1, 10_000);
    let bulk: Vec<String> = (0..400).map(|n| format!("bulk {n}")).chain(["q".into()]).collect();
    let bulk: Vec<&str> = bulk.iter().map(String::as_str).collect();
    let bulk = bench.ask_on(1, 7, &bulk).await;
    bench.arrived(1).await;
    let query = bench.ask_on(2, 7, &["q"]).await;
    bench.open();
    query.await.unwrap().unwrap();
    let (_, rows) = bulk.await.unwrap().unwrap();
    assert_eq!(rows[400], expected("q"));
    let computed = bench.computed();
    let position = computed.iter().position(|text| text == "q").unwrap();
    assert!(position < 40, "it was computed behind {position} others");
    assert_eq!(computed.len(), 401);
    bench.is_quiet().await;
}
