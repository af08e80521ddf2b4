//! From a queue to answers, through a real worker. The model repeats its input letter by letter, can
//! be held up at every step, and records its calls.

use crate::batching::generation::config::{GenerationConfig, GenerationLimits};
use crate::batching::generation::queue::{PieceSink, TextHandle, TextJob, TextQueue};
use crate::batching::generation::text_work::TextWork;
use crate::batching::generation::text_worker::TextWorker;
use crate::batching::text_job::TextError;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use emberd_engine::{
    ComputeError, Decoder, EncoderOutputId, GenerationDefaults, HypothesisId, ModelSpec,
    Seq2SeqModel, Sequence,
};
use emberd_protocol::{Event, FinishReason, GenerateOptions, Generated, TextBlock, TextBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

const EOS: u32 = 1;

/// The id of the letter a; those of the other letters follow.
const LETTER_A: u32 = 2;

const VOCABULARY: usize = 28;

/// The computation of an input panics at a z and fails at a y; an input with an x is refused.
const PANICS: u32 = LETTER_A + 25;
const FAILS: u32 = LETTER_A + 24;
const REFUSED: u32 = LETTER_A + 23;

const ROWS: usize = 8;

#[derive(Debug, Default)]
struct Parrot {
    spec: ModelSpec,
    defaults: GenerationDefaults,
    recorded: Mutex<Recorded>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Recorded {
    /// How many more steps may be computed; `None`: any number.
    allowed: Option<usize>,
    /// Rows of each step.
    steps: Vec<usize>,
    /// The inputs of each admission.
    admitted: Vec<Vec<String>>,
    decoders: usize,
    /// Inputs and hypotheses that the decoder holds now.
    held: usize,
}

impl Parrot {
    /// A model that waits at its first step.
    fn held_up() -> Arc<Self> {
        let defaults = GenerationDefaults { eos: vec![EOS], ..GenerationDefaults::default() };
        let spec = ModelSpec { max_tokens: 4096, ..ModelSpec::default() };
        let recorded = Mutex::new(Recorded { allowed: Some(0), ..Recorded::default() });
        Arc::new(Self { spec, defaults, recorded, changed: Condvar::new() })
    }

    fn free() -> Arc<Self> {
        let parrot = Self::held_up();
        parrot.release();
        parrot
    }

    fn allow(&self, steps: usize) {
        *lock(&self.recorded).allowed.get_or_insert(0) += steps;
        self.changed.notify_all();
    }

    fn release(&self) {
        lock(&self.recorded).allowed = None;
        self.changed.notify_all();
    }

    /// Waits until this many steps have arrived, computed or held up.
    fn wait_for_steps(&self, steps: usize) {
        let mut recorded = lock(&self.recorded);
        while recorded.steps.len() < steps {
            recorded = self.changed.wait(recorded).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn steps(&self) -> Vec<usize> {
        lock(&self.recorded).steps.clone()
    }

    fn admitted(&self) -> Vec<Vec<String>> {
        lock(&self.recorded).admitted.clone()
    }
}

impl Seq2SeqModel for Parrot {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }
    fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }
    fn max_output_tokens(&self) -> Option<usize> {
        None
    }
    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        let mut ids: Vec<u32> =
            text.bytes().map(|letter| u32::from(letter - b'a') + LETTER_A).collect();
        let truncated = ids.len() >= max_tokens;
        ids.truncate(max_tokens - 1);
        ids.push(EOS);
        Ok(Sequence { ids, truncated, ..Sequence::default() })
    }
    fn detokenize(&self, ids: &[u32]) -> Result<String, ComputeError> {
        let letters = ids.iter().filter(|id| **id >= LETTER_A);
        Ok(letters.filter_map(|id| char::from_u32(id - LETTER_A + u32::from('a'))).collect())
    }
    fn decoder(self: Arc<Self>, _threads: usize) -> std::io::Result<Box<dyn Decoder>> {
        lock(&self.recorded).decoders += 1;
        let (sources, hypotheses) = (BTreeMap::new(), BTreeMap::new());
        Ok(Box::new(ParrotDecoder { model: self, sources, hypotheses, numbers: 0 }))
    }
}

struct ParrotDecoder {
    model: Arc<Parrot>,
    sources: BTreeMap<EncoderOutputId, Vec<u32>>,
    hypotheses: BTreeMap<HypothesisId, (EncoderOutputId, Vec<u32>)>,
    numbers: u32,
}

impl ParrotDecoder {
    fn note_held(&self) {
        lock(&self.model.recorded).held = self.sources.len() + self.hypotheses.len();
    }
}

impl Decoder for ParrotDecoder {
    fn admit(&mut self, inputs: &[&Sequence]) -> Result<Vec<EncoderOutputId>, ComputeError> {
        let texts = inputs.iter().map(|input| self.model.detokenize(&input.ids));
        let texts = texts.collect::<Result<_, _>>()?;
        lock(&self.model.recorded).admitted.push(texts);
        if inputs.iter().any(|input| input.ids.contains(&REFUSED)) {
            return Err(ComputeError::NoPairs);
        }
        let admit = |input: &&Sequence| {
            self.numbers += 1;
            self.sources.insert(EncoderOutputId(self.numbers), input.ids.clone());
            EncoderOutputId(self.numbers)
        };
        let sources = inputs.iter().map(admit).collect();
        self.note_held();
        Ok(sources)
    }

    fn begin(
        &mut self,
        source: EncoderOutputId,
        _max: usize,
    ) -> Result<HypothesisId, ComputeError> {
        self.numbers += 1;
        self.hypotheses.insert(HypothesisId(self.numbers), (source, Vec::new()));
        self.note_held();
        Ok(HypothesisId(self.numbers))
    }

    fn step(
        &mut self,
        next: &[(HypothesisId, u32)],
        logits: &mut Vec<f32>,
    ) -> Result<(), ComputeError> {
        {
            let mut recorded = lock(&self.model.recorded);
            recorded.steps.push(next.len());
            self.model.changed.notify_all();
            while recorded.allowed == Some(0) {
                recorded =
                    self.model.changed.wait(recorded).unwrap_or_else(PoisonError::into_inner);
            }
            recorded.allowed = recorded.allowed.map(|steps| steps - 1);
        }
        logits.clear();
        for (hypothesis, id) in next {
            let (source, ids) = self.hypotheses.get_mut(hypothesis).unwrap();
            ids.push(*id);
            let source = &self.sources[source];
            assert!(!source.contains(&PANICS), "a text that the engine cannot compute");
            if source.contains(&FAILS) {
                return Err(ComputeError::NoPairs);
            }
            // Every letter is possible; the next letter of the input is the most likely.
            let mut row = vec![0.0; VOCABULARY];
            row[source[(ids.len() - 1).min(source.len() - 1)] as usize] = 4.0;
            logits.append(&mut row);
        }
        Ok(())
    }

    fn reorder(&mut self, beams: &[HypothesisId], from: &[usize]) -> Result<(), ComputeError> {
        let held: Vec<_> = from.iter().map(|from| self.hypotheses[&beams[*from]].clone()).collect();
        self.hypotheses.extend(beams.iter().copied().zip(held));
        Ok(())
    }

    fn end(&mut self, hypothesis: HypothesisId) {
        self.hypotheses.remove(&hypothesis).unwrap();
        self.note_held();
    }

    fn forget(&mut self, source: EncoderOutputId) {
        assert!(self.hypotheses.values().all(|(of, _)| *of != source), "answers end first");
        self.sources.remove(&source).unwrap();
        self.note_held();
    }
}

/// A worker over a model, and its queue.
struct Bench {
    queue: Arc<TextQueue>,
    work: Arc<TextWork>,
    model: Arc<Parrot>,
    _worker: TextWorker,
}

impl Bench {
    fn start(model: Arc<Parrot>, rows: usize) -> Self {
        let (queue, work) = (Arc::new(TextQueue::new(rows)), Arc::default());
        let shared: Arc<dyn Seq2SeqModel> = model.clone();
        let worker = TextWorker::start("parrot", 1, &shared, &queue, &work).unwrap();
        Self { queue, work, model, _worker: worker }
    }

    fn config(&self, options: &GenerateOptions, stream: bool) -> GenerationConfig {
        let limits = GenerationLimits::of(&*self.model, 4096, 4096, self.queue.rows);
        GenerationConfig::resolve(options, stream, &self.model.defaults, limits).unwrap()
    }

    fn push_with(&self, connection: u64, texts: &[&str], options: &GenerateOptions) -> TextHandle {
        let config = self.config(options, false);
        let connection = ConnectionId(connection);
        let job = TextJob { connection, texts: block(texts), config, sink: None };
        self.queue.push(job).unwrap()
    }

    fn push(&self, connection: u64, texts: &[&str]) -> TextHandle {
        self.push_with(connection, texts, &GenerateOptions::default())
    }

    fn stream(&self, text: &str, pieces: &Arc<Mutex<Vec<String>>>) -> TextHandle {
        let pieces = Arc::clone(pieces);
        let sink: PieceSink = Box::new(move |event| {
            let Event::Piece { text: 0, piece, .. } = event else { panic!("{event:?}") };
            lock(&pieces).push(piece);
        });
        let config = self.config(&GenerateOptions::default(), true);
        let (connection, texts) = (ConnectionId(9), block(&[text]));
        self.queue.push(TextJob { connection, texts, config, sink: Some(sink) }).unwrap()
    }
}

fn block(texts: &[&str]) -> TextBlock {
    let mut builder = TextBuilder::default();
    texts.iter().for_each(|text| builder.push(text).unwrap());
    TextBlock::parse(builder.count(), builder.into_bytes()).unwrap()
}

fn answers(generated: &Generated) -> Vec<&str> {
    generated.texts.iter().map(|text| text.sequences[0].text.as_str()).collect()
}

#[tokio::test]
async fn eight_requests_at_once_take_about_as_many_steps_as_one() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let texts: Vec<String> = ('a'..'i').map(|letter| letter.to_string().repeat(50)).collect();
    let waiting: Vec<_> = (0..).zip(&texts).map(|(c, text)| bench.push(c, &[text])).collect();
    bench.model.release();
    for (waiting, text) in waiting.into_iter().zip(&texts) {
        assert_eq!(answers(&waiting.done().await.unwrap()), [text]);
    }
    // 50 letters and the end; the first may have begun a step before the others came.
    let steps = bench.model.steps();
    assert!(steps.len() <= 52, "{steps:?}");
    assert_eq!(bench.work.steps.load(Ordering::Relaxed), steps.len() as u64);
    assert_eq!(bench.work.tokens.load(Ordering::Relaxed), 8 * 51);
    assert_eq!(bench.work.texts.load(Ordering::Relaxed), 8);
}

