//! Why a model could not be loaded.

use std::io;
use std::path::PathBuf;

/// Why a model could not be loaded. Each variant names the file at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file that could not be read.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder holds no weights in a known format.
    #[error("no weights in {}: neither model.safetensors nor pytorch_model.bin, nor an index of several files; is this the folder of a model?", folder.display())]
    NoWeights {
        /// The folder that was searched.
        folder: PathBuf,
    },
    /// A file is not valid JSON, or a value in it has the wrong type.
    #[error("cannot understand {}", file.display())]
    Json {
        /// The JSON file.
        file: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A file asks for something that this engine does not support.
    #[error("{}: {what} {found:?} is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The file that asks for it.
        file: PathBuf,
        /// The kind of thing, such as `architecture`.
        what: &'static str,
        /// The value in the file.
        found: String,
        /// The supported values.
        supported: &'static str,
    },
    /// The default prompt is not one of the prompts.
    #[error("{}: the default prompt {name:?} is not among the prompts: {known}", file.display())]
    NoSuchPrompt {
        /// The file that names it.
        file: PathBuf,
        /// Name of the default prompt.
        name: String,
        /// The names of the prompts.
        known: String,
    },
    /// A setting is out of range or contradicts another one.
    #[error("{}: {setting} is {found}, but must be {wanted}", file.display())]
    Setting {
        /// The file with the setting.
        file: PathBuf,
        /// The key of the setting.
        setting: &'static str,
        /// The value in the file.
        found: usize,
        /// The condition that it must meet.
        wanted: String,
    },
    /// The header of a weight file is damaged.
    #[error("the header of {} is damaged; fetch the file again", file.display())]
    Header {
        /// The weight file.
        file: PathBuf,
        /// What is wrong with it.
        source: HeaderFault,
    },
    /// A file was not written by torch, or is damaged.
    #[error("cannot use {}; fetch the file again, or save the model as safetensors", file.display())]
    Torch {
        /// The weight file.
        file: PathBuf,
        /// What is wrong with it.
        source: TorchFault,
    },
    /// A weight file ends before its tensors do.
    #[error("{} has {found} bytes, but its header declares {expected}; fetch the file again", file.display())]
    Truncated {
        /// The weight file.
        file: PathBuf,
        /// Bytes that the header declares.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A weight file goes on after its last tensor.
    #[error("{} has {found} bytes, but its header declares {expected}; fetch the file again", file.display())]
    Excess {
        /// The weight file.
        file: PathBuf,
        /// Bytes that the header declares.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A weight file lacks a tensor that the architecture needs.
    #[error("{} has no tensor {tensor:?}", file.display())]
    MissingTensor {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
    },
    /// A weight file has a tensor for which the configured network has no use, such as one of a further
    /// layer.
    #[error("{} has a tensor {tensor:?} that its configuration does not account for; one of the two belongs to another model", file.display())]
    ExtraTensor {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
    },
    /// A tensor's shape differs from the one that the configuration implies.
    #[error("{}: tensor {tensor:?} has shape {found:?}, but the configuration implies {wanted:?}", file.display())]
    TensorShape {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        wanted: Vec<usize>,
    },
    /// A tensor has elements of an unsupported type.
    #[error("{}: tensor {tensor:?} holds {found}; supported: {supported}", file.display())]
    ElementType {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
        /// Its element type, as the file spells it.
        found: String,
        /// The supported element types.
        supported: &'static str,
    },
    /// A tensor of row numbers names a row that the table does not have.
    #[error("{}: tensor {tensor:?} names row {row}, but the table has {rows} rows; fetch the file again", file.display())]
    NoSuchRow {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
        /// The row number in the tensor.
        row: i64,
        /// Rows of the table.
        rows: usize,
    },
    /// A module of the model is code that does not come with sentence-transformers.
    #[error("{}: the module {class:?} does not come with sentence_transformers; code from a model's folder is never run", file.display())]
    ForeignCode {
        /// The file that names it.
        file: PathBuf,
        /// The class of the module.
        class: String,
    },
    /// An adapter changes the weights of the folder.
    #[error("{} describes an adapter (LoRA), which this engine does not apply; merge it into the weights with peft: model.merge_and_unload().save_pretrained(FOLDER)", file.display())]
    Adapter {
        /// The file that describes it.
        file: PathBuf,
    },
    /// A tensor has infinite values or NaN.
    #[error("{}: tensor {tensor:?} has values that are not finite; fetch the file again", file.display())]
    NotFinite {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
    },
    /// The folder's tokenizer is in an unsupported format.
    #[error("no tokenizer.json in {}, only {found}; convert it with transformers: AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)", folder.display())]
    NoTokenizer {
        /// The folder that was searched.
        folder: PathBuf,
        /// The file that was found instead.
        found: &'static str,
    },
    /// The tokenizer's file is damaged or in an unknown format.
    #[error("cannot understand the tokenizer in {}", file.display())]
    Tokenizer {
        /// The tokenizer's file.
        file: PathBuf,
        /// The error of the tokenizer library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer has a token without a row in the weights.
    #[error("{} has a token {token}, but the weights have only {rows} rows; it belongs to another model", file.display())]
    TokenizerTooLarge {
        /// The tokenizer's file.
        file: PathBuf,
        /// The largest token id.
        token: u32,
        /// Rows of the embedding table.
        rows: usize,
    },
    /// The tensor library refused the weights.
    #[error("cannot load the weights of {} into memory", file.display())]
    Tensor {
        /// The file that they come from.
        file: PathBuf,
        /// The library's error.
        source: candle_core::Error,
    },
}

/// What is wrong with the header of a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The header's length does not fit the file.
    #[error("it claims {claimed} bytes, but at most {available} are possible")]
    Length {
        /// The length that it claims, in bytes.
        claimed: u64,
        /// What is left of the file, or the format's limit.
        available: u64,
    },
    /// It is not the expected JSON.
    #[error("it is not a list of tensors")]
    Json(#[source] serde_json::Error),
    /// A tensor's span and its shape do not agree.
    #[error("tensor {tensor:?} spans {start}..{end}, which does not fit its shape {shape:?}")]
    Span {
        /// Name of the tensor in the file.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// The shape in the file.
        shape: Vec<usize>,
    },
    /// Tensors overlap, or leave a gap.
    #[error("tensor {tensor:?} starts at {start}, but the tensor before it ends at {end_before}")]
    Gap {
        /// Name of the tensor in the file.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// Where the one before it ends.
        end_before: u64,
    },
}

/// What is wrong with a file that is expected to come from torch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFault {
    /// It starts like no file that torch writes.
    #[error("torch did not write it")]
    Foreign,
    /// The archive around the tensors is damaged, or not of the kind that torch writes.
    #[error("{0}")]
    Archive(&'static str),
    /// The list of tensors is damaged, or does more than list tensors.
    #[error("its list of tensors cannot be read at byte {at}: {what}")]
    Pickle {
        /// The byte at which reading stopped.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// It holds something other than named tensors.
    #[error("it holds no named tensors")]
    NoStateDict,
    /// A tensor cannot be read.
    #[error("tensor {tensor:?} {what}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        what: &'static str,
    },
}
