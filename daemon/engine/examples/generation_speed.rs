//! The time of a decoding step, compared with the speed of memory: no socket, no queue.
//!
//! `cargo run --release -p emberd-engine --example generation_speed -- [THREADS] [PASSES] [FOLDER]`
//!
//! The model has random weights in the shape of flan-t5-small: 8 + 8 layers of 512, 6 heads of 64,
//! 1024 gated, 32,128 tokens, not tied. It is written to `FOLDER`, or to a temporary folder.
//!
//! Prints one JSON object. For 1 to 8 sequences at once it has the best of all passes: the time of
//! encoding 128 tokens each, and the median of 64 steps, both by the clock and in processor time of all
//! threads (for a machine that is shared). It also has the speed at which the same threads read memory.

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a benchmark prints figures, of small numbers"
)]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use emberd_engine::{Decoder, Sequence, load_seq2seq};
use serde_json::{Map, Value, json};

const INPUT_TOKENS: u32 = 128;
const OUTPUT_TOKENS: usize = 64;
const WIDTH: usize = 512;
const INNER: usize = 384;
const FEED: usize = 1024;
const VOCABULARY: usize = 32_128;
const LAYERS: usize = 8;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| args.get(i).map_or(Ok(default), |text| text.parse::<usize>());
    let (threads, passes) = (number(0, 2)?, number(1, 5)?);
    let temporary = tempfile::tempdir()?;
    let folder = args.get(2).map_or(temporary.path(), Path::new);
    if !folder.join("model.safetensors").exists() {
        write_model(folder)?;
    }
    let file_bytes = std::fs::metadata(folder.join("model.safetensors"))?.len();

    let before = peak_bytes()?;
    let start = Instant::now();
    let model = load_seq2seq(folder)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let after = peak_bytes()?;
    let mut decoder = Arc::clone(&model).decoder(threads)?;

    let bytes_a_step = decoder_bytes() as f64;
    let mut steps = Map::new();
    for answers in [1, 2, 4, 8] {
        let mut least = [f64::INFINITY; 4];
        for _ in 0..passes {
            let figures = generate(&mut *decoder, answers)?;
            least = std::array::from_fn(|i| least[i].min(figures[i]));
        }
        let [encoding, encoding_cpu, step, step_cpu] = least;
        steps.insert(
            answers.to_string(),
            json!({
                "encode_ms": encoding * 1e3, "encode_cpu_ms": encoding_cpu * 1e3,
                "step_ms": step * 1e3, "step_cpu_ms": step_cpu * 1e3,
                "tokens_s": (answers * OUTPUT_TOKENS) as f64
                    / (encoding + step * OUTPUT_TOKENS as f64),
                "weights_gb_s": bytes_a_step / step / 1e9,
            }),
        );
    }
    println!(
        "{}",
        json!({
            "threads": threads, "file_bytes": file_bytes, "load_ms": load_ms,
            "peak_growth_over_file": (after - before) as f64 / file_bytes as f64,
            "memory_gb_s": read_speed(threads, passes), "by_answers": steps,
        })
    );
    Ok(())
}

