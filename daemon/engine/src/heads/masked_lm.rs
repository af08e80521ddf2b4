//! Masked language models: encoders with the head of their pre-training.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use serde_json::Value;

use crate::api::error::ComputeError;
use crate::api::masks::{MaskContext, MaskScores, MaskedModel};
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::checkpoint::folder::{read_json, read_json_if_there};
use crate::checkpoint::head_kind::has_masked_head;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::weights::Weights;
use crate::encoder::architectures;
use crate::encoder::network::Network;
use crate::encoder::workspace::Workspace;
use crate::heads::mask_head::MaskHead;
use crate::kernels::math::{exp_nonpositive, sum_by};
use crate::kernels::vectorize::vectorize;
use crate::layers::read_values;
use crate::side_by_side::side_by_side;
use crate::tokenizer::{TextTokenizer, TokenizeOptions, TokenizerFile};

/// Loads a masked language model.
///
/// Blocks while it reads; the tokenizer and the weights are read at the same time.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_masked(path: &Path) -> Result<Arc<dyn MaskedModel>, LoadError> {
    let file = path.join("config.json");
    let json: Value = read_json(&file)?;
    let config = RawConfig { file: &file, json: &json };
    let architecture = architectures::read(&json, &file)?;
    let encoder = architecture.spec();
    let names = architecture.mask_head().filter(|_| has_masked_head(&json)).ok_or_else(|| {
        let found = json["architectures"][0].as_str().unwrap_or("(none)");
        let supported =
            "…ForMaskedLM of BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, MPNet, ModernBERT";
        config.unsupported("the head", found, supported)
    })?;
    let is_tied = json["tie_word_embeddings"] != false;
    let limits = TextLimits::read(path, &encoder, false)?;
    let weights = Weights::of_folder(path)?;
    let (tokenizer, parts) = side_by_side(
        || TokenizerFile::open(&path.join("tokenizer.json")),
        || {
            let mut reader = TensorReader::new(&weights, &Device::Cpu);
            let network = architecture.network(&mut reader)?;
            reader.leave();
            let head = MaskHead::read(&mut reader, names, &network, is_tied)?;
            reader.log_unread();
            Ok((network, head, reader.bytes()))
        },
    );
    let (network, head, weight_bytes) = parts?;
    let tokenizer = tokenizer?;
    let mask = read_mask(path, &tokenizer)?;
    let options = TokenizeOptions::of(limits, true);
    let tokenizer = tokenizer.fit(encoder.vocabulary, limits.max_tokens, options, String::new())?;
    let Some(mask_id) = tokenizer.token_id(&mask) else {
        let file = path.join("tokenizer.json");
        let config = RawConfig { file: &file, ..config };
        return Err(config.unsupported("the mask token", &mask, "a token of the vocabulary"));
    };
    let spec = ModelSpec {
        architecture: encoder.name.to_owned(),
        max_tokens: limits.max_tokens,
        weight_bytes,
        ..ModelSpec::default()
    };
    Ok(Arc::new(MaskedTransformer { network, tokenizer, head, mask, mask_id, spec }))
}

/// Bytes that one worker keeps for the scores of a block of masks, and for the order of one mask's
/// tokens.
pub(crate) fn scores_bytes(vocabulary: usize) -> u64 {
    (4 * (MASKS_AT_ONCE + 1) as u64).saturating_mul(vocabulary as u64)
}

/// A network with a head that fills masks.
#[derive(Debug)]
struct MaskedTransformer {
    network: Network,
    tokenizer: TextTokenizer,
    head: MaskHead,
    mask: String,
    mask_id: u32,
    spec: ModelSpec,
}

impl MaskedModel for MaskedTransformer {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        self.tokenizer.tokenize_at_most(text, max_tokens)
    }

    fn mask(&self) -> &str {
        &self.mask
    }

    fn token_text(&self, id: u32) -> String {
        self.tokenizer.token_text(id)
    }

    fn mask_context(self: Arc<Self>) -> Box<dyn MaskContext> {
        let (encoder, head) = <(Workspace, Workspace)>::default();
        Box::new(MaskedTransformerContext { model: self, encoder, head, order: Vec::new() })
    }
}

/// The state of one worker: scratch memory of the network, and of the head.
#[derive(Debug)]
struct MaskedTransformerContext {
    model: Arc<MaskedTransformer>,
    encoder: Workspace,
    head: Workspace,
    /// Token ids, to be sorted by their scores.
    order: Vec<u32>,
}

