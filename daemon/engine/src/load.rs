//! From a model folder to a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use candle_core::Device;

use crate::api::embedding::{EmbeddingModel, ModelSpec, RankHead, WeightType};
use crate::checkpoint::fingerprint::ModelFingerprint;
use crate::checkpoint::folder::{Layout, StaticLayout, read_file, read_json};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::{HeadLayout, SavedAs};
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::weights::Weights;
use crate::encoder::architectures as architecture;
use crate::encoder::architectures::Architecture;
use crate::encoder::network::Network;
use crate::encoder::transformer::Transformer;
use crate::heads::classifier::{RankLayout, holds_rank_head, load_ranker_as};
use crate::heads::head::Head;
use crate::heads::masked_lm as masked;
use crate::heads::masked_lm::holds_masked_head;
use crate::heads::static_embedding::StaticModel;
use crate::layers::portable::SCORES;
use crate::need::Need;
use crate::tokenizer::sentencepiece::T5Files;
use crate::tokenizer::{RawTokenizer, Style};

/// Loads an embedding model from a SentenceTransformers, transformers or model2vec folder.
///
/// Blocks while it reads; the tokenizer and the weights are read side by side.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_folder(path: &Path) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    load_folder_on(path, &Device::Cpu, WeightType::F32)
}

/// The same, with its tensors on a device, and weights held as a type. Static models are on the CPU in
/// any case, as they are.
///
/// # Errors
/// As [`load_folder`], and where the device fails or has no memory for it.
pub fn load_folder_on(
    path: &Path,
    device: &Device,
    held_as: WeightType,
) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    let settings = SentenceSettings::of_folder(path, SavedAs::SentenceTransformer)?;
    match Layout::read(path)? {
        Layout::Transformer { folder, head } => {
            let parts = TransformerParts::read(path, &folder, &head)?;
            let network =
                || architecture::load(&*parts.architecture, &parts.weights, device, held_as);
            let (raw, network) = side_by_side(|| parts.tokenizer(), network);
            Ok(Arc::new(parts.transformer(&head, settings, raw?, network?, held_as)?))
        }
        Layout::Static(layout) => load_static(&layout, settings),
    }
}

/// Loads a model that scores pairs of texts and makes rows of them, too: over the same weights, which
/// are read once.
///
/// # Errors
/// As [`load_folder`] and [`load_ranker`](crate::load_ranker).
pub fn load_folder_with_ranker(
    path: &Path,
    held_as: WeightType,
) -> Result<(Arc<dyn EmbeddingModel>, RankHead), LoadError> {
    let settings = SentenceSettings::of_folder(path, SavedAs::SentenceTransformer)?;
    let Layout::Transformer { folder, head } = Layout::read(path)? else {
        // Its modules are a table of rows; the head is another model's.
        return Ok((load_folder(path)?, load_ranker_as(path, held_as)?));
    };
    let parts = TransformerParts::read(path, &folder, &head)?;
    let layout = RankLayout::read(path, &*parts.architecture)?;
    let network = || layout.load(&*parts.architecture, &parts.weights, held_as);
    let (raw, network) = side_by_side(|| parts.tokenizer(), network);
    let (network, classifier) = network?;
    let model = parts.transformer(&head, settings, raw?, network, held_as)?;
    let limits = layout.limits(path, &parts.architecture.facts())?;
    let file = parts.folder.join("tokenizer.json");
    let encoder = model.encoder.of_other_limits(limits, &file)?;
    let card = ModelSpec {
        architecture: model.card.architecture.clone(),
        max_tokens: limits.max_tokens,
        ..ModelSpec::default()
    };
    let (network, encoder) = (Arc::clone(&model.network), Arc::new(encoder));
    let ranker = layout.head(network, encoder, classifier, card);
    Ok((Arc::new(model), ranker))
}

/// What a tokenizer takes for each byte of its file: the words, each in two tables.
pub(crate) const TOKENIZER_TIMES_FILE: u64 = 25;

/// The same for one of the kind `Unigram`, which also has a node for each beginning of a word.
const UNIGRAM_TIMES_FILE: u64 = 50;