#[tokio::test]
async fn texts_join_and_leave_between_steps() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let long = bench.push(1, &["abcdefghij"]);
    bench.model.wait_for_steps(1);
    bench.model.allow(2);
    bench.model.wait_for_steps(3);
    let short = bench.push(2, &["uu"]);
    bench.model.release();
    assert_eq!(answers(&short.done().await.unwrap()), ["uu"]);
    assert_eq!(answers(&long.done().await.unwrap()), ["abcdefghij"]);
    assert_eq!(bench.model.steps(), [1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1]);
    assert_eq!(bench.model.admitted(), [["abcdefghij"], ["uu"]]);
}

#[tokio::test]
async fn connections_take_turns_if_more_texts_wait_than_fit() {
    let bench = Bench::start(Parrot::held_up(), 1);
    let first = bench.push(1, &["a", "b", "c", "d"]);
    bench.model.wait_for_steps(1);
    let second = bench.push(2, &["u", "w"]);
    assert_eq!(bench.queue.queued_texts(), 5);
    bench.model.release();
    second.done().await.unwrap();
    first.done().await.unwrap();
    let order: Vec<String> = bench.model.admitted().concat();
    assert_eq!(order, ["a", "b", "u", "c", "w", "d"]);
    assert!(bench.model.steps().iter().all(|rows| *rows == 1));
}

