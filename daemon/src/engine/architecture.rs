//! The encoders that are understood, one a file: what their configurations say, what their tensors
//! are called, and which parts of a [`Network`] they are.
//!
//! An architecture computes nothing by itself. `docs/adding-a-model.md` shows how one is added.

mod bert;
mod distilbert;
mod mpnet;
mod reader;
mod roberta;
mod settings;

use std::fmt;
use std::path::Path;

use candle_core::Device;
use serde_json::Value;

use super::load_error::LoadError;
use super::network::{Network, Widths};
use super::weights::Weights;
use reader::Reader;
use settings::Settings;

/// A model's architecture with its settings, before any weights are read. What it prints for
/// debugging is part of the model's fingerprint.
pub(super) trait Architecture: fmt::Debug + Send + Sync {
    /// What must be known before the weights are read.
    fn facts(&self) -> Facts;

    /// Reads the network.
    ///
    /// # Errors
    /// When the weights are not those that the settings tell of.
    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError>;
}

/// What is known of a network from its settings alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// What it is called, such as `bert`.
    pub(super) name: &'static str,
    /// Rows of the token table.
    pub(super) vocabulary: usize,
    /// Tokens of a sequence at most.
    pub(super) positions: usize,
    /// Of its activations.
    pub(super) widths: Widths,
}

/// Understands a `config.json`; `file` is for messages.
///
/// # Errors
/// When it is none, or asks for what is not supported.
pub(super) fn read(config: &Value, file: &Path) -> Result<Box<dyn Architecture>, LoadError> {
    const SUPPORTED: &str = "bert, roberta, xlm-roberta, camembert, distilbert, mpnet, model2vec";
    let settings = Settings { file, json: config };
    let model_type = settings.text("model_type").unwrap_or("(none)");
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
        other => return Err(settings.unsupported("the architecture", other, SUPPORTED)),
    })
}

/// Reads the network of an architecture for rows of tokens alone: heads beside it are not read.
///
/// # Errors
/// When the weights are not those that the settings tell of.
pub(super) fn load(
    architecture: &dyn Architecture,
    weights: &Weights,
    device: &Device,
) -> Result<Network, LoadError> {
    let mut reader = Reader::new(weights, device);
    let network = architecture.network(&mut reader)?;
    reader.tell_unread();
    Ok(network)
}
