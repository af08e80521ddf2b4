//! The supported encoders, one a file: the settings in their `config.json`, the names of their tensors,
//! and the parts of their [`Network`].
//!
//! An architecture computes nothing itself. `docs/adding-a-model.md` shows how to add one. Architectures
//! of one shape share a file: [`post_norm`] for BERT and its successors, [`pre_norm`] for decoders that
//! are used as encoders.

mod albert;
mod bert;
mod distilbert;
mod electra;
mod gemma3;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod post_norm;
mod pre_norm;
mod qwen3;
mod roberta;
mod t5_encoder;

use std::path::Path;

use candle_core::Device;
use serde_json::Value;

use crate::api::weight_type::WeightType;
use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::checkpoint::weights::Weights;
use crate::encoder::architecture::Architecture;
use crate::encoder::network::Network;

/// Interprets a `config.json`; `file` is its path, for messages.
///
/// # Errors
/// If it is not the configuration of an encoder, or requires something unsupported.
pub(crate) fn read(config: &Value, file: &Path) -> Result<Box<dyn Architecture>, LoadError> {
    const SUPPORTED: &str = "bert, roberta, xlm-roberta, camembert, distilbert, electra, albert, \
        mpnet, modernbert, nomic_bert, qwen3, gemma3_text, t5, mt5, model2vec";
    let config = RawConfig { file, json: config };
    let model_type = config.text("model_type")?.unwrap_or("(none)");
    if config.json["is_decoder"] == true {
        let supported = "of an encoder";
        return Err(config.unsupported("the attention", "of a decoder (is_decoder)", supported));
    }
    Ok(match model_type {
        "bert" => Box::new(bert::Bert::read(config)?),
        "roberta" => Box::new(roberta::Roberta::read("roberta", config)?),
        "xlm-roberta" => Box::new(roberta::Roberta::read("xlm-roberta", config)?),
        "camembert" => Box::new(roberta::Roberta::read("camembert", config)?),
        "distilbert" => Box::new(distilbert::DistilBert::read(config)?),
        "electra" => Box::new(electra::Electra::read(config)?),
        "albert" => Box::new(albert::Albert::read(config)?),
        "mpnet" => Box::new(mpnet::MpNet::read(config)?),
        "modernbert" => Box::new(modernbert::ModernBert::read(config)?),
        "nomic_bert" => Box::new(nomic_bert::NomicBert::read(config)?),
        "qwen3" => Box::new(qwen3::Qwen3::read(config)?),
        "gemma3_text" => Box::new(gemma3::Gemma3::read(config)?),
        "t5" => Box::new(t5_encoder::T5Encoder::read("t5", config)?),
        "mt5" => Box::new(t5_encoder::T5Encoder::read("mt5", config)?),
        other => return Err(config.unsupported("the architecture", other, SUPPORTED)),
    })
}

/// Interprets the `config.json` of a folder.
///
/// # Errors
/// As [`read`], and when the file cannot be read.
pub(crate) fn read_folder(folder: &Path) -> Result<Box<dyn Architecture>, LoadError> {
    let file = folder.join("config.json");
    read(&read_json(&file)?, &file)
}

/// Reads the network of an architecture, without the heads that may follow it in the file.
///
/// # Errors
/// If the weights do not match the configuration.
pub(crate) fn load(
    architecture: &dyn Architecture,
    weights: &Weights,
    device: &Device,
    held_as: WeightType,
) -> Result<Network, LoadError> {
    let mut reader = TensorReader::new(weights, device).holding(held_as);
    let network = architecture.network(&mut reader)?;
    reader.log_unread();
    Ok(network)
}
