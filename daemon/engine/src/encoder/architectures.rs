//! The encoders that are understood, one a file: what their configurations say, what their tensors
//! are called, and which parts of a [`Network`] they are.
//!
//! An architecture computes nothing by itself. `docs/adding-a-model.md` shows how one is added.

pub(crate) mod bert;
pub(crate) mod distilbert;
pub(crate) mod gemma3;
pub(crate) mod modernbert;
pub(crate) mod mpnet;
pub(crate) mod nomic_bert;
pub(crate) mod post_norm;
pub(crate) mod qwen3;
pub(crate) mod roberta;
pub(crate) mod t5_encoder;

use std::fmt;
use std::path::Path;

use candle_core::Device;
use serde_json::Value;

use crate::api::embedding::WeightType;
use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
pub(crate) use crate::checkpoint::raw_config::Settings;
pub(crate) use crate::checkpoint::reader::{Bias, Reader};
use crate::checkpoint::weights::Weights;
use crate::encoder::network::{Network, Widths};
use crate::layers::activation::Activation;

/// A model's architecture with its settings, before any weights are read. What it prints for
/// debugging is part of the model's fingerprint.
pub(crate) trait Architecture: fmt::Debug + Send + Sync {
    /// What must be known before the weights are read.
    fn facts(&self) -> Facts;

    /// Reads the network.
    ///
    /// # Errors
    /// When the weights are not those that the settings tell of.
    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError>;

    /// What the file calls a head that classifies sequences, if the architecture has one.
    fn classifier(&self) -> Option<ClassifierNames> {
        None
    }

    /// What the file calls a head that fills masks, if the architecture has one.
    fn mask_head(&self) -> Option<MaskNames> {
        None
    }
}

/// A head that classifies sequences: a layer with an activation, perhaps a norm, and the layer
/// whose outputs are the labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassifierNames {
    pub(crate) pool: Pool,
    pub(crate) dense: &'static str,
    pub(crate) dense_bias: Bias,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<HeadNormNames>,
    pub(crate) output: &'static str,
}

/// The norm of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadNormNames {
    pub(crate) name: &'static str,
    pub(crate) bias: Bias,
    pub(crate) epsilon: f32,
}

/// Which token rows a classification is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    /// The first one.
    First,
    /// The mean of all.
    Mean,
}

/// A head that fills masks: a layer with an activation, a norm, and a score for each token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskNames {
    pub(crate) dense: &'static str,
    pub(crate) dense_bias: Bias,
    pub(crate) activation: Activation,
    pub(crate) norm: HeadNormNames,
    /// The matrix of the scores, in files where it is not the table of token rows.
    pub(crate) decoder: &'static str,
    /// What is added to the scores.
    pub(crate) bias: Option<&'static str>,
}

/// What is known of a network from its settings alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What it is called, such as `bert`.
    pub(crate) name: &'static str,
    /// Rows of the token table.
    pub(crate) vocabulary: usize,
    /// Tokens of a sequence, where the folder says nothing else.
    pub(crate) positions: usize,
    /// Whether there is none for more of them: they are rows of a table.
    pub(crate) positions_end: bool,
    /// Of its activations.
    pub(crate) widths: Widths,
}

/// Understands a `config.json`; `file` is for messages.
///
/// # Errors
/// When it is none, or asks for what is not supported.
pub(crate) fn read(config: &Value, file: &Path) -> Result<Box<dyn Architecture>, LoadError> {
    const SUPPORTED: &str = "bert, roberta, xlm-roberta, camembert, distilbert, mpnet, modernbert, \
        nomic_bert, qwen3, gemma3_text, t5, mt5, model2vec";
    let settings = Settings { file, json: config };
    let model_type = settings.text("model_type")?.unwrap_or("(none)");
    if config["is_decoder"] == true {
        let supported = "of an encoder";
        return Err(settings.unsupported("the attention", "of a decoder (is_decoder)", supported));
    }
    Ok(match model_type {
        "bert" => Box::new(bert::Bert::read(settings)?),
        "roberta" => Box::new(roberta::Roberta::read("roberta", settings)?),
        "xlm-roberta" => Box::new(roberta::Roberta::read("xlm-roberta", settings)?),
        "camembert" => Box::new(roberta::Roberta::read("camembert", settings)?),
        "distilbert" => Box::new(distilbert::DistilBert::read(settings)?),
        "mpnet" => Box::new(mpnet::MpNet::read(settings)?),
        "modernbert" => Box::new(modernbert::ModernBert::read(settings)?),
        "nomic_bert" => Box::new(nomic_bert::NomicBert::read(settings)?),
        "qwen3" => Box::new(qwen3::Qwen3::read(settings)?),
        "gemma3_text" => Box::new(gemma3::Gemma3::read(settings)?),
        "t5" => Box::new(t5_encoder::T5Encoder::read("t5", settings)?),
        "mt5" => Box::new(t5_encoder::T5Encoder::read("mt5", settings)?),
        other => return Err(settings.unsupported("the architecture", other, SUPPORTED)),
    })
}

/// Understands the `config.json` of a folder.
///
/// # Errors
/// As [`read`], and when the file cannot be read.
pub(crate) fn read_folder(folder: &Path) -> Result<Box<dyn Architecture>, LoadError> {
    let file = folder.join("config.json");
    read(&read_json(&file)?, &file)
}

/// Reads the network of an architecture for rows of tokens alone: heads beside it are not read.
///
/// # Errors
/// When the weights are not those that the settings tell of.
pub(crate) fn load(
    architecture: &dyn Architecture,
    weights: &Weights,
    device: &Device,
    held_as: WeightType,
) -> Result<Network, LoadError> {
    let mut reader = Reader::new(weights, device).holding(held_as);
    let network = architecture.network(&mut reader)?;
    reader.tell_unread();
    Ok(network)
}
