//! The client side of the benchmarks that `scripts/bench` runs: prints one JSON line.
//!
//! ```text
//! bench_client inference SOCKET MODEL CORPUS.jsonl   throughput, then latency of short queries
//! bench_client answers SOCKET JOBS.json OUT.json [single|batch]   rows, scores and generated texts:
//!                                                    each text alone, or all of a job at once
//! bench_client hold SOCKET MODEL                     lease, embed, wait for the end of stdin
//! bench_client cache SOCKET MODEL CORPUS.jsonl       texts computed, then the same from the cache
//! bench_client rounds SOCKET MODEL                   round trips: status; lease and release
//! bench_client load SOCKET MODEL CORPUS.jsonl        embeds without pause until the end of stdin
//! bench_client generate SOCKET MODEL TEXTS.json TOKENS  tokens per second: one text, all in one
//!                                                    request, one client for each; the first piece
//! bench_client first SOCKET MODEL                    one text, as soon as the socket is there
//! ```
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

use emberd_client::{
    Client, ElementType, EmbedOptions, Error, GenerateOptions, Prompt, ScoreActivation,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn StdError>>;

/// Texts embedded before anything is measured.
const WARM_UP: usize = 256;

/// Single queries whose latency is measured.
const LATENCY_SAMPLES: usize = 300;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["inference", socket, model, corpus] => inference(socket, model, corpus),
        ["answers", socket, jobs, out, "single"] => answers(socket, jobs, out, 1),
        ["answers", socket, jobs, out, "batch"] => answers(socket, jobs, out, usize::MAX),
        ["cache", socket, model, corpus] => cache(socket, model, corpus),
        ["rounds", socket, model] => rounds(socket, model),
        ["load", socket, model, corpus] => load(socket, model, corpus),
        ["generate", socket, model, texts, tokens] => generate(socket, model, texts, tokens.parse()?),
        ["hold", socket, model] => hold(socket, model),
        ["first", socket, model] => first(socket, model),
        _ => {
            Err("usage: bench_client inference|answers|cache|rounds|load|generate|hold|first SOCKET ..."
                .into())
        }
    }
}

fn inference(socket: &str, model: &str, corpus: &str) -> Outcome {
    let (mut texts, mut short) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(corpus)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let text = line["text"].as_str().ok_or("a line without a text")?.to_owned();
        if line["kind"] == "query" && short.len() < 50 {
            short.push(text.clone());
        }
        texts.push(text);
    }
    let model = Client::connect_to(Path::new(socket))?.embedding_model(model)?;
    model.embed(&texts[..texts.len().min(WARM_UP)])?;

    let started = Instant::now();
    let rows = model.embed(&texts)?;
    let seconds = started.elapsed().as_secs_f64();
    let tokens = rows.tokens();
    drop(rows);

    let mut latencies = Vec::with_capacity(LATENCY_SAMPLES);
    for text in short.iter().cycle().take(LATENCY_SAMPLES + LATENCY_SAMPLES / 6) {
        let started = Instant::now();
        model.embed_one(text)?;
        latencies.push(started.elapsed().as_secs_f64() * 1e3);
    }
    latencies.drain(..LATENCY_SAMPLES / 6);
    latencies.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "counts of texts and tokens")]
    let (texts_s, tokens_s) = (texts.len() as f64 / seconds, tokens as f64 / seconds);
    println!(
        "{}",
        json!({
            "texts_s": texts_s, "tokens_s": tokens_s, "tokens": tokens,
            "p50_ms": latencies[LATENCY_SAMPLES / 2],
            "p99_ms": latencies[LATENCY_SAMPLES * 99 / 100],
        })
    );
    Ok(())
}

/// Texts that all differ.
fn distinct(corpus: &str) -> Result<Vec<String>, Box<dyn StdError>> {
    let mut seen = BTreeSet::new();
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(corpus)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let text = line["text"].as_str().ok_or("a line without a text")?;
        if seen.insert(text.to_owned()) {
            texts.push(text.to_owned());
        }
    }
    Ok(texts)
}

