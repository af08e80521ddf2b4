//! How much memory an embedding model takes, before it is loaded.

use std::path::Path;

use crate::api::need::Need;
use crate::api::weight_type::WeightType;
use crate::checkpoint::folder::read_file;
use crate::checkpoint::head_kind::{holds_masked_head, holds_rank_head};
use crate::checkpoint::layout::Layout;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::encoder::architectures;
use crate::heads::masked_lm::scores_bytes;
use crate::layers::portable::MAX_SCORES;
use crate::tokenizer::memory_need::tokenizer_need;
use crate::tokenizer::sentencepiece::T5Files;

/// How much memory the model of a folder takes. On the CPU: its weights held as `held_as`, its
/// tokenizer, and the activations of a batch for each of `cpu_workers`. On a GPU: its weights as `f32`,
/// and the activations of one worker. Only configurations and headers are read.
///
/// # Errors
/// As [`load_folder`](crate::load_folder), if the folder itself is at fault.
pub fn folder_need(
    path: &Path,
    cpu_workers: usize,
    batch_tokens: usize,
    gpu_batch_tokens: usize,
    held_as: WeightType,
) -> Result<Need, LoadError> {
    // The configuration of such a head lies in the folder itself, also in a folder with modules.
    let layout = match holds_rank_head(path) || holds_masked_head(path) {
        true => Layout::bare(path),
        false => Layout::read(path)?,
    };
    let (folder, scratch, gpu_scratch) = match layout {
        Layout::Transformer { folder, .. } => {
            let encoder = architectures::read_folder(&folder)?.spec();
            let token = encoder.widths.total().saturating_mul(4);
            // Twice: keys, values and scores take less than the activations.
            let activations = token.saturating_mul(2 * batch_tokens as u64);
            let is_masked = holds_masked_head(&folder);
            let scores = if is_masked { scores_bytes(encoder.vocabulary) } else { 0 };
            let on_gpu = token.saturating_mul(GPU_TIMES_WIDTHS * gpu_batch_tokens as u64);
            // These heads stay on the CPU.
            let has_scores = is_masked || holds_rank_head(&folder);
            let gpu_scratch =
                (!has_scores).then(|| on_gpu.saturating_add(GPU_TIMES_SCORES * SCORES_BYTES));
            (folder, activations.saturating_add(scores), gpu_scratch)
        }
        Layout::Static(layout) => (layout.folder, 0, None),
    };
    // The table of a static model keeps the type of its file.
    let held_as = if gpu_scratch.is_none() && scratch == 0 { WeightType::F32 } else { held_as };
    let weights = Weights::of_folder(&folder)?;
    // An unreadable tokenizer is reported when the model is loaded.
    let tokenizer = match read_file(&folder.join("tokenizer.json")) {
        Ok(json) => tokenizer_need(&json),
        Err(_) => T5Files::need_of(&folder),
    };
    let weight_bytes = weights.loaded_bytes();
    let cpu_bytes = (weight_bytes / WeightType::F32.bytes() * held_as.bytes())
        .saturating_add(tokenizer)
        .saturating_add(scratch.saturating_mul(cpu_workers as u64));
    let gpu_bytes = gpu_scratch.map(|scratch| weight_bytes.saturating_add(scratch));
    Ok(Need { cpu_bytes, gpu_bytes })
}

/// Memory of a GPU for each token of a batch, in multiples of its activations: the activations, the
/// result of an operation before it is copied to them, and a copy of the input of some operations.
const GPU_TIMES_WIDTHS: u64 = 3;

/// The same for the scores of attention: before the softmax, after it, and the bias.
const GPU_TIMES_SCORES: u64 = 3;

const SCORES_BYTES: u64 = 4 * MAX_SCORES as u64;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{WeightType, folder_need};

    fn folder(model: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model)
    }

    #[test]
    fn a_gpu_holds_weights_and_one_batch_whatever_the_cpu_does() {
        let need = |cpu_workers, cpu_tokens, gpu_tokens| {
            let path = folder("bert-mean-norm");
            folder_need(&path, cpu_workers, cpu_tokens, gpu_tokens, WeightType::F32).unwrap()
        };
        let one = need(1, 512, 1000);
        let more_workers = need(8, 1024, 1000);
        assert!(more_workers.cpu_bytes > one.cpu_bytes);
        assert_eq!(more_workers.gpu_bytes, one.gpu_bytes);
        let gpu_bytes = |tokens| need(1, 512, tokens).gpu_bytes.unwrap();
        // Without any token it is the weights and the scores, which have a bound of their own.
        let per_token = gpu_bytes(1) - gpu_bytes(0);
        assert!(per_token > 0);
        assert_eq!(gpu_bytes(1000), gpu_bytes(0) + 1000 * per_token);
        let weights = std::fs::metadata(folder("bert-mean-norm").join("model.safetensors"));
        assert!(gpu_bytes(0) > weights.unwrap().len() / 2);
    }

    #[test]
    fn static_models_and_heads_that_score_are_on_the_cpu_only() {
        for model in ["static-embedding", "cross-encoder", "bert-mlm"] {
            let need = folder_need(&folder(model), 1, 512, 1000, WeightType::F32).unwrap();
            assert_eq!(need.gpu_bytes, None, "{model}");
        }
    }
}