/// Seconds of encoding `count` inputs, by the clock and of processor time; then the median seconds of a
/// step for all of them, and its mean processor time.
fn generate(decoder: &mut dyn Decoder, count: usize) -> Outcome<[f64; 4]> {
    let inputs: Vec<Sequence> = (0..count)
        .map(|i| Sequence {
            ids: (0..INPUT_TOKENS).map(|t| (t * 7919 + i as u32 * 31) % 32_000).collect(),
            ..Sequence::default()
        })
        .collect();
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let encoded = decoder.admit(&inputs.iter().collect::<Vec<_>>())?;
    let (encoding, encoding_cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let mut next = Vec::new();
    for &input in &encoded {
        next.push((decoder.begin(input, OUTPUT_TOKENS)?, 0));
    }
    let mut logits = Vec::new();
    let mut times = Vec::new();
    let cpu = cpu_seconds()?;
    for step in 0..OUTPUT_TOKENS {
        let start = Instant::now();
        decoder.step(&next, &mut logits)?;
        times.push(start.elapsed().as_secs_f64());
        for (i, (_, token)) in next.iter_mut().enumerate() {
            *token = (step * 37 + i) as u32;
        }
    }
    let step_cpu = (cpu_seconds()? - cpu) / OUTPUT_TOKENS as f64;
    next.iter().for_each(|&(hypothesis, _)| decoder.end(hypothesis));
    encoded.into_iter().for_each(|input| decoder.forget(input));
    times.sort_by(f64::total_cmp);
    Ok([encoding, encoding_cpu, times[times.len() / 2], step_cpu])
}

/// Processor time of all threads of this process.
fn cpu_seconds() -> Outcome<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().unwrap_or("0").parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Bytes of weights that a step reads.
fn decoder_bytes() -> usize {
    let attention = 4 * INNER * WIDTH;
    let cross = 2 * INNER * WIDTH;
    4 * (LAYERS * (attention + cross + 3 * FEED * WIDTH) + VOCABULARY * WIDTH)
}

/// The speed at which threads read memory outside their caches, each its own block, in GB/s.
fn read_speed(threads: usize, passes: usize) -> f64 {
    let len = 32 << 20;
    let blocks: Vec<Vec<f32>> = (0..threads).map(|_| vec![1.0; len]).collect();
    let mut best = f64::INFINITY;
    for _ in 0..passes {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for block in &blocks {
                scope.spawn(|| std::hint::black_box(sum(block)));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    (threads * len * 4) as f64 / best / 1e9
}

fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; 64];
    for chunk in values.as_chunks::<64>().0 {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter().sum()
}

/// The peak memory of this process, in bytes.
fn peak_bytes() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

/// Writes a folder of random weights.
fn write_model(folder: &Path) -> Outcome<()> {
    let config = json!({
        "model_type": "t5", "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 64, "d_ff": FEED,
        "num_layers": LAYERS, "num_decoder_layers": LAYERS, "num_heads": INNER / 64,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let builtin = concat!(env!("CARGO_MANIFEST_DIR"), "/src/builtin/verbalizer-t5");
    std::fs::copy(Path::new(builtin).join("tokenizer.json"), folder.join("tokenizer.json"))?;

    let mut header = Map::new();
    let mut offset = 0;
    let tensors = tensors();
    for (name, shape) in &tensors {
        let end = offset + 4 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let header = Value::Object(header).to_string();
    let mut file = BufWriter::new(File::create(folder.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut state = 1_u32;
    for (name, shape) in &tensors {
        let is_norm = name.ends_with("norm.weight");
        for _ in 0..shape.iter().product() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            let value = if is_norm { 1.0 } else { noise / 10.0 };
            file.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(file.into_inner()?.sync_all()?)
}

fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("shared.weight".to_owned(), vec![VOCABULARY, WIDTH]),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, WIDTH]),
    ];
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    for (stack, attentions) in
        [("encoder", &["SelfAttention"][..]), ("decoder", &["SelfAttention", "EncDecAttention"])]
    {
        for block in 0..LAYERS {
            let layer = format!("{stack}.block.{block}.layer");
            for (i, attention) in attentions.iter().enumerate() {
                for part in ["q", "k", "v"] {
                    add(format!("{layer}.{i}.{attention}.{part}.weight"), &[INNER, WIDTH]);
                }
                add(format!("{layer}.{i}.{attention}.o.weight"), &[WIDTH, INNER]);
                add(format!("{layer}.{i}.layer_norm.weight"), &[WIDTH]);
            }
            let last = attentions.len();
            for part in ["wi_0", "wi_1"] {
                add(format!("{layer}.{last}.DenseReluDense.{part}.weight"), &[FEED, WIDTH]);
            }
            add(format!("{layer}.{last}.DenseReluDense.wo.weight"), &[WIDTH, FEED]);
            add(format!("{layer}.{last}.layer_norm.weight"), &[WIDTH]);
        }
        let bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        add(format!("{stack}.{bias}"), &[32, INNER / 64]);
        add(format!("{stack}.final_layer_norm.weight"), &[WIDTH]);
    }
    tensors
}