/// Time per text in microseconds, in batches of 32 and one by one: the first time, when all are
/// computed, and then from the cache. The bits must be the same.
fn cache(socket: &str, model: &str, corpus: &str) -> Outcome {
    const BATCH: usize = 32;
    const AGAIN: usize = 5;
    let texts = distinct(corpus)?;
    let (bulk, singles) = texts.split_at(texts.len() / 4 * 3);
    let model = Client::connect_to(Path::new(socket))?.embedding_model(model)?;
    // Texts outside the corpus: workers and segments are ready before the measurement starts.
    let other: Vec<String> =
        (0..WARM_UP).map(|n| format!("a text to begin with, number {n}")).collect();
    model.embed(&other)?;

    let round = |texts: &[String], batch: usize| -> Result<(f64, u64, Vec<u32>), Error> {
        let (mut tokens, mut bits) = (0, Vec::new());
        let mut spent = Duration::ZERO;
        for texts in texts.chunks(batch) {
            let started = Instant::now();
            let rows = model.embed(texts)?;
            spent += started.elapsed();
            tokens += rows.tokens();
            bits.extend(rows.as_slice().iter().map(|value| value.to_bits()));
        }
        let each = spent.as_secs_f64() * 1e6 / f64::from(u32::try_from(texts.len()).unwrap_or(1));
        Ok((each, tokens, bits))
    };
    let mut figures = serde_json::Map::new();
    for (name, texts, batch) in [("batch", bulk, BATCH), ("single", singles, 1)] {
        let (computed, tokens, first) = round(texts, batch)?;
        let mut cached = Vec::new();
        for _ in 0..AGAIN {
            let (each, computed_tokens, again) = round(texts, batch)?;
            if computed_tokens != 0 || again != first {
                return Err("a text was computed again, or its bits are others".into());
            }
            cached.push(each);
        }
        cached.sort_by(f64::total_cmp);
        figures.insert(format!("{name}_computed_us"), computed.into());
        figures.insert(format!("{name}_cached_us"), cached[AGAIN / 2].into());
        figures.insert(format!("{name}_tokens"), tokens.into());
    }
    println!("{}", Value::Object(figures));
    Ok(())
}

/// Round trips in microseconds, of requests that need no model.
fn rounds(socket: &str, model: &str) -> Outcome {
    const SAMPLES: usize = 2000;
    let client = Client::connect_to(Path::new(socket))?;
    // The model stays in memory.
    let _held = client.embedding_model(model)?;
    let measure = |work: &dyn Fn() -> Result<(), Error>| -> Result<(f64, f64), Error> {
        let mut spent = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let started = Instant::now();
            work()?;
            spent.push(started.elapsed().as_secs_f64() * 1e6);
        }
        spent.sort_by(f64::total_cmp);
        Ok((spent[SAMPLES / 2], spent[SAMPLES * 99 / 100]))
    };
    let status = measure(&|| client.status().map(drop))?;
    let lease = measure(&|| client.model(model)?.release())?;
    println!(
        "{}",
        json!({
            "status_p50_us": status.0, "status_p99_us": status.1,
            "lease_p50_us": lease.0, "lease_p99_us": lease.1,
        })
    );
    Ok(())
}