#[tokio::test]
async fn a_client_with_more_than_fits_leaves_room_for_another_to_join_at_the_next_step() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let long = "a".repeat(40);
    let bulk = bench.push(1, &[long.as_str(); 3 * ROWS]);
    bench.model.wait_for_steps(1);
    let other = bench.push(2, &["uv"]);
    bench.model.allow(2);
    bench.model.wait_for_steps(3);
    // A quarter of the batch was kept free, and the other's text took its place at once.
    assert_eq!(bench.model.steps(), [ROWS - ROWS / 4, ROWS - ROWS / 4 + 1, ROWS - ROWS / 4 + 1]);
    bench.model.release();
    assert_eq!(answers(&other.done().await.unwrap()), ["uv"]);
    assert_eq!(answers(&bulk.done().await.unwrap()), [long.as_str(); 3 * ROWS]);
}

#[tokio::test]
async fn beams_and_samples_count_as_rows_and_no_step_has_more_than_allowed() {
    let bench = Bench::start(Parrot::free(), 5);
    let beams = GenerateOptions {
        num_beams: Some(3),
        num_return_sequences: Some(2),
        ..GenerateOptions::default()
    };
    let samples = GenerateOptions {
        do_sample: Some(true),
        num_return_sequences: Some(2),
        max_new_tokens: Some(6),
        ..GenerateOptions::default()
    };
    let one = bench.push_with(1, &["abc", "def"], &beams);
    let two = bench.push_with(2, &["ghi", "jkl"], &samples);
    for generated in [one.done().await.unwrap(), two.done().await.unwrap()] {
        assert!(generated.texts.iter().all(|text| text.sequences.len() == 2), "{generated:?}");
    }
    assert!(bench.model.steps().iter().all(|rows| (1..=5).contains(rows)));
}

