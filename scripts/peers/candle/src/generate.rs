//! A T5 through candle-transformers, greedily and with its cache, as its example does it: tokens a
//! second at batch 1 and with all texts at once. The texts have the same number of tokens.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::t5::{Config, T5ForConditionalGeneration};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::read;

const REPEAT: usize = 5;

/// The token that ends a text: it is not to be made.
const END: usize = 1;

pub fn run(dir: &Path, texts: &Path, tokens: usize) -> Result<()> {
    let device = Device::Cpu;
    let mut config: Value = serde_json::from_str(&read(&dir.join("config.json"))?)?;
    config["is_decoder"] = false.into();
    let config: Config = serde_json::from_value(config)?;
    let weights = [dir.join("model.safetensors")];
    // SAFETY: nobody changes the weights file while a measurement runs.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &device)? };
    let mut model = T5ForConditionalGeneration::load(weights, &config)?;
    let tokenizer =
        Tokenizer::from_file(dir.join("tokenizer.json")).map_err(|error| anyhow!(error))?;

    let texts: Vec<String> = serde_json::from_str(&read(texts)?)?;
    let mut generate = |texts: &[String]| -> Result<()> {
        let encodings =
            tokenizer.encode_batch(texts.to_vec(), true).map_err(|error| anyhow!(error))?;
        let ids: Vec<Vec<u32>> =
            encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect();
        let first = ids.first().context("no text")?.len();
        ensure!(ids.iter().all(|ids| ids.len() == first), "texts of other lengths need padding");
        model.clear_kv_cache();
        let encoded = model.encode(&Tensor::new(ids, &device)?)?;
        let mut next = vec![0u32; texts.len()];
        for _ in 0..tokens {
            let last = Tensor::from_vec(next, (texts.len(), 1), &device)?;
            let logits = model.decode(&last, &encoded)?.to_vec2::<f32>()?;
            next = logits.iter().map(|row| argmax(row)).collect();
        }
        Ok(())
    };
    let mut best = |texts: &[String]| -> Result<f64> {
        generate(texts)?;
        let mut fastest = f64::INFINITY;
        for _ in 0..REPEAT {
            let start = Instant::now();
            generate(texts)?;
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        Ok(fastest)
    };
    let made = tokens as f64;
    let one = made / best(&texts[..1])?;
    let all = made * texts.len() as f64 / best(&texts)?;
    println!("{}", json!({ "one_tokens_s": one, "all_tokens_s": all }));
    Ok(())
}

fn argmax(row: &[f32]) -> u32 {
    let others = row.iter().enumerate().filter(|(id, _)| *id != END);
    others.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(id, _)| id as u32)
}
