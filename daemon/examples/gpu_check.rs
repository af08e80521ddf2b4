//! What must hold on a GPU: run by `scripts/gpu-check` where there is one.
//!
//! `gpu_check [MODEL]...`; a `MODEL` is a folder. Prints one JSON object for each figure, with `ok`
//! where it is checked. Exit code 0: all of it holds; 1: something does not; 2: there is no GPU.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a check prints figures"
)]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use emberd_daemon::devices::{Found, Gpu, find, trim_pool};
use emberd_daemon::engine::{ComputeContext, ComputeError, EmbeddingModel, Sequence, WeightType};
use emberd_daemon::engine::{is_out_of_memory, load_folder, load_folder_on};
use serde_json::json;

const MIB: u64 = 1 << 20;

/// Rows may differ so much between the CPU and a GPU, whose sums add up in another order.
const ROW_TOLERANCE: f32 = 1e-4;

/// The driver keeps some memory for itself at its first steps, and gives it in blocks.
const MEMORY_TOLERANCE: u64 = 64 * MIB;

/// Tokens of one batch, as the daemon has it on a GPU.
const BATCH_TOKENS: usize = 16 << 10;

/// For one measurement of speed.
const MEASURED: Duration = Duration::from_secs(5);

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let Found { gpus, missing } = find();
    for reason in &missing {
        eprintln!("gpu_check: {reason}");
    }
    if gpus.is_empty() {
        eprintln!("gpu_check: there is no GPU to check");
        return ExitCode::from(2);
    }
    let models: Vec<String> = std::env::args().skip(1).collect();
    let mut check = Check { holds: true };
    for (number, gpu) in &gpus {
        if let Err(error) = check.gpu(*number, &**gpu, &models) {
            check.figure(
                "failed",
                &json!({ "gpu": number, "error": error.to_string() }),
                Some(false),
            );
        }
    }
    if check.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Figures, and whether all that were checked are right.
struct Check {
    holds: bool,
}

impl Check {
    fn figure(&mut self, name: &str, value: &serde_json::Value, is_right: Option<bool>) {
        let mut line = json!({ "figure": name, "value": value });
        if let Some(is_right) = is_right {
            line["ok"] = is_right.into();
            self.holds &= is_right;
        }
        println!("{line}");
    }

    fn gpu(&mut self, number: u32, gpu: &dyn Gpu, models: &[String]) -> Outcome {
        self.figure("gpu", &json!({ "number": number, "name": gpu.name() }), None);
        self.memory_of("at the start", gpu)?;
        self.allocations(gpu)?;
        self.out_of_memory(gpu)?;
        for model in models {
            self.rows(gpu, Path::new(model))?;
            self.rounds(gpu, Path::new(model))?;
            self.crowded(gpu, Path::new(model))?;
            self.speed(gpu, Path::new(model))?;
        }
        self.memory_of("at the end", gpu)
    }

    fn memory_of(&mut self, when: &str, gpu: &dyn Gpu) -> Outcome {
        let memory = gpu.memory()?;
        let value = json!({
            "when": when,
            "total_mib": memory.total_bytes / MIB,
            "free_mib": memory.free_bytes / MIB,
            "own_mib": memory.own_bytes / MIB,
        });
        self.figure("memory", &value, None);
        Ok(())
    }

    /// A tensor that is dropped stays with the process until memory is given back.
    fn allocations(&mut self, gpu: &dyn Gpu) -> Outcome {
        trim_pool(gpu, 0)?;
        let before = gpu.memory()?;
        let bytes = (4 << 30).min(before.free_bytes / 2);
        let tensor = zeros(bytes, &gpu.tensors())?;
        gpu.tensors().synchronize()?;
        let with = gpu.memory()?;
        drop(tensor);
        gpu.tensors().synchronize()?;
        let dropped = gpu.memory()?;
        let returned = trim_pool(gpu, 0)?;
        let after = gpu.memory()?;
        let value = json!({
            "allocated_mib": bytes / MIB,
            "free_before_mib": before.free_bytes / MIB,
            "free_with_it_mib": with.free_bytes / MIB,
            "free_dropped_mib": dropped.free_bytes / MIB,
            "free_after_mib": after.free_bytes / MIB,
            "given_back_mib": returned / MIB,
        });
        let was_taken = with.free_bytes + bytes <= before.free_bytes + MEMORY_TOLERANCE;
        let is_back = after.free_bytes + MEMORY_TOLERANCE >= before.free_bytes;
        self.figure("allocation", &value, Some(was_taken && is_back));
        Ok(())
    }