fn load(socket: &str, model: &str, corpus: &str) -> Outcome {
    let texts = distinct(corpus)?;
    let model = Client::connect_to(Path::new(socket))?.embedding_model(model)?;
    model.embed(&texts[..texts.len().min(64)])?;
    println!("{}", json!({"ready": true}));
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ends.store(true, Ordering::Relaxed);
    });
    for texts in texts.chunks(64).cycle() {
        model.embed(texts)?;
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

/// The jobs, which are the same for us and for the peer.
#[derive(Deserialize)]
struct Job {
    model: String,
    task: String,
    #[serde(default)]
    texts: Vec<String>,
    #[serde(default)]
    pairs: Vec<(String, String)>,
    options: Value,
}

/// Runs the jobs, with the given number of texts (or pairs) in a request.
fn answers(socket: &str, jobs: &str, out: &str, at_once: usize) -> Outcome {
    let jobs: Vec<Job> = serde_json::from_str(&std::fs::read_to_string(jobs)?)?;
    let client = Client::connect_to(Path::new(socket))?;
    let made: Result<Vec<Value>, _> =
        jobs.iter().map(|job| answer(&client, job, at_once)).collect();
    std::fs::write(out, serde_json::to_vec(&made?)?)?;
    println!("{}", json!({"jobs": jobs.len()}));
    Ok(())
}

fn answer(client: &Client, job: &Job, at_once: usize) -> Result<Value, Box<dyn StdError>> {
    let texts = job.texts.chunks(at_once);
    let mut made = Vec::new();
    match job.task.as_str() {
        "embed" => {
            let model = client.embedding_model(&job.model)?;
            let mut options = EmbedOptions::default();
            if let Some(name) = job.options["prompt"].as_str() {
                options.prompt = Prompt::Named(name.to_owned());
            }
            let is_int8 = job.options["element"] == "int8";
            if is_int8 {
                options.element = ElementType::I8;
            }
            for texts in texts {
                let rows = model.embed_with(texts, &options)?;
                if is_int8 {
                    let values = rows.as_i8().ok_or("rows that are not int8")?;
                    made.extend(values.chunks_exact(rows.dimension()).map(|row| json!(row)));
                } else {
                    made.extend(rows.rows().map(|row| json!(row)));
                }
            }
            return Ok(json!({ "rows": made }));
        }
        "rerank" => {
            let model = client.rerank_model(&job.model)?;
            for pairs in job.pairs.chunks(at_once) {
                let scores = model.scores(pairs, ScoreActivation::Model)?;
                made.extend(scores.rows().map(|row| json!(row)));
            }
            return Ok(json!({ "rows": made }));
        }
        "fill_mask" => {
            let top_k = job.options["top_k"].as_u64().and_then(|k| k.try_into().ok()).unwrap_or(5);
            let model = client.text_model(&job.model)?;
            for texts in texts {
                for text in model.fill_mask(texts, top_k)?.texts {
                    let masks = text.masks.into_iter().map(|mask| json!(mask.candidates));
                    made.push(masks.collect());
                }
            }
        }
        "generate" => {
            let mut options = job.options.clone();
            options["stop"] = json!([]);
            let options: GenerateOptions = serde_json::from_value(options)?;
            let model = client.text_model(&job.model)?;
            for texts in texts {
                for text in model.generate(texts, &options)?.texts {
                    let ids: Vec<_> = text.sequences.into_iter().map(|made| made.ids).collect();
                    made.push(json!({ "ids": ids }));
                }
            }
        }
        other => return Err(format!("no task: {other}").into()),
    }
    Ok(json!({ "texts": made }))
}

/// Rounds of a generation. The fastest counts, since other load on the machine only makes them slower.
const ROUNDS: usize = 5;

/// Rounds in which one client and several alternate. They take different times, and the longer ones are
/// rarely undisturbed, so the median of each counts.
const TURNS: usize = 9;

/// Generates from one text, from all of them in one request, and from each by its own client.
fn generate(socket: &str, model: &str, texts: &str, tokens: u32) -> Outcome {
    let texts: Vec<String> = serde_json::from_str(&std::fs::read_to_string(texts)?)?;
    // Each runs up to the token limit, so that all peers generate the same number.
    let exactly = |tokens| GenerateOptions {
        max_new_tokens: Some(tokens),
        min_new_tokens: Some(tokens),
        num_beams: Some(1),
        do_sample: Some(false),
        ..GenerateOptions::default()
    };
    let options = exactly(tokens);
    let leased = || Client::connect_to(socket)?.text_model(model);
    let model = leased()?;
    let one = fastest(|| Ok(model.generate(&texts[..1], &options).map(drop)?))?;
    let all = fastest(|| Ok(model.generate(&texts, &options).map(drop)?))?;
    let models = texts.iter().map(|_| leased()).collect::<Result<Vec<_>, Error>>()?;
    let each_its_own = || {
        std::thread::scope(|scope| {
            let each = models.iter().zip(&texts);
            let clients: Vec<_> = each
                .map(|(model, text)| {
                    let options = &options;
                    scope.spawn(move || model.generate(&[text], options).map(drop))
                })
                .collect();
            clients
                .into_iter()
                .try_for_each(|client| Ok(client.join().map_err(|_| "a client panicked")??))
        })
    };
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        alone.push(timed(|| Ok(model.generate(&texts[..1], &options).map(drop)?))?);
        together.push(timed(each_its_own)?);
    }
    let mut first = Duration::MAX;
    for _ in 0..=ROUNDS {
        let (started, mut seen) = (Instant::now(), None);
        model.generate_with(&texts[..1], &options, |_| {
            seen.get_or_insert_with(|| started.elapsed());
        })?;
        first = first.min(seen.ok_or("a text without a piece")?);
    }
    let made = f64::from(tokens);
    #[expect(clippy::cast_precision_loss, reason = "a count of texts")]
    let count = texts.len() as f64;
    println!(
        "{}",
        json!({
            "one_tokens_s": made / one.as_secs_f64(),
            "all_tokens_s": made * count / all.as_secs_f64(),
            "one_client_tokens_s": made / middle(alone).as_secs_f64(),
            "clients_tokens_s": made * count / middle(together).as_secs_f64(),
            "first_piece_ms": first.as_secs_f64() * 1e3,
        })
    );
    Ok(())
}

/// The shortest of several rounds, after a warm-up.
fn fastest(mut round: impl FnMut() -> Outcome) -> Result<Duration, Box<dyn StdError>> {
    round()?;
    let mut shortest = Duration::MAX;
    for _ in 0..ROUNDS {
        shortest = shortest.min(timed(&mut round)?);
    }
    Ok(shortest)
}

fn timed(round: impl FnOnce() -> Outcome) -> Result<Duration, Box<dyn StdError>> {
    let started = Instant::now();
    round()?;
    Ok(started.elapsed())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn hold(socket: &str, model: &str) -> Outcome {
    let model = Client::connect_to(Path::new(socket))?.embedding_model(model)?;
    let texts: Vec<String> = (0..32).map(|n| format!("text number {n} of this process")).collect();
    let rows = model.embed(&texts)?;
    println!("{}", json!({"ready": true, "shared": rows.is_shared()}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn first(socket: &str, model: &str) -> Outcome {
    let client = loop {
        match Client::connect_to(Path::new(socket)) {
            Err(Error::Connect(_)) => std::thread::sleep(Duration::from_millis(1)),
            result => break result?,
        }
    };
    let rows = client.embedding_model(model)?.embed_one("the first text of the day")?;
    println!("{}", json!({"done": true, "dimension": rows.dimension()}));
    Ok(())
}
