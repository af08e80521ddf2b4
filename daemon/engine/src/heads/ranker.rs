//! Cross-encoders and other models that classify sequences.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use crate::api::embedding::{ComputeContext, EmbeddingModel, check_rows};
use crate::api::error::ComputeError;
use crate::api::rank::RankHead;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::api::weight_type::WeightType;
use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::weights::Weights;
use crate::encoder::architecture::Architecture;
use crate::encoder::architectures;
use crate::encoder::network::Network;
use crate::encoder::workspace::Workspace;
use crate::heads::classifier::Classifier;
use crate::heads::classifier_spec::ClassifierSpec;
use crate::layers::read_values;
use crate::side_by_side::side_by_side;
use crate::tokenizer::{TextTokenizer, TokenizeOptions, TokenizerFile};

/// Loads a model that scores pairs of texts.
///
/// Blocks while it reads; the tokenizer and the weights are read at the same time.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_ranker(path: &Path) -> Result<RankHead, LoadError> {
    load_ranker_as(path, WeightType::F32)
}

/// The same, with its weights held as another type.
///
/// # Errors
/// As [`load_ranker`].
pub fn load_ranker_as(path: &Path, held_as: WeightType) -> Result<RankHead, LoadError> {
    let file = path.join("config.json");
    let architecture = architectures::read(&read_json(&file)?, &file)?;
    let head = ClassifierSpec::read(path, &*architecture)?;
    let encoder = architecture.spec();
    let limits = head.limits(path, &encoder)?;
    let weights = Weights::of_folder(path)?;
    let (tokenizer, parts) = side_by_side(
        || TokenizerFile::open(&path.join("tokenizer.json")),
        || head.load(&*architecture, &weights, held_as),
    );
    let (network, classifier) = parts?;
    let options = TokenizeOptions::of(limits, true);
    let tokenizer =
        tokenizer?.fit(encoder.vocabulary, limits.max_tokens, options, String::new())?;
    let spec = ModelSpec {
        architecture: encoder.name.to_owned(),
        max_tokens: limits.max_tokens,
        weight_bytes: network.weight_bytes,
        ..ModelSpec::default()
    };
    Ok(head.ranker(Arc::new(network), Arc::new(tokenizer), classifier, spec))
}

impl ClassifierSpec {
    /// Reads the network and the head.
    pub(crate) fn load(
        &self,
        architecture: &dyn Architecture,
        weights: &Weights,
        held_as: WeightType,
    ) -> Result<(Network, Classifier), LoadError> {
        let mut reader = TensorReader::new(weights, &Device::Cpu).holding(held_as);
        let network = architecture.network(&mut reader)?;
        reader.leave();
        let width = architecture.spec().widths.hidden;
        let mut classifier = Classifier::read(&mut reader, self.names, width, self.labels.len())?;
        reader.log_unread();
        classifier.weight_bytes = reader.bytes() - network.weight_bytes;
        Ok((network, classifier))
    }

    /// The model of this head on its network. `spec` describes the network; its weight bytes are those
    /// that no other model has counted.
    pub(crate) fn ranker(
        self,
        network: Arc<Network>,
        tokenizer: Arc<TextTokenizer>,
        classifier: Classifier,
        mut spec: ModelSpec,
    ) -> RankHead {
        let Self { labels, activation, prompt, .. } = self;
        spec.dimension = labels.len();
        spec.weight_bytes += classifier.weight_bytes;
        let model = Arc::new(Ranker { network, tokenizer, classifier, prompt, spec });
        RankHead { model, labels, activation }
    }
}

/// A network with a classification head.
#[derive(Debug)]
struct Ranker {
    network: Arc<Network>,
    tokenizer: Arc<TextTokenizer>,
    classifier: Classifier,
    /// Precedes the first text of each pair.
    prompt: String,
    spec: ModelSpec,
}

impl EmbeddingModel for Ranker {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenizer.tokenize_untrimmed(text)
    }

    fn tokenize_pair(&self, first: &str, second: &str) -> Result<Sequence, ComputeError> {
        if self.prompt.is_empty() {
            return self.tokenizer.tokenize_pair(first, second);
        }
        self.tokenizer.tokenize_pair(&format!("{}{first}", self.prompt), second)
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        let (encoder, classifier) = <(Workspace, Workspace)>::default();
        Box::new(RankerContext { model: self, encoder, classifier })
    }
}

/// The state of one worker: scratch memory of the network, and of the head.
#[derive(Debug)]
struct RankerContext {
    model: Arc<Ranker>,
    encoder: Workspace,
    classifier: Workspace,
}

impl ComputeContext for RankerContext {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.spec, batch, rows)?;
        if batch.is_empty() {
            return Ok(());
        }
        let hidden = model.network.forward(batch, &mut self.encoder)?;
        let values = model.classifier.forward(&hidden, batch, &mut self.classifier)?;
        read_values(&values, |values| {
            let labels = model.spec.dimension;
            for (row, values) in rows.iter_mut().zip(values.chunks_exact(labels)) {
                row.copy_from_slice(values);
            }
            Ok(())
        })?;
        Ok(())
    }
}
