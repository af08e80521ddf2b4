//! From a model folder to an embedding model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use crate::api::embedding::EmbeddingModel;
use crate::api::rank::RankHead;
use crate::api::spec::ModelSpec;
use crate::api::weight_type::WeightType;
use crate::checkpoint::fingerprint::ModelFingerprint;
use crate::checkpoint::layout::{HeadLayout, Layout, StaticLayout};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::SavedAs;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::weights::Weights;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures as architecture;
use crate::encoder::network::Network;
use crate::encoder::transformer::Transformer;
use crate::heads::classifier::{RankLayout, load_ranker_as};
use crate::heads::head::Head;
use crate::heads::static_embedding::StaticModel;
use crate::side_by_side::side_by_side;
use crate::tokenizer::{TokenizeOptions, TokenizerFile};

/// Loads an embedding model from a SentenceTransformers, transformers or model2vec folder.
///
/// Blocks while it reads; the tokenizer and the weights are read at the same time.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_folder(path: &Path) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    load_folder_on(path, &Device::Cpu, WeightType::F32)
}

/// The same, with its tensors on a device and its weights held as a type. Static models stay on the CPU
/// and keep their own type.
///
/// # Errors
/// As [`load_folder`], and if the device fails or has too little memory.
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

/// Loads a model that computes rows of texts and also scores pairs. Both share the weights, which are
/// read once.
///
/// # Errors
/// As [`load_folder`] and [`load_ranker`](crate::load_ranker).
pub fn load_folder_with_ranker(
    path: &Path,
    held_as: WeightType,
) -> Result<(Arc<dyn EmbeddingModel>, RankHead), LoadError> {
    let settings = SentenceSettings::of_folder(path, SavedAs::SentenceTransformer)?;
    let Layout::Transformer { folder, head } = Layout::read(path)? else {
        // Its modules are a table of rows, which the scoring head cannot share.
        return Ok((load_folder(path)?, load_ranker_as(path, held_as)?));
    };
    let parts = TransformerParts::read(path, &folder, &head)?;
    let layout = RankLayout::read(path, &*parts.architecture)?;
    let network = || layout.load(&*parts.architecture, &parts.weights, held_as);
    let (raw, network) = side_by_side(|| parts.tokenizer(), network);
    let (network, classifier) = network?;
    let model = parts.transformer(&head, settings, raw?, network, held_as)?;
    let limits = layout.limits(path, &parts.architecture.spec())?;
    let file = parts.folder.join("tokenizer.json");
    let encoder = model.encoder.with_limits(limits, &file)?;
    let card = ModelSpec {
        architecture: model.card.architecture.clone(),
        max_tokens: limits.max_tokens,
        ..ModelSpec::default()
    };
    let (network, encoder) = (Arc::clone(&model.network), Arc::new(encoder));
    let ranker = layout.head(network, encoder, classifier, card);
    Ok((Arc::new(model), ranker))
}

/// Whether a folder holds a model: its weights, and files that describe them.
#[must_use]
pub fn holds_model(path: &Path) -> bool {
    let folder = match Layout::read(path) {
        Ok(Layout::Transformer { folder, .. }) => folder,
        Ok(Layout::Static(layout)) => layout.folder,
        Err(_) => return false,
    };
    Weights::of_folder(&folder).is_ok()
}

/// The files of a transformer; of the weights only headers were read.
struct TransformerParts {
    architecture: Box<dyn Architecture>,
    limits: TextLimits,
    weights: Weights,
    /// The folder of all of these.
    folder: PathBuf,
}

impl TransformerParts {
    /// Reads configurations and headers. `folder` is that of the transformer among the modules of `path`.
    fn read(path: &Path, folder: &Path, head: &HeadLayout) -> Result<Self, LoadError> {
        if head.is_assumed {
            tracing::warn!(
                folder = %path.display(),
                "no modules.json: rows are the mean of the tokens' rows, not normalised"
            );
        }
        let architecture = architecture::read_folder(folder)?;
        let own_file_counts = SavedAs::of(path)? == SavedAs::SentenceTransformer;
        let limits = TextLimits::read(folder, &architecture.spec(), own_file_counts)?;
        let weights = Weights::of_folder(folder)?;
        Ok(Self { architecture, limits, weights, folder: folder.to_owned() })
    }

    /// Reads the tokenizer and then hashes the weights, while another thread reads the tensors.
    fn tokenizer(&self) -> Result<(TokenizerFile, [u8; 32]), LoadError> {
        let raw = TokenizerFile::of_folder(&self.folder, self.architecture.spec().name)?;
        Ok((raw, self.weights.digest()?))
    }

    fn transformer(
        &self,
        layout: &HeadLayout,
        settings: SentenceSettings,
        (tokenizer, digest): (TokenizerFile, [u8; 32]),
        network: Network,
        held_as: WeightType,
    ) -> Result<Transformer, LoadError> {
        let Self { architecture, limits, .. } = self;
        let facts = architecture.spec();
        let pools_prompt = layout.pools_prompt;
        let head = Head::load(layout, facts.widths.hidden)?;
        let fingerprint = ModelFingerprint::new(facts.name)
            .part("weights", &digest)
            // All settings: each may change how rows are computed from weights.
            .part("config", format!("{architecture:?}").as_bytes())
            .part("tokenizer", &tokenizer.digest)
            .part("limits", format!("{limits:?} {pools_prompt}").as_bytes())
            .part("head", &head.identity())
            .part("computing type", b"f32")
            .part("weights held as", format!("{held_as:?}").as_bytes())
            .finish();
        let style = TokenizeOptions::of(*limits, pools_prompt);
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
    let tokenizer = TokenizerFile::open(&folder.join("tokenizer.json"))?;
    Ok(Arc::new(StaticModel::new(&weights, tokenizer, layout, settings)?))
}