    /// What no device has is refused as such, and the device goes on.
    fn out_of_memory(&mut self, gpu: &dyn Gpu) -> Outcome {
        let refused = zeros(8 * gpu.memory()?.total_bytes, &gpu.tensors()).err();
        let message = refused.as_ref().map(|error| first_line(&error.to_string()));
        let is_recognised = refused.as_ref().is_some_and(is_out_of_memory);
        let ones = Tensor::ones((64, 64), DType::F32, &gpu.tensors())?;
        let goes_on = ones.matmul(&ones)?.mean_all()?.to_scalar::<f32>()?.to_bits();
        let is_right = is_recognised && goes_on == 64f32.to_bits();
        self.figure("out_of_memory", &json!({ "said": message }), Some(is_right));
        Ok(())
    }

    /// The same rows on the CPU and on the GPU.
    fn rows(&mut self, gpu: &dyn Gpu, folder: &Path) -> Outcome {
        let (on_cpu, on_gpu) =
            (load_folder(folder)?, load_folder_on(folder, &gpu.tensors(), WeightType::F32)?);
        let sequences = sequences(&*on_cpu, 200)?;
        let want = embed(&on_cpu, &sequences)?;
        let got = embed(&on_gpu, &sequences)?;
        let off = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let is_finite = got.iter().all(|value| value.is_finite());
        let value = json!({ "model": folder, "texts": sequences.len(), "max_abs_diff": off });
        self.figure("rows", &value, Some(is_finite && off <= ROW_TOLERANCE));
        Ok(())
    }

    /// Memory comes back each time that a model leaves.
    fn rounds(&mut self, gpu: &dyn Gpu, folder: &Path) -> Outcome {
        trim_pool(gpu, 0)?;
        let before = gpu.memory()?.free_bytes;
        let mut lost = Vec::new();
        let mut taken = 0;
        for _ in 0..10 {
            let model = load_folder_on(folder, &gpu.tensors(), WeightType::F32)?;
            embed(&model, &sequences(&*model, 100)?)?;
            taken = before.saturating_sub(gpu.memory()?.free_bytes);
            drop(model);
            trim_pool(gpu, 0)?;
            lost.push(before.saturating_sub(gpu.memory()?.free_bytes));
        }
        let is_back = lost.iter().all(|&bytes| bytes <= MEMORY_TOLERANCE);
        let lost: Vec<u64> = lost.into_iter().map(|bytes| bytes / MIB).collect();
        let value = json!({ "model": folder, "taken_mib": taken / MIB, "not_back_mib": lost });
        self.figure("ten_loads", &value, Some(is_back));
        Ok(())
    }

    /// A batch that finds too little memory says so, and fewer texts can be computed. (A tiny model may
    /// find enough.)
    fn crowded(&mut self, gpu: &dyn Gpu, folder: &Path) -> Outcome {
        let model = load_folder_on(folder, &gpu.tensors(), WeightType::F32)?;
        let sequences = sequences(&*model, 2000)?;
        embed(&model, &sequences[..1])?;
        trim_pool(gpu, 0)?;
        let leave = 128 * MIB;
        let rest = zeros(gpu.memory()?.free_bytes.saturating_sub(leave), &gpu.tensors())?;
        let batch: Vec<&Sequence> = sequences.iter().collect();
        let mut computer = Arc::clone(&model).compute_context();
        let crowded = compute(&mut *computer, &batch, model.spec().dimension);
        let is_reported = matches!(crowded, Ok(_) | Err(ComputeError::OutOfMemory { .. }));
        let message = crowded.err().map(|error| error.to_string());
        // As a worker does.
        let mut computer = Arc::clone(&model).compute_context();
        let few = compute(&mut *computer, &batch[..1], model.spec().dimension).is_ok();
        drop(rest);
        trim_pool(gpu, 0)?;
        let value = json!({ "model": folder, "said": message, "one_text_then": few });
        self.figure("crowded", &value, Some(is_reported && few));
        Ok(())
    }

