//! Texts per second of the engine alone: no socket, no queue, no cache.
//!
//! `cargo run --release -p emberd-engine --example engine_speed -- MODEL CORPUS [WORKERS] [TOKENS] [PASSES]`
//!
//! `MODEL` is a folder, or `builtin`. Each line of `CORPUS` is a JSON object with a `text`. `TOKENS` is
//! the largest batch. Prints one JSON object: start-up times, the median rate of the passes
//! (tokenization included), and the latency of single short texts.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark prints figures")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use emberd_engine::{
    ComputeContext, ComputeError, EmbeddingModel, Sequence, builtin_static_minilm, load_folder,
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, corpus, numbers @ ..] = &args[..] else {
        return Err("usage: engine_speed MODEL CORPUS [WORKERS] [TOKENS] [PASSES]".into());
    };
    let number = |i: usize, default| numbers.get(i).map_or(Ok(default), |text| text.parse());
    let (workers, budget, passes) = (number(0, 2)?, number(1, 1024)?, number(2, 3)?);

    let start = Instant::now();
    let model = match model.as_str() {
        "builtin" => builtin_static_minilm()?,
        folder => load_folder(Path::new(folder))?,
    };
    let load = start.elapsed();
    embed(&*model, &mut *Arc::clone(&model).compute_context(), "to warm up")?;
    let first = start.elapsed();

    let texts = read_texts(Path::new(corpus))?;
    let mut rates = Vec::new();
    let mut tokens = 0;
    for _ in 0..passes {
        let start = Instant::now();
        let sequences = tokenize_all(&*model, &texts, workers)?;
        let batches = form_batches(&sequences, budget);
        compute_all(&model, &batches, workers)?;
        rates.push(texts.len() as f64 / start.elapsed().as_secs_f64());
        tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
    }
    let rate = median(&mut rates);
    let mut latencies = single_latencies(&model, &texts)?;
    println!(
        "{}",
        serde_json::json!({
            "workers": workers, "budget": budget, "texts": texts.len(), "tokens": tokens,
            "load_ms": millis(load), "first_embedding_ms": millis(first),
            "texts_s": rate, "tokens_s": rate * tokens as f64 / texts.len() as f64,
            "p50_ms": median(&mut latencies), "p99_ms": latencies[latencies.len() * 99 / 100],
        })
    );
    Ok(())
}

fn embed(
    model: &dyn EmbeddingModel,
    context: &mut dyn ComputeContext,
    text: &str,
) -> Result<Vec<f32>, ComputeError> {
    let mut row = vec![0.0; model.spec().dimension];
    context.compute(&[&model.tokenize(text)?], &mut [&mut row])?;
    Ok(row)
}

fn read_texts(corpus: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(corpus)?.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        texts.push(line["text"].as_str().ok_or("a line without a text")?.to_owned());
    }
    Ok(texts)
}

fn tokenize_all(
    model: &dyn EmbeddingModel,
    texts: &[String],
    workers: usize,
) -> Result<Vec<Sequence>, ComputeError> {
    let share = texts.len().div_ceil(workers).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = texts
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(|text| model.tokenize(text)).collect()))
            .collect();
        let mut all = Vec::new();
        for part in parts {
            let part: Result<Vec<_>, _> = part.join().expect("tokenizing does not panic");
            all.extend(part?);
        }
        Ok(all)
    })
}

/// Batches of sequences in descending length, so that the workers finish at the same time.
fn form_batches(sequences: &[Sequence], budget: usize) -> Vec<Vec<&Sequence>> {
    let mut order: Vec<&Sequence> = sequences.iter().collect();
    order.sort_by_key(|sequence| std::cmp::Reverse(sequence.ids.len()));
    let mut batches: Vec<Vec<&Sequence>> = vec![Vec::new()];
    let mut tokens = 0;
    for sequence in order {
        tokens += sequence.ids.len();
        if tokens > budget {
            batches.push(Vec::new());
            tokens = sequence.ids.len();
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(sequence);
        }
    }
    batches
}

fn compute_all(
    model: &Arc<dyn EmbeddingModel>,
    batches: &[Vec<&Sequence>],
    workers: usize,
) -> Result<(), ComputeError> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            let mut context = Arc::clone(model).compute_context();
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let dimension = model.spec().dimension;
                let mut rows = vec![0.0; batch.len() * dimension];
                let mut rows: Vec<&mut [f32]> = rows.chunks_exact_mut(dimension).collect();
                context.compute(batch, &mut rows)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("computing does not panic"))
    })
}

/// Milliseconds for each of the short texts, one at a time on one thread.
fn single_latencies(
    model: &Arc<dyn EmbeddingModel>,
    texts: &[String],
) -> Result<Vec<f64>, ComputeError> {
    let mut context = Arc::clone(model).compute_context();
    let mut times = Vec::new();
    for text in texts.iter().filter(|text| text.len() < 80).cycle().take(300) {
        let start = Instant::now();
        embed(&**model, &mut *context, text)?;
        times.push(millis(start.elapsed()));
    }
    Ok(times)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