#[tokio::test]
async fn inputs_join_in_portions_so_that_running_texts_do_not_wait_for_all_of_them() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let running = bench.push(1, &["abcdefgh"]);
    bench.model.wait_for_steps(1);
    let long = "k".repeat(600);
    let options = GenerateOptions { max_new_tokens: Some(5), ..GenerateOptions::default() };
    let bulk = bench.push_with(2, &[long.as_str(); 5], &options);
    bench.model.release();
    running.done().await.unwrap();
    bulk.done().await.unwrap();
    let together: Vec<usize> = bench.model.admitted().iter().map(Vec::len).collect();
    assert_eq!(together, [1, 2, 2, 1]);
}

#[tokio::test]
async fn a_cancelled_text_leaves_at_the_next_step_and_holds_nothing() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let gone = bench.push(1, &["aaaaaaaaaa", "bbbbbbbbbb"]);
    bench.model.wait_for_steps(1);
    let kept = bench.push(2, &["cc"]);
    let never = bench.push(3, &["dd"]);
    bench.model.allow(1);
    bench.model.wait_for_steps(2);
    let before = bench.model.steps()[1];
    drop((gone, never));
    bench.model.release();
    assert_eq!(answers(&kept.done().await.unwrap()), ["cc"]);
    assert_eq!(before, 4);
    assert_eq!(bench.model.steps()[2..], [1, 1]);
    // What follows is behind the end of what was kept.
    bench.push(4, &["e"]).done().await.unwrap();
    let held = lock(&bench.model.recorded).held;
    assert!(held <= 2, "{held} inputs and answers are held");
}

#[tokio::test]
async fn a_text_that_the_engine_cannot_compute_fails_alone_and_the_worker_goes_on() {
    for (poison, panics) in [("az", true), ("ay", false)] {
        let bench = Bench::start(Parrot::held_up(), ROWS);
        let pieces = Arc::default();
        let streamed = bench.stream("abcdef", &pieces);
        let other = bench.push(1, &["bcd", "cde"]);
        bench.model.wait_for_steps(1);
        bench.model.allow(3);
        bench.model.wait_for_steps(4);
        let poisoned = bench.push(2, &["d", poison]);
        bench.model.release();
        let error = poisoned.done().await.unwrap_err();
        assert_eq!(matches!(error, TextError::Panicked), panics, "{error}");
        assert_eq!(matches!(error, TextError::Compute(_)), !panics, "{error}");
        assert_eq!(answers(&other.done().await.unwrap()), ["bcd", "cde"]);
        // Generated again from its beginning, but not sent again.
        assert_eq!(answers(&streamed.done().await.unwrap()), ["abcdef"]);
        assert_eq!(lock(&pieces).concat(), "abcdef");
        assert_eq!(answers(&bench.push(3, &["efg"]).done().await.unwrap()), ["efg"]);
        assert!(lock(&bench.model.recorded).decoders >= 2, "a fresh decoder after the failure");
    }
}

#[tokio::test]
async fn an_input_that_the_engine_refuses_fails_alone_and_disturbs_nobody() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let running = bench.push(1, &["abcdef"]);
    bench.model.wait_for_steps(1);
    let refused = bench.push(2, &["x"]);
    let neighbour = bench.push(3, &["b"]);
    bench.model.release();
    assert!(matches!(refused.done().await, Err(TextError::Compute(_))));
    assert_eq!(answers(&neighbour.done().await.unwrap()), ["b"]);
    assert_eq!(answers(&running.done().await.unwrap()), ["abcdef"]);
    assert_eq!(bench.model.steps(), [1, 2, 2, 1, 1, 1, 1], "nothing was computed again");
    assert_eq!(lock(&bench.model.recorded).decoders, 1);
}