/// What the tokenizer takes whose `tokenizer.json` has these bytes.
pub(crate) fn tokenizer_need(json: &[u8]) -> u64 {
    let is_unigram = [&br#""type":"Unigram""#[..], br#""type": "Unigram""#]
        .iter()
        .any(|kind| json.windows(kind.len()).any(|window| window == *kind));
    let times = if is_unigram { UNIGRAM_TIMES_FILE } else { TOKENIZER_TIMES_FILE };
    times.saturating_mul(json.len() as u64)
}

/// What is on a GPU for each token of a batch, in multiples of the activations: these, what an
/// operation makes before it is put there, and what it is made from where that must be copied.
const GPU_TIMES_WIDTHS: u64 = 3;

/// The same for the scores of attention: before and after the softmax, and what is added to them.
const GPU_TIMES_SCORES: u64 = 3;

const SCORES_BYTES: u64 = 4 * SCORES as u64;

/// Whether a folder holds a model's weights and says what they are.
#[must_use]
pub fn holds_model(path: &Path) -> bool {
    let folder = match Layout::read(path) {
        Ok(Layout::Transformer { folder, .. }) => folder,
        Ok(Layout::Static(layout)) => layout.folder,
        Err(_) => return false,
    };
    Weights::of_folder(&folder).is_ok()
}

/// What the model of a folder takes in memory with so many workers: its weights as they will lie
/// there, its tokenizer, and what the workers keep for a batch; on a GPU without the tokenizer, and for
/// one worker. `held_as` counts on the CPU. Reads headers and settings alone.
///
/// # Errors
/// As [`load_folder`], where the folder itself is at fault.
pub fn folder_need(
    path: &Path,
    cpu_workers: usize,
    batch_tokens: usize,
    gpu_batch_tokens: usize,
    held_as: WeightType,
) -> Result<Need, LoadError> {
    // A head stands beside its configuration, whatever modules there are.
    let layout = match holds_rank_head(path) || holds_masked_head(path) {
        true => Layout::bare(path),
        false => Layout::read(path)?,
    };
    let (folder, scratch, gpu_scratch) = match layout {
        Layout::Transformer { folder, .. } => {
            let facts = read_architecture(&folder)?.facts();
            let token = facts.widths.total().saturating_mul(4);
            // Once more for keys, values and scores, of which there are fewer.
            let activations = token.saturating_mul(2 * batch_tokens as u64);
            let is_masked = holds_masked_head(&folder);
            let scores = if is_masked { masked::scores_bytes(facts.vocabulary) } else { 0 };
            let on_gpu = token.saturating_mul(GPU_TIMES_WIDTHS * gpu_batch_tokens as u64);
            // Heads that score are on the CPU.
            let has_scores = is_masked || holds_rank_head(&folder);
            let gpu_scratch =
                (!has_scores).then(|| on_gpu.saturating_add(GPU_TIMES_SCORES * SCORES_BYTES));
            (folder, activations.saturating_add(scores), gpu_scratch)
        }
        Layout::Static(layout) => (layout.folder, 0, None),
    };
    // A table stays as it is.
    let held_as = if gpu_scratch.is_none() && scratch == 0 { WeightType::F32 } else { held_as };
    let weights = Weights::of_folder(&folder)?;
    // One that cannot be read is told of when it is loaded.
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

/// What a transformer is made from.
struct TransformerParts {
    architecture: Box<dyn Architecture>,
    limits: TextLimits,
    weights: Weights,
    /// Where all of these are.
    folder: PathBuf,
}

impl TransformerParts {
    /// Reads settings and headers; `folder` is that of the transformer among the modules of `path`.
    fn read(path: &Path, folder: &Path, head: &HeadLayout) -> Result<Self, LoadError> {
        if head.is_assumed {
            tracing::warn!(
                folder = %path.display(),
                "no modules say how rows are pooled: they are the mean of the tokens' rows, not normalised"
            );
        }
        let architecture = read_architecture(folder)?;
        let own_file_counts = SavedAs::of(path)? == SavedAs::SentenceTransformer;
        let limits = TextLimits::read(folder, &architecture.facts(), own_file_counts)?;
        let weights = Weights::of_folder(folder)?;
        Ok(Self { architecture, limits, weights, folder: folder.to_owned() })
    }

    /// Reads the tokenizer, and hashes the weights: in this order, while others read tensors.
    fn tokenizer(&self) -> Result<(RawTokenizer, [u8; 32]), LoadError> {
        let raw = RawTokenizer::of_folder(&self.folder, self.architecture.facts().name)?;
        Ok((raw, self.weights.digest()?))
    }

    fn transformer(
        &self,
        layout: &HeadLayout,
        settings: SentenceSettings,
        (tokenizer, digest): (RawTokenizer, [u8; 32]),
        network: Network,
        held_as: WeightType,
    ) -> Result<Transformer, LoadError> {
        let Self { architecture, limits, .. } = self;
        let facts = architecture.facts();
        let pools_prompt = layout.pools_prompt;
        let head = Head::load(layout, facts.widths.hidden)?;
        let fingerprint = ModelFingerprint::new(facts.name)
            .part("weights", &digest)
            // All of it: heads, activation, and whatever else makes rows from weights.
            .part("config", format!("{architecture:?}").as_bytes())
            .part("tokenizer", &tokenizer.digest)
            .part("limits", format!("{limits:?} {pools_prompt}").as_bytes())
            .part("head", &head.identity())
            .part("computing type", b"f32")
            .part("weights held as", format!("{held_as:?}").as_bytes())
            .finish();
        let style = Style::of(*limits, pools_prompt);
        let prompt = settings.default_prompt_text().to_owned();
        let encoder = tokenizer.fit(facts.vocabulary, limits.max_tokens, style, prompt)?;
        let card = ModelSpec {
            architecture: facts.name.to_owned(),
            dimension: head.outputs(),
            max_tokens: limits.max_tokens,
            normalized: head.normalizes(),
            prompts: settings.prompts,
            default_prompt: settings.default_prompt,
            similarity: Some(settings.similarity),
            truncate_dim: settings.truncate_dim,
            weight_bytes: network.weight_bytes + head.weight_bytes(),
        };
        let (network, encoder) = (Arc::new(network), Arc::new(encoder));
        Ok(Transformer { network, encoder, head, card, fingerprint })
    }
}

fn load_static(
    layout: &StaticLayout,
    settings: SentenceSettings,
) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    let folder = &layout.folder;
    let weights = Weights::of_folder(folder)?;
    let tokenizer = RawTokenizer::open(&folder.join("tokenizer.json"))?;
    Ok(Arc::new(StaticModel::new(&weights, tokenizer, layout, settings)?))
}

/// Runs both, the first on a thread of its own.
pub(crate) fn side_by_side<A: Send, B>(
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B,
) -> (A, B) {
    thread::scope(|scope| {
        let a = scope.spawn(a);
        let b = b();
        match a.join() {
            Ok(a) => (a, b),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn read_architecture(folder: &Path) -> Result<Box<dyn Architecture>, LoadError> {
    let file = folder.join("config.json");
    architecture::read(&read_json(&file)?, &file)
}

#[cfg(test)]
mod tests {
    use super::{
        TOKENIZER_TIMES_FILE, UNIGRAM_TIMES_FILE, WeightType, folder_need, tokenizer_need,
    };
    use std::path::{Path, PathBuf};

    fn folder(model: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model)
    }

    #[test]
    fn a_tokenizer_of_the_greedier_kind_is_counted_as_one() {
        let json = |model: &str| std::fs::read(folder(model).join("tokenizer.json")).unwrap();
        let (bert, xlmr) = (json("bert-mean-norm"), json("xlmr-mean-e5"));
        assert_eq!(tokenizer_need(&bert), TOKENIZER_TIMES_FILE * bert.len() as u64);
        assert_eq!(tokenizer_need(&xlmr), UNIGRAM_TIMES_FILE * xlmr.len() as u64);
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
