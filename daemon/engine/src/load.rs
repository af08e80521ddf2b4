//! From a model folder to an embedding model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use crate::api::embedding::EmbeddingModel;
use crate::api::rank::RankHead;
use crate::api::spec::ModelSpec;
use crate::api::weight_type::WeightType;
use crate::checkpoint::fingerprint::ModelFingerprint;
use crate::checkpoint::layout::{Layout, PoolingHeadSpec, StaticLayout};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::SavedAs;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::weights::Weights;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures;
use crate::encoder::network::Network;
use crate::heads::classifier_spec::ClassifierSpec;
use crate::heads::pooling_head::PoolingHead;
use crate::heads::ranker::load_ranker_as;
use crate::heads::static_embedding::StaticModel;
use crate::heads::transformer::Transformer;
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
                || architectures::load(&*parts.architecture, &parts.weights, device, held_as);
            let (tokenizer, network) = side_by_side(|| parts.tokenizer(), network);
            Ok(Arc::new(parts.transformer(&head, settings, tokenizer?, network?, held_as)?))
        }
        Layout::Static(layout) => load_static(&layout, settings),
    }
}

/// Loads a model that computes rows of texts and also scores pairs. Both share their weights, which are
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
        // The model is a table of rows, which a classification head cannot share.
        return Ok((load_folder(path)?, load_ranker_as(path, held_as)?));
    };
    let parts = TransformerParts::read(path, &folder, &head)?;
    let rank_head = ClassifierSpec::read(path, &*parts.architecture)?;
    let network = || rank_head.load(&*parts.architecture, &parts.weights, held_as);
    let (tokenizer, network) = side_by_side(|| parts.tokenizer(), network);
    let (network, classifier) = network?;
    let model = parts.transformer(&head, settings, tokenizer?, network, held_as)?;
    let limits = rank_head.limits(path, &parts.architecture.spec())?;
    let file = parts.folder.join("tokenizer.json");
    let tokenizer = model.tokenizer.with_limits(limits, &file)?;
    let spec = ModelSpec {
        architecture: model.spec.architecture.clone(),
        max_tokens: limits.max_tokens,
        ..ModelSpec::default()
    };
    let (network, tokenizer) = (Arc::clone(&model.network), Arc::new(tokenizer));
    let ranker = rank_head.ranker(network, tokenizer, classifier, spec);
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

/// The files of a transformer; of the weights only the headers are read.
struct TransformerParts {
    architecture: Box<dyn Architecture>,
    limits: TextLimits,
    weights: Weights,
    /// The folder of these files.
    folder: PathBuf,
}

impl TransformerParts {
    /// Reads configurations and headers. `folder` belongs to the transformer among the modules of `path`.
    fn read(path: &Path, folder: &Path, head: &PoolingHeadSpec) -> Result<Self, LoadError> {
        if head.is_assumed {
            tracing::warn!(
                folder = %path.display(),
                "no modules.json: rows are the mean of the tokens' rows, not normalised"
            );
        }
        let architecture = architectures::read_folder(folder)?;
        let own_file_counts = SavedAs::of(path)? == SavedAs::SentenceTransformer;
        let limits = TextLimits::read(folder, &architecture.spec(), own_file_counts)?;
        let weights = Weights::of_folder(folder)?;
        Ok(Self { architecture, limits, weights, folder: folder.to_owned() })
    }

    /// Reads the tokenizer and then hashes the weights, while another thread reads the tensors.
    fn tokenizer(&self) -> Result<(TokenizerFile, [u8; 32]), LoadError> {
        let name = self.architecture.spec().name;
        let tokenizer = TokenizerFile::of_folder(&self.folder, name)?;
        Ok((tokenizer, self.weights.digest()?))
    }

    fn transformer(
        &self,
        head: &PoolingHeadSpec,
        settings: SentenceSettings,
        (tokenizer, digest): (TokenizerFile, [u8; 32]),
        network: Network,
        held_as: WeightType,
    ) -> Result<Transformer, LoadError> {
        let Self { architecture, limits, .. } = self;
        let encoder = architecture.spec();
        let pools_prompt = head.pools_prompt;
        let head = PoolingHead::load(head, encoder.widths.hidden)?;
        let fingerprint = ModelFingerprint::new(encoder.name)
            .part("weights", &digest)
            // Every setting may change how rows are computed from the weights.
            .part("config", format!("{architecture:?}").as_bytes())
            .part("tokenizer", &tokenizer.digest)
            .part("limits", format!("{limits:?} {pools_prompt}").as_bytes())
            .part("head", &head.identity())
            .part("computing type", b"f32")
            .part("weights held as", format!("{held_as:?}").as_bytes())
            .finish();
        let options = TokenizeOptions::of(*limits, pools_prompt);
        let prompt = settings.default_prompt_text().to_owned();
        let tokenizer = tokenizer.fit(encoder.vocabulary, limits.max_tokens, options, prompt)?;
        let spec = ModelSpec {
            architecture: encoder.name.to_owned(),
            dimension: head.outputs(),
            max_tokens: limits.max_tokens,
            normalized: head.normalizes(),
            prompts: settings.prompts,
            default_prompt: settings.default_prompt,
            similarity: Some(settings.similarity),
            truncate_dim: settings.truncate_dim,
            weight_bytes: network.weight_bytes + head.weight_bytes(),
        };
        let (network, tokenizer) = (Arc::new(network), Arc::new(tokenizer));
        Ok(Transformer { network, tokenizer, head, spec, fingerprint })
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

#[cfg(test)]
mod tests;
