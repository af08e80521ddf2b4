//! Generated texts, compared with those of transformers. They go through the queue and the worker that
//! serve clients, so that what is compared is what clients get.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::sync::Arc;

use emberd_daemon::engine::Seq2SeqModel;
use emberd_daemon::engine::{builtin_verbalizer_t5, load_seq2seq};
use emberd_daemon::generation::{
    GenerationConfig, GenerationLimits, PieceSink, TextJob, TextQueue, TextWork, TextWorker,
};
use emberd_daemon::lease::ConnectionId;
use emberd_protocol::{
    EarlyStopping, Event, GenerateOptions, Generated, GeneratedSequence, TextBlock, TextBuilder,
};
use serde_json::Value;
use tokio::sync::mpsc;

use test_data::{add, copy_of, data, json, sentencepiece_folder, texts};

#[path = "../engine/tests/models/test_data.rs"]
mod test_data;

/// The folder of tiny models.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/tests/data");

const MODELS: [&str; 5] = ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"];

/// If the two most likely tokens are closer than this, rounding may choose the other one.
const MARGIN: f64 = 1e-3;

/// A model with its queue and worker.
struct Served {
    model: Arc<dyn Seq2SeqModel>,
    queue: Arc<TextQueue>,
    _worker: TextWorker,
    limits: GenerationLimits,
}

impl Served {
    fn start(model: Arc<dyn Seq2SeqModel>, rows: usize) -> Self {
        let limits = GenerationLimits::of(&*model, 64, 128, rows);
        let queue = Arc::new(TextQueue::new(rows));
        let work = Arc::new(TextWork::default());
        let worker = TextWorker::start("test", 2, &model, &queue, &work).unwrap();
        Self { model, queue, _worker: worker, limits }
    }

    fn job(&self, texts: &[String], options: &GenerateOptions, sink: Option<PieceSink>) -> TextJob {
        let mut builder = TextBuilder::default();
        texts.iter().for_each(|text| builder.push(text).unwrap());
        let texts = TextBlock::parse(builder.count(), builder.into_bytes()).unwrap();
        let defaults = self.model.defaults();
        let config =
            GenerationConfig::resolve(options, sink.is_some(), defaults, self.limits).unwrap();
        TextJob { connection: ConnectionId(1), texts, config, sink }
    }

    async fn generate(&self, texts: &[String], options: &GenerateOptions) -> Generated {
        let job = self.job(texts, options, None);
        self.queue.push(job).unwrap().done().await.unwrap()
    }
}

