//! Cross-encoders and other models that classify sequences.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};
use emberd_protocol::ScoreActivation;
use serde_json::Value;

use crate::api::embedding::{ComputeContext, EmbeddingModel, check_rows};
use crate::api::error::ComputeError;
use crate::api::rank::RankHead;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::api::weight_type::WeightType;
use crate::checkpoint::folder::{read_json, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::{SavedAs, check_bare};
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::weights::Weights;
use crate::encoder::architecture::{Architecture, EncoderSpec};
use crate::encoder::architectures;
use crate::encoder::head_names::{ClassifierNames, ClassifierPooling};
use crate::encoder::network::Network;
use crate::encoder::workspace::{Workspace, view};
use crate::layers::activation::Activation;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::read_values;
use crate::layers::spans::span_means;
use crate::side_by_side::side_by_side;
use crate::tokenizer::{TextTokenizer, TokenizeOptions, TokenizerFile};

/// More are a mistake: each is a name in the answer.
const MOST_LABELS: usize = 100_000;

/// How transformers names models with such a head.
const HEAD: &str = "ForSequenceClassification";

/// Whether a folder holds a model that classifies sequences.
#[must_use]
pub fn holds_rank_head(path: &Path) -> bool {
    let config = read_json::<Value>(&path.join("config.json"));
    config.is_ok_and(|config| has_head(&config, HEAD))
}

/// Whether a configuration is of a model with a head of this kind.
pub(crate) fn has_head(config: &Value, head: &str) -> bool {
    config["architectures"][0].as_str().is_some_and(|name| name.ends_with(head))
}

/// Loads a model that scores pairs of texts.
///
/// Blocks while it reads; the tokenizer and the weights are read side by side.
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
    let layout = RankLayout::read(path, &*architecture)?;
    let spec = architecture.spec();
    let limits = layout.limits(path, &spec)?;
    let weights = Weights::of_folder(path)?;
    let (tokenizer, parts) = side_by_side(
        || TokenizerFile::open(&path.join("tokenizer.json")),
        || layout.load(&*architecture, &weights, held_as),
    );
    let (network, classifier) = parts?;
    let style = TokenizeOptions::of(limits, true);
    let encoder = tokenizer?.fit(spec.vocabulary, limits.max_tokens, style, String::new())?;
    let card = ModelSpec {
        architecture: spec.name.to_owned(),
        max_tokens: limits.max_tokens,
        weight_bytes: network.weight_bytes,
        ..ModelSpec::default()
    };
    Ok(layout.head(Arc::new(network), Arc::new(encoder), classifier, card))
}

/// What a folder says of its head, before any weights are read.
pub(crate) struct RankLayout {
    names: ClassifierNames,
    labels: Vec<String>,
    activation: ScoreActivation,
    /// Goes in front of the first text of each pair.
    prompt: String,
    saved_as: SavedAs,
}

impl RankLayout {
    pub(crate) fn read(path: &Path, architecture: &dyn Architecture) -> Result<Self, LoadError> {
        let file = path.join("config.json");
        let config: Value = read_json(&file)?;
        let settings = RawConfig { file: &file, json: &config };
        let names =
            architecture.classifier().filter(|_| has_head(&config, HEAD)).ok_or_else(|| {
                let found = config["architectures"][0].as_str().unwrap_or("(none)");
                let supported =
                    "…ForSequenceClassification of BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, MPNet, ModernBERT";
                settings.unsupported("the head", found, supported)
            })?;
        let saved_as = SavedAs::of(path)?;
        let labels = labels(settings)?;
        let activation = activation(path, settings, labels.len(), saved_as)?;
        if saved_as == SavedAs::CrossEncoder {
            check_bare(path)?;
        }
        let own = SentenceSettings::of_folder(path, SavedAs::CrossEncoder)?;
        let prompt = own.default_prompt_text().to_owned();
        Ok(Self { names, labels, activation, prompt, saved_as })
    }

    /// How pairs are cut.
    pub(crate) fn limits(&self, path: &Path, spec: &EncoderSpec) -> Result<TextLimits, LoadError> {
        TextLimits::read(path, spec, self.saved_as == SavedAs::CrossEncoder)
    }

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
        reader.tell_unread();
        classifier.weight_bytes = reader.bytes() - network.weight_bytes;
        Ok((network, classifier))
    }

    /// The head on its network. `card` says what is known of the network, and which of its bytes
    /// count here.
    pub(crate) fn head(
        self,
        network: Arc<Network>,
        encoder: Arc<TextTokenizer>,
        classifier: Classifier,
        mut card: ModelSpec,
    ) -> RankHead {
        let Self { labels, activation, prompt, .. } = self;
        card.dimension = labels.len();
        card.weight_bytes += classifier.weight_bytes;
        let model = Arc::new(Ranker { network, encoder, classifier, prompt, card });
        RankHead { model, labels, activation }
    }
}

/// The names of the labels by their number. A configuration that names none has two, unless it says
/// how many.
fn labels(settings: RawConfig<'_>) -> Result<Vec<String>, LoadError> {
    let Some(names) = settings.json["id2label"].as_object() else {
        let count = settings.size_or("num_labels", 2)?;
        if count > MOST_LABELS {
            let wanted = format!("at most {MOST_LABELS}");
            return Err(settings.setting("num_labels", count, wanted));
        }
        return Ok((0..count).map(|number| format!("LABEL_{number}")).collect());
    };
    let by_number = |number: usize| names.get(&number.to_string()).and_then(Value::as_str);
    let labels: Option<Vec<String>> =
        (0..names.len()).map(|number| by_number(number).map(str::to_owned)).collect();
    labels.filter(|labels| !labels.is_empty()).ok_or_else(|| {
        let found = settings.json["id2label"].to_string();
        settings.unsupported("id2label", &found, "a name for each number from 0 on")
    })
}