/// The position of a mask in a batch.
#[derive(Debug, Clone, Copy)]
struct MaskPosition {
    sequence: usize,
    position: u32,
    /// Its row in the packed activations.
    row: usize,
}

impl MaskContext for MaskedTransformerContext {
    fn fill(
        &mut self,
        batch: &[&Sequence],
        top_k: usize,
    ) -> Result<Vec<Vec<MaskScores>>, ComputeError> {
        let model = &*self.model;
        let mut filled: Vec<Vec<MaskScores>> = batch.iter().map(|_| Vec::new()).collect();
        let tokens = batch.iter().enumerate().flat_map(|(sequence, text)| {
            (0..).zip(&text.ids).map(move |(position, &id)| (sequence, position, id))
        });
        let masks: Vec<MaskPosition> = tokens
            .enumerate()
            .filter(|(_, (.., id))| *id == model.mask_id)
            .map(|(row, (sequence, position, _))| MaskPosition { sequence, position, row })
            .collect();
        if masks.is_empty() {
            return Ok(filled);
        }
        let hidden = model.network.forward(batch, &mut self.encoder)?;
        for masks in masks.chunks(MASKS_AT_ONCE) {
            let rows: Vec<Range<usize>> = masks.iter().map(|mask| mask.row..mask.row + 1).collect();
            let scores = model.head.forward(&hidden, &rows, &mut self.head)?;
            let vocabulary = scores.dim(1)?;
            read_values(&scores, |scores| {
                for (mask, scores) in masks.iter().zip(scores.chunks_exact(vocabulary)) {
                    let candidates = top_k_tokens(scores, top_k, &mut self.order);
                    let position = mask.position;
                    filled[mask.sequence].push(MaskScores { position, candidates });
                }
                Ok(())
            })?;
        }
        Ok(filled)
    }
}

/// The spelling of the mask, from the first file that sets it.
fn read_mask(folder: &Path, tokenizer: &TokenizerFile) -> Result<String, LoadError> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let config: Value = read_json_if_there(&folder.join(name))?.unwrap_or_default();
        let token = &config["mask_token"];
        if let Some(token) = token.as_str().or(token["content"].as_str()) {
            return Ok(token.to_owned());
        }
    }
    let is_token = |mask: &&&str| tokenizer.tokenizer.token_to_id(mask).is_some();
    if let Some(mask) = MASKS.iter().find(is_token) {
        return Ok((*mask).to_owned());
    }
    Err(LoadError::Unsupported {
        file: folder.join("tokenizer_config.json"),
        what: "the mask token",
        found: "(none)".to_owned(),
        supported: "one named by mask_token, [MASK], <mask>",
    })
}

/// The tokens of the highest scores with their probabilities among all tokens, in descending order.
fn top_k_tokens(scores: &[f32], top_k: usize, order: &mut Vec<u32>) -> Vec<(u32, f32)> {
    let score = |&token: &u32| scores[token as usize];
    let by_score =
        |a: &u32, b: &u32| -> Ordering { score(b).total_cmp(&score(a)).then_with(|| a.cmp(b)) };
    let top_k = top_k.min(scores.len());
    if top_k == 0 {
        return Vec::new();
    }
    order.clear();
    order.extend((0..).take(scores.len()));
    order.select_nth_unstable_by(top_k - 1, by_score);
    let best = &mut order[..top_k];
    best.sort_unstable_by(by_score);
    let max = score(&best[0]);
    let total = vectorize(
        #[inline(always)]
        || sum_by(scores, |x| exp_nonpositive(x - max)),
    );
    best.iter().map(|token| (*token, exp_nonpositive(score(token) - max) / total)).collect()
}

/// Spellings of the mask in folders that set none: the class of the tokenizer may have it built in.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// Masks whose scores are computed at once. Each has a score for every token of the vocabulary.
const MASKS_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::top_k_tokens;

    #[test]
    fn the_likeliest_tokens_come_first_with_their_share_of_all() {
        let scores = [0.0, 2f32.ln(), 4f32.ln(), 2f32.ln(), f32::MIN];
        let order = &mut vec![9; 9];
        let best = top_k_tokens(&scores, 3, order);
        assert_eq!(best.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 1, 3]);
        for ((_, got), want) in best.iter().zip([4.0 / 9.0, 2.0 / 9.0, 2.0 / 9.0]) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
        assert_eq!(top_k_tokens(&scores, 99, order).len(), 5);
        assert_eq!(top_k_tokens(&scores, 0, order), []);
    }
}
