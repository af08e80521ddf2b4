//! The client side of the benchmarks that `scripts/bench` runs: prints one JSON line.
//!
//! ```text
//! bench_client inference SOCKET MODEL CORPUS.jsonl   throughput, then latency of short queries
//! bench_client dump SOCKET MODEL TEXTS.json OUT.f32 [single|batch]   rows as raw floats
//! bench_client hold SOCKET MODEL                     lease, embed, wait for the end of stdin
//! bench_client first SOCKET MODEL                    one text, as soon as the socket is there
//! ```
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

use emberd_client::{Client, Error};
use serde_json::{Value, json};
use std::error::Error as StdError;
use std::io::Read;
use std::path::Path;
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
        ["dump", socket, model, texts, out] => dump(socket, model, texts, out, "batch"),
        ["dump", socket, model, texts, out, how] => dump(socket, model, texts, out, how),
        ["hold", socket, model] => hold(socket, model),
        ["first", socket, model] => first(socket, model),
        _ => Err("usage: bench_client inference|dump|hold|first SOCKET MODEL ...".into()),
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

fn dump(socket: &str, model: &str, texts: &str, out: &str, how: &str) -> Outcome {
    let texts: Vec<String> = serde_json::from_str(&std::fs::read_to_string(texts)?)?;
    let model = Client::connect_to(Path::new(socket))?.embedding_model(model)?;
    let mut values = Vec::new();
    match how {
        "batch" => values.extend_from_slice(model.embed(&texts)?.as_slice()),
        "single" => {
            for text in &texts {
                values.extend_from_slice(model.embed_one(text)?.as_slice());
            }
        }
        _ => return Err("expected single or batch".into()),
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(out, bytes)?;
    println!("{}", json!({"rows": texts.len(), "dimension": model.dimension()}));
    Ok(())
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