/// What is to be done with what the head puts out: as sentence-transformers decides it. Since version
/// 6 it writes that where it has a file of its own; a class that is not of torch it does not trust.
fn activation(
    path: &Path,
    settings: RawConfig<'_>,
    labels: usize,
    saved_as: SavedAs,
) -> Result<ScoreActivation, LoadError> {
    let config = settings.json;
    let own = if saved_as == SavedAs::CrossEncoder {
        read_json_if_there::<Value>(&path.join("config_sentence_transformers.json"))?
    } else {
        None
    };
    let newest = own.as_ref().map_or(&Value::Null, |own| &own["activation_fn"]);
    let newer = &config["sentence_transformers"]["activation_fn"];
    let older = &config["sbert_ce_default_activation_function"];
    let trusted = |class: &&str| class.starts_with("torch.");
    let said = [newest, newer, older].into_iter().filter_map(Value::as_str).find(trusted);
    let Some(class) = said else {
        let one = ScoreActivation::Sigmoid;
        return Ok(if labels == 1 { one } else { ScoreActivation::Identity });
    };
    match class.rsplit('.').next() {
        Some("Sigmoid") => Ok(ScoreActivation::Sigmoid),
        Some("Identity") => Ok(ScoreActivation::Identity),
        Some("Softmax") => Ok(ScoreActivation::Softmax),
        _ => {
            let supported = "Sigmoid, Identity, Softmax";
            Err(settings.unsupported("the activation of scores", class, supported))
        }
    }
}

/// What makes the values of the labels from token rows.
#[derive(Debug)]
pub(crate) struct Classifier {
    pooling: ClassifierPooling,
    dense: Linear,
    norm: Option<Norm>,
    output: Linear,
    weight_bytes: u64,
}

impl Classifier {
    fn read(
        reader: &mut TensorReader<'_>,
        names: ClassifierNames,
        width: usize,
        labels: usize,
    ) -> Result<Self, LoadError> {
        let dense = &[(names.dense.to_owned(), width)];
        let output = &[(names.output.to_owned(), labels)];
        let mut norm = None;
        if let Some(names) = names.norm {
            norm = Some(reader.layer_norm(names.name, width, names.bias, names.epsilon)?);
        }
        Ok(Self {
            pooling: names.pooling,
            dense: reader.linear(dense, width, names.dense_bias, names.activation)?,
            norm,
            output: reader.linear(output, width, true.into(), Activation::None)?,
            weight_bytes: 0,
        })
    }

    /// One row of values for each of the packed sequences, in the workspace.
    fn forward(
        &self,
        hidden: &Tensor,
        batch: &[&Sequence],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let (count, width, labels) = (batch.len(), self.dense.outputs(), self.output.outputs());
        let buffers = workspace.buffers(count, [width, width, labels], hidden.device())?;
        let pooled = view(&buffers[0], count, width)?;
        let inner = view(&buffers[1], count, width)?;
        let values = view(&buffers[2], count, labels)?;
        let mut end = 0;
        let span = |sequence: &&Sequence| -> Range<usize> {
            let start = end;
            end += sequence.ids.len();
            match self.pooling {
                ClassifierPooling::First => start..end.min(start + 1),
                ClassifierPooling::Mean => start..end,
            }
        };
        let spans: Vec<Range<usize>> = batch.iter().map(span).collect();
        span_means(hidden, &spans, &pooled)?;
        self.dense.forward(&pooled, &inner)?;
        if let Some(norm) = &self.norm {
            norm.apply(&inner)?;
        }
        self.output.forward(&inner, &values)?;
        Ok(values)
    }
}

/// A network with a head that classifies.
#[derive(Debug)]
struct Ranker {
    network: Arc<Network>,
    encoder: Arc<TextTokenizer>,
    classifier: Classifier,
    prompt: String,
    card: ModelSpec,
}

impl EmbeddingModel for Ranker {
    fn spec(&self) -> &ModelSpec {
        &self.card
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encoder.tokenize_untrimmed(text)
    }

    fn tokenize_pair(&self, first: &str, second: &str) -> Result<Sequence, ComputeError> {
        if self.prompt.is_empty() {
            return self.encoder.tokenize_pair(first, second);
        }
        self.encoder.tokenize_pair(&format!("{}{first}", self.prompt), second)
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        let (encoder, classifier) = <(Workspace, Workspace)>::default();
        Box::new(RankComputer { model: self, encoder, classifier })
    }
}

/// One worker's way through the network, and through the head.
#[derive(Debug)]
struct RankComputer {
    model: Arc<Ranker>,
    encoder: Workspace,
    classifier: Workspace,
}

impl ComputeContext for RankComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.card, batch, rows)?;
        if batch.is_empty() {
            return Ok(());
        }
        let hidden = model.network.forward(batch, &mut self.encoder)?;
        let values = model.classifier.forward(&hidden, batch, &mut self.classifier)?;
        read_values(&values, |values| {
            let labels = model.card.dimension;
            for (row, values) in rows.iter_mut().zip(values.chunks_exact(labels)) {
                row.copy_from_slice(values);
            }
            Ok(())
        })?;
        Ok(())
    }
}
