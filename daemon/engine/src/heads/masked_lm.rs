//! Masked language models: BERT and its kin with the head that they were trained with.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};
use serde_json::Value;

use crate::api::error::ComputeError;
use crate::api::masks::{MaskContext, MaskScores, MaskedModel};
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::checkpoint::folder::{read_json, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::weights::Weights;
use crate::encoder::architectures;
use crate::encoder::head_names::MaskHeadNames;
use crate::encoder::network::Network;
use crate::encoder::workspace::{Workspace, view};
use crate::heads::classifier::has_head;
use crate::kernels::math::{exp_nonpositive, sum_by};
use crate::kernels::vectorize::vectorize;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::read_values;
use crate::layers::spans::span_means;
use crate::layers::table_product::TableProduct;
use crate::side_by_side::side_by_side;
use crate::tokenizer::{TextTokenizer, TokenizeOptions, TokenizerFile};

/// How transformers names models with such a head; one for sentences may stand beside it.
const HEADS: [&str; 2] = ["ForMaskedLM", "ForPreTraining"];

fn has_mask_head(config: &Value) -> bool {
    HEADS.iter().any(|head| has_head(config, head))
}

/// Masks whose scores are computed at once: there is one for each token of the vocabulary.
const MASKS_AT_ONCE: usize = 16;

/// Whether a folder holds a masked language model.
#[must_use]
pub fn holds_masked_head(path: &Path) -> bool {
    let config = read_json::<Value>(&path.join("config.json"));
    config.is_ok_and(|config| has_mask_head(&config))
}

/// What one worker keeps for the scores of masks, and for one of them in order.
pub(crate) fn scores_bytes(vocabulary: usize) -> u64 {
    (4 * (MASKS_AT_ONCE + 1) as u64).saturating_mul(vocabulary as u64)
}

/// Loads a masked language model.
///
/// Blocks while it reads; the tokenizer and the weights are read side by side.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_masked(path: &Path) -> Result<Arc<dyn MaskedModel>, LoadError> {
    let file = path.join("config.json");
    let config: Value = read_json(&file)?;
    let settings = RawConfig { file: &file, json: &config };
    let architecture = architectures::read(&config, &file)?;
    let spec = architecture.spec();
    let names = architecture.mask_head().filter(|_| has_mask_head(&config)).ok_or_else(|| {
        let found = config["architectures"][0].as_str().unwrap_or("(none)");
        let supported =
            "…ForMaskedLM of BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, MPNet, ModernBERT";
        settings.unsupported("the head", found, supported)
    })?;
    let is_tied = config["tie_word_embeddings"] != false;
    let limits = TextLimits::read(path, &spec, false)?;
    let weights = Weights::of_folder(path)?;
    let (tokenizer, parts) = side_by_side(
        || TokenizerFile::open(&path.join("tokenizer.json")),
        || {
            let mut reader = TensorReader::new(&weights, &Device::Cpu);
            let network = architecture.network(&mut reader)?;
            reader.leave();
            let head = MaskHead::read(&mut reader, names, &network, is_tied)?;
            reader.tell_unread();
            Ok((network, head, reader.bytes()))
        },
    );
    let (network, head, weight_bytes) = parts?;
    let tokenizer = tokenizer?;
    let mask = read_mask(path, &tokenizer)?;
    let style = TokenizeOptions::of(limits, true);
    let encoder = tokenizer.fit(spec.vocabulary, limits.max_tokens, style, String::new())?;
    let Some(mask_id) = encoder.token_id(&mask) else {
        let file = path.join("tokenizer.json");
        let settings = RawConfig { file: &file, ..settings };
        return Err(settings.unsupported("the mask token", &mask, "a token of the vocabulary"));
    };
    let card = ModelSpec {
        architecture: spec.name.to_owned(),
        max_tokens: limits.max_tokens,
        weight_bytes,
        ..ModelSpec::default()
    };
    Ok(Arc::new(MaskedTransformer { network, encoder, head, mask, mask_id, card }))
}

/// How masks are spelled where no file says it: a folder may leave out what the class of its tokenizer
/// has by itself.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// How the mask is spelled, by whichever file says it.
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

/// What makes scores of all tokens from the row of a mask.
#[derive(Debug)]
struct MaskHead {
    dense: Linear,
    norm: Norm,
    scores: TableProduct,
}