/// The options of a mode, as for the reference.
fn options(mode: &Value, max_new_tokens: &Value) -> GenerateOptions {
    let number = |key: &str| mode[key].as_u64().map(|value| u32::try_from(value).unwrap());
    #[expect(clippy::cast_possible_truncation, reason = "penalties are written with one digit")]
    let real = |key: &str| mode[key].as_f64().map(|value| value as f32);
    GenerateOptions {
        max_new_tokens: Some(u32::try_from(max_new_tokens.as_u64().unwrap()).unwrap()),
        min_new_tokens: number("min_new_tokens"),
        num_beams: number("num_beams"),
        no_repeat_ngram_size: number("no_repeat_ngram_size"),
        length_penalty: real("length_penalty"),
        repetition_penalty: real("repetition_penalty"),
        num_return_sequences: number("num_return_sequences"),
        early_stopping: match &mode["early_stopping"] {
            Value::Bool(true) => Some(EarlyStopping::Yes),
            Value::String(never) if never == "never" => Some(EarlyStopping::Never),
            _ => None,
        },
        ..GenerateOptions::default()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Fails unless an answer has the reference's tokens, text and score.
fn assert_equal(got: &GeneratedSequence, want: &Value, what: &str) {
    // The reference includes the start token.
    assert_eq!(got.ids, ids(&want["ids"])[1..], "{what}: tokens");
    assert_eq!(got.text, want["text"].as_str().unwrap(), "{what}: text");
    if let Some(score) = want["sequence_score"].as_f64() {
        assert_score(got, score, what);
    }
}

fn assert_score(got: &GeneratedSequence, want: f64, what: &str) {
    let close = (f64::from(got.score.unwrap()) - want).abs() <= 1e-4 * want.abs().max(1.0);
    assert!(close, "{what}: score {:?} is not {want}", got.score);
}

/// Where the reference itself is a tie: at the third step of these beams the fourth and the fifth
/// candidate are 9e-5 apart, computed in 64 bits, and rounding alone decides.
const TIE: (&str, &str) = ("flan-t5-gated-untied", "very_long");

#[tokio::test]
async fn folders_without_a_tokenizer_json_answer_as_the_reference_does() {
    let expected = json("sentencepiece/expected.json");
    for (kind, rows) in expected["generated"].as_object().unwrap() {
        let folder = sentencepiece_folder(kind);
        let served = Served::start(load_seq2seq(folder.path()).unwrap(), 8);
        let options = GenerateOptions { max_new_tokens: Some(12), ..GenerateOptions::default() };
        let mut sure = 0;
        for row in rows.as_array().unwrap() {
            let texts = [row["text"].as_str().unwrap().to_owned()];
            let answer = served.generate(&texts, &options).await;
            let answer = &answer.texts[0].sequences[0];
            assert_eq!(answer.text, served.model.detokenize(&answer.ids).unwrap(), "{kind}");
            if row["margin"].as_f64().unwrap() > MARGIN {
                sure += 1;
                assert_eq!(answer.ids, ids(&row["ids"]), "{kind} {}", row["text"]);
                assert_eq!(answer.text, row["answer"].as_str().unwrap(), "{kind}");
            }
        }
        assert!(sure > 3, "{kind}");
    }
}

#[tokio::test]
async fn every_mode_makes_the_tokens_of_transformers() {
    for name in MODELS {
        let expected = json(&format!("expected/{name}.json"));
        let served = Served::start(load_seq2seq(&data(name)).unwrap(), 16);
        let prefix = expected["prefix"].as_str().unwrap();
        let rows: Vec<(String, &Value)> = texts()
            .into_iter()
            .map(|text| format!("{prefix}{text}"))
            .zip(expected["rows"].as_array().unwrap())
            .collect();
        for (mode, given) in expected["modes"].as_object().unwrap() {
            let rows: Vec<_> = rows.iter().filter(|(_, row)| row[mode].is_object()).collect();
            assert!(rows.len() >= 4, "{name}: {mode} was run for {} texts", rows.len());
            let texts: Vec<String> = rows.iter().map(|(text, _)| text.clone()).collect();
            let options = options(given, &expected["max_new_tokens"]);
            let generated = served.generate(&texts, &options).await;
            for (generated, (_, row)) in generated.texts.iter().zip(rows) {
                let want = &row[mode];
                if mode.starts_with("beam") && (name, row["id"].as_str().unwrap()) == TIE {
                    continue;
                }
                if want["min_top1_top2_margin"].as_f64().is_none_or(|margin| margin > MARGIN) {
                    let what = format!("{name}, {mode}, {}", row["id"]);
                    assert_equal(&generated.sequences[0], want, &what);
                }
            }
        }
    }
}

#[tokio::test]
async fn beams_end_and_are_returned_as_in_transformers() {
    let expected = json("expected/generation-modes.json");
    let texts = texts();
    for (name, rows) in expected["models"].as_object().unwrap() {
        let served = Served::start(load_seq2seq(&data(name)).unwrap(), 16);
        let prefix = json(&format!("expected/{name}.json"))["prefix"].clone();
        let rows = rows.as_array().unwrap();
        let text = |row: &Value| &texts[usize::try_from(row["text"].as_u64().unwrap()).unwrap()];
        let inputs: Vec<String> =
            rows.iter().map(|row| format!("{}{}", prefix.as_str().unwrap(), text(row))).collect();
        for (mode, given) in expected["modes"].as_object().unwrap() {
            let options = options(given, &expected["max_new_tokens"]);
            let generated = served.generate(&inputs, &options).await;
            for (generated, row) in generated.texts.iter().zip(rows) {
                let (want, what) =
                    (&row["modes"][mode], format!("{name}, {mode}, {}", row["text"]));
                let answers = generated.sequences.iter().map(|answer| answer.ids.clone());
                let wanted = want["ids"].as_array().unwrap().iter().map(ids);
                assert_eq!(answers.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{what}");
                let scores = want["scores"].as_array().into_iter().flatten();
                for (answer, score) in generated.sequences.iter().zip(scores) {
                    assert_score(answer, score.as_f64().unwrap(), &what);
                }
            }
        }
    }
}

/// Folders whose `generation_config.json` has rules that a request cannot set.
#[tokio::test]
async fn rules_of_the_folder_are_kept_as_in_transformers() {
    let expected = json("expected/generation-rules.json");
    let (texts, mut compared) = (texts(), 0);
    for (name, rules) in expected["models"].as_object().unwrap() {
        let prefix = json(&format!("expected/{name}.json"))["prefix"].clone();
        for rule in rules.as_array().unwrap() {
            let folder = copy_of(name);
            for (key, value) in rule["said"].as_object().unwrap() {
                add(&folder, "generation_config.json", key, value.clone());
            }
            let served = Served::start(load_seq2seq(folder.path()).unwrap(), 16);
            let rows = rule["rows"].as_array().unwrap();
            let text = |row: &Value| {
                let text = &texts[usize::try_from(row["text"].as_u64().unwrap()).unwrap()];
                format!("{}{text}", prefix.as_str().unwrap())
            };
            let inputs: Vec<String> = rows.iter().map(text).collect();
            for (mode, beams) in [("greedy", 1), ("beam3", 3)] {
                let beams = serde_json::json!({ "num_beams": beams });
                let options = options(&beams, &expected["max_new_tokens"]);
                let generated = served.generate(&inputs, &options).await;
                for (generated, row) in generated.texts.iter().zip(rows) {
                    if row[mode]["margin"].as_f64().unwrap() > MARGIN {
                        compared += 1;
                        let what = format!("{name}, {}, {mode}, {}", rule["rule"], row["text"]);
                        assert_eq!(generated.sequences[0].ids, ids(&row[mode]["ids"]), "{what}");
                    }
                }
            }
        }
    }
    assert!(compared > 300, "{compared} texts were compared");
}

fn verbalizer() -> Arc<dyn Seq2SeqModel> {
    builtin_verbalizer_t5().unwrap()
}

fn verbalizer_rows() -> Vec<Value> {
    json("verbalizer-t5/expected.json")["rows"].as_array().unwrap().clone()
}

fn inputs(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["input"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_built_in_model_answers_as_it_does_in_transformers() {
    let served = Served::start(verbalizer(), 32);
    let rows = verbalizer_rows();
    for (beams, mode) in [(1, "greedy"), (4, "beam4")] {
        let options = GenerateOptions { num_beams: Some(beams), ..GenerateOptions::default() };
        let generated = served.generate(&inputs(&rows), &options).await;
        for (generated, row) in generated.texts.iter().zip(&rows) {
            let answer = &generated.sequences[0];
            assert_eq!(answer.ids, ids(&row[format!("{mode}_ids")])[1..], "{}", row["input"]);
            assert_eq!(answer.text, row[format!("{mode}_text")].as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn beams_are_returned_the_best_first_and_the_first_is_the_single_one() {
    let served = Served::start(verbalizer(), 8);
    let texts = &inputs(&verbalizer_rows())[..5];
    let one = GenerateOptions { num_beams: Some(4), ..GenerateOptions::default() };
    let all = GenerateOptions { num_return_sequences: Some(4), ..one.clone() };
    let (one, all) = (served.generate(texts, &one).await, served.generate(texts, &all).await);
    for (one, all) in one.texts.iter().zip(&all.texts) {
        assert_eq!(all.sequences.len(), 4);
        assert_eq!(all.sequences[0].ids, one.sequences[0].ids);
        assert!(all.sequences.is_sorted_by(|a, b| a.score >= b.score), "{all:?}");
    }
}

#[tokio::test]
async fn streams_of_many_texts_at_once_are_their_answers_piece_by_piece() {
    let served = Served::start(verbalizer(), 8);
    let texts = inputs(&verbalizer_rows());
    let (sender, mut events) = mpsc::unbounded_channel();
    let sink: PieceSink = Box::new(move |event| sender.send(event).unwrap());
    let job = served.job(&texts, &GenerateOptions::default(), Some(sink));
    let streamed = served.queue.push(job).unwrap().done().await.unwrap();
    let whole = served.generate(&texts, &GenerateOptions::default()).await;
    assert_eq!(streamed, whole);

    let mut shown = vec![String::new(); texts.len()];
    let mut pieces = 0;
    while let Ok(event) = events.try_recv() {
        let Event::Piece { text, piece, tokens } = event else { panic!("{event:?}") };
        shown[text as usize].push_str(&piece);
        assert!(tokens as usize <= whole.texts[text as usize].sequences[0].ids.len());
        pieces += 1;
    }
    let answers = whole.texts.iter().map(|text| text.sequences[0].text.clone());
    assert_eq!(shown, answers.collect::<Vec<_>>());
    assert!(pieces > 2 * texts.len(), "{pieces} pieces of {} texts", texts.len());
}

#[tokio::test]
async fn streams_of_broken_characters_are_their_answers_too() {
    // A random model over bytes: characters begin and do not end.
    let served = Served::start(load_seq2seq(&data("bart")).unwrap(), 8);
    let options = GenerateOptions {
        do_sample: Some(true),
        temperature: Some(2.0),
        seed: Some(5),
        max_new_tokens: Some(60),
        ..GenerateOptions::default()
    };
    let (sender, mut events) = mpsc::unbounded_channel();
    let sink: PieceSink = Box::new(move |event| sender.send(event).unwrap());
    let job = served.job(&texts(), &options, Some(sink));
    let streamed = served.queue.push(job).unwrap().done().await.unwrap();
    let whole = served.generate(&texts(), &options).await;
    assert_eq!(streamed, whole);
    let mut shown = vec![String::new(); streamed.texts.len()];
    while let Ok(event) = events.try_recv() {
        let Event::Piece { text, piece, .. } = event else { panic!("{event:?}") };
        shown[text as usize].push_str(&piece);
    }
    let answers = whole.texts.iter().map(|text| text.sequences[0].text.clone());
    assert_eq!(shown, answers.collect::<Vec<_>>());
    assert!(shown.concat().contains(char::REPLACEMENT_CHARACTER), "nothing was broken");
}

#[tokio::test]
async fn a_stop_string_ends_an_answer_before_it_even_across_tokens() {
    let served = Served::start(verbalizer(), 8);
    let rows = verbalizer_rows();
    let is_date = |row: &&Value| row["input"].as_str().unwrap().starts_with("date:");
    let date = rows.iter().find(is_date).unwrap();
    let answer = date["greedy_text"].as_str().unwrap();
    // From the middle of the year to the middle of the month.
    let (stop, before) = (&answer[2..6], &answer[..2]);
    for num_beams in [1, 4] {
        let options = GenerateOptions {
            stop: vec![stop.to_owned()],
            num_beams: Some(num_beams),
            ..GenerateOptions::default()
        };
        let generated = served.generate(&inputs(std::slice::from_ref(date)), &options).await;
        assert_eq!(generated.texts[0].sequences[0].text, before);
    }
}