    fn speed(&mut self, gpu: &dyn Gpu, folder: &Path) -> Outcome {
        let on_gpu = rate(&load_folder_on(folder, &gpu.tensors(), WeightType::F32)?, BATCH_TOKENS)?;
        let on_cpu = rate(&load_folder(folder)?, 512)?;
        let value = json!({
            "model": folder,
            "gpu_texts_s": on_gpu,
            "cpu_thread_texts_s": on_cpu,
            "ratio": on_gpu / on_cpu,
        });
        self.figure("speed", &value, None);
        Ok(())
    }
}

fn zeros(bytes: u64, device: &Device) -> candle_core::Result<Tensor> {
    Tensor::zeros(usize::try_from(bytes)?, DType::U8, device)
}

/// Texts of many lengths, as tokens.
fn sequences(model: &dyn EmbeddingModel, count: usize) -> Result<Vec<Sequence>, ComputeError> {
    let words =
        ["warm", "models", "are", "shared", "by", "every", "process", "on", "the", "machine"];
    let text = |i: usize| {
        let len = 1 + (i * i) % 120;
        let word = |at: usize| words[(i + at * at) % words.len()];
        (0..len).map(word).collect::<Vec<_>>().join(" ")
    };
    (0..count).map(|i| model.tokenize(&text(i))).collect()
}

fn compute(
    computer: &mut dyn ComputeContext,
    batch: &[&Sequence],
    dimension: usize,
) -> Result<Vec<f32>, ComputeError> {
    let mut values = vec![f32::NAN; batch.len() * dimension];
    let mut rows: Vec<&mut [f32]> = values.chunks_exact_mut(dimension).collect();
    computer.compute(batch, &mut rows)?;
    Ok(values)
}

fn embed(
    model: &Arc<dyn EmbeddingModel>,
    sequences: &[Sequence],
) -> Result<Vec<f32>, ComputeError> {
    let batch: Vec<&Sequence> = sequences.iter().collect();
    compute(&mut *Arc::clone(model).compute_context(), &batch, model.spec().dimension)
}

/// Texts per second of one thread that computes, without reading them.
fn rate(model: &Arc<dyn EmbeddingModel>, batch_tokens: usize) -> Result<f64, ComputeError> {
    let sequences = sequences(&**model, 2000)?;
    let mut order: Vec<&Sequence> = sequences.iter().collect();
    order.sort_by_key(|sequence| sequence.ids.len());
    let mut batches: Vec<Vec<&Sequence>> = vec![Vec::new()];
    let mut tokens = 0;
    for sequence in order {
        tokens += sequence.ids.len();
        if tokens > batch_tokens {
            batches.push(Vec::new());
            tokens = sequence.ids.len();
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(sequence);
        }
    }
    let mut computer = Arc::clone(model).compute_context();
    // The first batches bring kernels and memory in.
    for batch in batches.iter().rev().take(2) {
        compute(&mut *computer, batch, model.spec().dimension)?;
    }
    let (started, mut texts) = (Instant::now(), 0);
    for batch in batches.iter().cycle() {
        compute(&mut *computer, batch, model.spec().dimension)?;
        texts += batch.len();
        if started.elapsed() > MEASURED {
            break;
        }
    }
    Ok(texts as f64 / started.elapsed().as_secs_f64())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