impl MaskHead {
    fn read(
        reader: &mut TensorReader<'_>,
        names: MaskHeadNames,
        network: &Network,
        is_tied: bool,
    ) -> Result<Self, LoadError> {
        // The head writes rows as the token table has them, which may be narrower than those it reads.
        let (hidden, width) = (network.widths.hidden, network.widths.embedding);
        let tokens = &network.embedding.tokens;
        let vocabulary = tokens.elem_count() / width;
        let table = if is_tied {
            tokens.clone()
        } else {
            reader.tensor(names.decoder, &[vocabulary, width])?
        };
        let mut bias = None;
        if let Some(name) = names.bias {
            // A matrix of its own may have one, too; the other then belongs to nothing.
            let own = names.decoder.replace(".weight", ".bias");
            let name = if !is_tied && reader.contains(&own) { own.as_str() } else { name };
            bias = Some(reader.tensor(name, &[vocabulary])?);
        }
        let dense = &[(names.dense.to_owned(), width)];
        let norm = names.norm;
        Ok(Self {
            dense: reader.linear(dense, hidden, names.dense_bias, names.activation)?,
            norm: reader.layer_norm(norm.name, width, norm.bias, norm.epsilon)?,
            scores: TableProduct { table, bias },
        })
    }

    /// Scores of all tokens for each of some rows of `hidden`, in the workspace.
    fn forward(
        &self,
        hidden: &Tensor,
        rows: &[Range<usize>],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let (count, read, width) = (rows.len(), hidden.dim(1)?, self.dense.outputs());
        let vocabulary = self.scores.table.dim(0)?;
        let buffers = workspace.buffers(count, [read, width, vocabulary], hidden.device())?;
        let masks = view(&buffers[0], count, read)?;
        let inner = view(&buffers[1], count, width)?;
        let scores = view(&buffers[2], count, vocabulary)?;
        span_means(hidden, rows, &masks)?;
        self.dense.forward(&masks, &inner)?;
        self.norm.apply(&inner)?;
        self.scores.forward(&inner, &scores)?;
        Ok(scores)
    }
}

/// A network with a head that fills masks.
#[derive(Debug)]
struct MaskedTransformer {
    network: Network,
    encoder: TextTokenizer,
    head: MaskHead,
    mask: String,
    mask_id: u32,
    card: ModelSpec,
}

impl MaskedModel for MaskedTransformer {
    fn spec(&self) -> &ModelSpec {
        &self.card
    }

    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        self.encoder.tokenize_at_most(text, max_tokens)
    }

    fn mask(&self) -> &str {
        &self.mask
    }

    fn token_text(&self, id: u32) -> String {
        self.encoder.token_text(id)
    }

    fn mask_context(self: Arc<Self>) -> Box<dyn MaskContext> {
        let (encoder, head) = <(Workspace, Workspace)>::default();
        Box::new(MaskWorker { model: self, encoder, head, order: Vec::new() })
    }
}

/// One worker's way through the network, and through the head.
#[derive(Debug)]
struct MaskWorker {
    model: Arc<MaskedTransformer>,
    encoder: Workspace,
    head: Workspace,
    /// Tokens on their way to be sorted.
    order: Vec<u32>,
}

/// Where a mask stands.
#[derive(Debug, Clone, Copy)]
struct Spot {
    sequence: usize,
    position: u32,
    /// Its row in the packed activations.
    row: usize,
}

impl MaskContext for MaskWorker {
    fn fill(
        &mut self,
        batch: &[&Sequence],
        top_k: usize,
    ) -> Result<Vec<Vec<MaskScores>>, ComputeError> {
        let model = &*self.model;
        let mut filled: Vec<Vec<MaskScores>> = batch.iter().map(|_| Vec::new()).collect();
        let places = batch.iter().enumerate().flat_map(|(sequence, tokens)| {
            (0..).zip(&tokens.ids).map(move |(position, &id)| (sequence, position, id))
        });
        let spots: Vec<Spot> = places
            .enumerate()
            .filter(|(_, (.., id))| *id == model.mask_id)
            .map(|(row, (sequence, position, _))| Spot { sequence, position, row })
            .collect();
        if spots.is_empty() {
            return Ok(filled);
        }
        let hidden = model.network.forward(batch, &mut self.encoder)?;
        for spots in spots.chunks(MASKS_AT_ONCE) {
            let rows: Vec<Range<usize>> = spots.iter().map(|spot| spot.row..spot.row + 1).collect();
            let scores = model.head.forward(&hidden, &rows, &mut self.head)?;
            let vocabulary = scores.dim(1)?;
            read_values(&scores, |scores| {
                for (spot, scores) in spots.iter().zip(scores.chunks_exact(vocabulary)) {
                    let candidates = top_k_tokens(scores, top_k, &mut self.order);
                    let position = spot.position;
                    filled[spot.sequence].push(MaskScores { position, candidates });
                }
                Ok(())
            })?;
        }
        Ok(filled)
    }
}

/// The tokens of the highest scores with their probabilities among all, the likeliest first.
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