#[tokio::test]
async fn a_stream_brings_each_letter_as_it_is_generated() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let pieces = Arc::default();
    let waiting = bench.stream("abc", &pieces);
    bench.model.wait_for_steps(1);
    bench.model.allow(2);
    bench.model.wait_for_steps(3);
    assert_eq!(*lock(&pieces), ["a", "b"]);
    bench.model.release();
    assert_eq!(answers(&waiting.done().await.unwrap()), ["abc"]);
    assert_eq!(*lock(&pieces), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_answer_has_its_tokens_and_finish_reason() {
    let bench = Bench::start(Parrot::free(), ROWS);
    let options = |max, stop: &[&str]| GenerateOptions {
        max_new_tokens: Some(max),
        stop: stop.iter().map(ToString::to_string).collect(),
        ..GenerateOptions::default()
    };
    let cases = [
        (options(9, &[]), "abcd", 5, FinishReason::End),
        (options(2, &[]), "ab", 2, FinishReason::Length),
        (options(9, &["cd", "bc"]), "a", 3, FinishReason::Stop),
    ];
    for (options, text, tokens, finish) in cases {
        let generated = bench.push_with(1, &["abcd"], &options).done().await.unwrap();
        let answer = &generated.texts[0].sequences[0];
        assert_eq!((answer.text.as_str(), answer.ids.len(), answer.finish), (text, tokens, finish));
        assert_eq!((generated.texts[0].input_tokens, generated.texts[0].truncated), (5, false));
        let beams = GenerateOptions { num_beams: Some(2), ..options };
        let generated = bench.push_with(1, &["abcd"], &beams).done().await.unwrap();
        let answer = &generated.texts[0].sequences[0];
        assert_eq!((answer.text.as_str(), answer.finish), (text, finish));
        assert!(answer.score.is_some_and(|score| score < 0.0));
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text_in_any_batch() {
    let bench = Bench::start(Parrot::held_up(), ROWS);
    let options = |seed| GenerateOptions {
        do_sample: Some(true),
        seed,
        num_return_sequences: Some(2),
        temperature: Some(3.0),
        min_new_tokens: Some(10),
        max_new_tokens: Some(30),
        ..GenerateOptions::default()
    };
    let company = bench.push(1, &["abcabcabcabc"]);
    let together = bench.push_with(2, &["hello", "hello"], &options(Some(7)));
    bench.model.release();
    let together = together.done().await.unwrap();
    company.done().await.unwrap();
    let alone = bench.push_with(1, &["hello"], &options(Some(7))).done().await.unwrap();
    assert_eq!(together.texts, [alone.texts.clone(), alone.texts.clone()].concat());
    assert_ne!(alone.texts[0].sequences[0].ids, alone.texts[0].sequences[1].ids);

    let sampled = async |seed| {
        let generated = bench.push_with(1, &["hello"], &options(seed)).done().await.unwrap();
        generated.texts[0].sequences[0].ids.clone()
    };
    let other = BTreeSet::from([sampled(Some(8)).await, sampled(None).await, sampled(None).await]);
    assert_eq!(other.len(), 3, "no seed: another text each time");
}

#[tokio::test]
async fn a_worker_that_ends_first_answers_what_waits() {
    let bench = Bench::start(Parrot::held_up(), 2);
    let all: Vec<_> = (0..5).map(|connection| bench.push(connection, &["abc", "de"])).collect();
    let Bench { queue, model, _worker: worker, .. } = bench;
    let ending = std::thread::spawn(move || drop(worker));
    model.release();
    for waiting in all {
        assert_eq!(answers(&waiting.done().await.unwrap()), ["abc", "de"]);
    }
    ending.join().unwrap();
    assert_eq!(lock(&model.recorded).held, 0);
    assert_eq!(queue.queued_texts(), 0);
}

#[tokio::test]
async fn a_request_without_texts_is_answered() {
    let bench = Bench::start(Parrot::free(), ROWS);
    assert_eq!(bench.push(1, &[]).done().await.unwrap(), Generated { texts: Vec::new() });
}

#[tokio::test]
async fn a_request_that_excludes_every_token_fails_with_that_reason() {
    let bench = Bench::start(Parrot::free(), ROWS);
    let options = GenerateOptions {
        no_repeat_ngram_size: Some(1),
        min_new_tokens: Some(60),
        max_new_tokens: Some(60),
        ..GenerateOptions::default()
    };
    for options in [GenerateOptions { num_beams: Some(2), ..options.clone() }, options] {
        let error = bench.push_with(1, &["abc"], &options).done().await.unwrap_err();
        assert!(matches!(error, TextError::NoToken), "{error}");
    }
    assert_eq!(answers(&bench.push(2, &["abc"]).done().await.unwrap()), ["abc"]);
}
