//! all-MiniLM-L6-v2 through candle-transformers' `BertModel`: texts sorted by length, padded
//! batches of 32, mean pooling, normalisation. Prints one line of JSON with the rate on a corpus
//! and the latency of single short queries.
//!
//! usage: candle-peer MODEL_DIR CORPUS.jsonl [LATENCY_SAMPLES] [ROWS_OUT.f32]
//!        candle-peer generate MODEL_DIR TEXTS.json TOKENS     see `generate`

mod generate;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde_json::{Value, json};
use tokenizers::{Tokenizer, TruncationParams};

const BATCH: usize = 32;
const WARM_UP_TEXTS: usize = 256;
const WARM_UP_QUERIES: usize = 20;
const QUERIES: usize = 50;

struct Peer {
    model: BertModel,
    tokenizer: Tokenizer,
    device: Device,
}

impl Peer {
    fn load(dir: &Path) -> Result<Self> {
        let device = Device::Cpu;
        let config: Config = serde_json::from_str(&read(&dir.join("config.json"))?)?;
        let sentence: Value = serde_json::from_str(&read(&dir.join("sentence_bert_config.json"))?)?;
        let max_length = sentence["max_seq_length"].as_u64().context("max_seq_length")?;

        let weights = [dir.join("model.safetensors")];
        // SAFETY: nobody changes the weights file while a measurement runs.
        let weights =
            unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &device)? };
        let model = BertModel::load(weights, &config)?;

        let mut tokenizer =
            Tokenizer::from_file(dir.join("tokenizer.json")).map_err(|error| anyhow!(error))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: usize::try_from(max_length)?,
                ..Default::default()
            }))
            .map_err(|error| anyhow!(error))?;
        Ok(Self { model, tokenizer, device })
    }

    /// Token ids of each text, tokenized in parallel.
    fn tokenize(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = self.tokenizer.encode_batch(texts, true).map_err(|error| anyhow!(error))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// One row for each sequence, padded to the longest of them.
    fn forward(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let longest = batch.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let shape = (batch.len(), longest);
        let mut ids = vec![0u32; batch.len() * longest];
        let mut mask = vec![0u32; batch.len() * longest];
        for (row, sequence) in batch.iter().enumerate() {
            let start = row * longest;
            ids[start..start + sequence.len()].copy_from_slice(sequence);
            mask[start..start + sequence.len()].fill(1);
        }
        let ids = Tensor::from_vec(ids, shape, &self.device)?;
        let mask = Tensor::from_vec(mask, shape, &self.device)?;
        let types = ids.zeros_like()?;

        let hidden = self.model.forward(&ids, &types, Some(&mask))?;
        let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
        let mean = hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
        let norm = mean.sqr()?.sum_keepdim(1)?.sqrt()?;
        Ok(mean.broadcast_div(&norm)?.to_vec2()?)
    }

    /// Rows in the order of `texts`, and how many tokens they had.
    fn embed(&self, texts: &[String]) -> Result<(Vec<Vec<f32>>, usize)> {
        let ids = self.tokenize(texts)?;
        let tokens = ids.iter().map(Vec::len).sum();
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&text| std::cmp::Reverse(ids[text].len()));

        let mut rows = vec![Vec::new(); ids.len()];
        for chunk in order.chunks(BATCH) {
            let batch: Vec<&[u32]> = chunk.iter().map(|&text| ids[text].as_slice()).collect();
            for (&text, row) in chunk.iter().zip(self.forward(&batch)?) {
                rows[text] = row;
            }
        }
        Ok((rows, tokens))
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted[index.min(sorted.len() - 1)]
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, dir, texts, tokens] = arguments.as_slice()
        && mode == "generate"
    {
        return generate::run(Path::new(dir), Path::new(texts), tokens.parse()?);
    }
    let mut arguments = arguments.into_iter();
    let usage = "usage: candle-peer MODEL_DIR CORPUS.jsonl [LATENCY_SAMPLES] [ROWS_OUT.f32]";
    let dir = PathBuf::from(arguments.next().context(usage)?);
    let corpus = PathBuf::from(arguments.next().context(usage)?);
    let samples: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let rows_out = arguments.next();

    let (mut texts, mut queries) = (Vec::new(), Vec::new());
    for line in read(&corpus)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let text = line["text"].as_str().context("a corpus line without \"text\"")?.to_owned();
        if line["kind"] == "query" && queries.len() < QUERIES {
            queries.push(text.clone());
        }
        texts.push(text);
    }

    let peer = Peer::load(&dir)?;
    peer.embed(&texts[..texts.len().min(WARM_UP_TEXTS)])?;

    let start = Instant::now();
    let (rows, tokens) = peer.embed(&texts)?;
    let seconds = start.elapsed().as_secs_f64();

    let mut latencies = Vec::with_capacity(samples);
    for sample in 0..samples + WARM_UP_QUERIES {
        let query = std::slice::from_ref(&queries[sample % queries.len()]);
        let start = Instant::now();
        peer.embed(query)?;
        if sample >= WARM_UP_QUERIES {
            latencies.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    latencies.sort_by(f64::total_cmp);

    if let Some(path) = rows_out {
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(path, bytes)?;
    }
    println!(
        "{}",
        json!({
            "texts_s": texts.len() as f64 / seconds,
            "tokens_s": tokens as f64 / seconds,
            "p50_ms": percentile(&latencies, 0.5),
            "p99_ms": percentile(&latencies, 0.99),
        })
    );
    Ok(())
}
