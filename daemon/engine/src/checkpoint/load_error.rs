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
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder holds no weights that can be read.
    #[error("no weights in {}: neither model.safetensors nor pytorch_model.bin, nor an index of several; is this the folder of a model?", folder.display())]
    NoWeights {
        /// The folder that was searched.
        folder: PathBuf,
    },
    /// A file is not the JSON that it should be.
    #[error("cannot understand {}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A file asks for something that this engine does not do.
    #[error("{}: {what} {found:?} is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The file that asks for it.
        file: PathBuf,
        /// The kind of thing, such as `architecture`.
        what: &'static str,
        /// What is asked for.
        found: String,
        /// What could be asked for.
        supported: &'static str,
    },
    /// The default prompt is none of the prompts.
    #[error("{}: the default prompt {name:?} is not among the prompts: {known}", file.display())]
    NoSuchPrompt {
        /// The file that names it.
        file: PathBuf,
        /// The name.
        name: String,
        /// The names of the prompts.
        known: String,
    },
    /// A setting of the model contradicts another one.
    #[error("{}: {setting} is {found}, but must be {wanted}", file.display())]
    Setting {
        /// The file with the setting.
        file: PathBuf,
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: usize,
        /// What would be right.
        wanted: String,
    },
    /// The header of a weight file is damaged.
    #[error("the header of {} is damaged; fetch the file again", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: HeaderFault,
    },
    /// A file is not what torch writes, or is damaged.
    #[error("cannot use {}; fetch the file again, or save the model as safetensors", file.display())]
    Torch {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: TorchFault,
    },
    /// A weight file ends before its tensors do.
    #[error("{} has {found} bytes where its header tells of {expected}; fetch the file again", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// Bytes that the header tells of.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A weight file goes on after its last tensor.
    #[error("{} has {found} bytes where its header tells of {expected}; fetch the file again", file.display())]
    Excess {
        /// The file.
        file: PathBuf,
        /// Bytes that the header tells of.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A weight file lacks a tensor that the architecture needs.
    #[error("{} has no tensor {tensor:?}", file.display())]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight file has a tensor of the architecture that its configuration does not tell of.
    #[error("{} has a tensor {tensor:?} that its configuration leaves no place for; it belongs to another model", file.display())]
    ExtraTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor {tensor:?} has shape {found:?}, its configuration says {wanted:?}", file.display())]
    TensorShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration leads to.
        wanted: Vec<usize>,
    },
    /// A tensor has elements that cannot be used here.
    #[error("{}: tensor {tensor:?} holds {found}; supported: {supported}", file.display())]
    ElementType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type, as the file spells it.
        found: String,
        /// What could be read.
        supported: &'static str,
    },
    /// A tensor of row numbers has one that is none.
    #[error("{}: tensor {tensor:?} names a row {row}, the table has {rows}; fetch the file again", file.display())]
    NoSuchRow {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The number.
        row: i64,
        /// Rows of the table.
        rows: usize,
    },
    /// A module of the model is code that does not come with sentence-transformers.
    #[error("{}: the module {class:?} is not one of sentence_transformers; code in a model's folder is not run", file.display())]
    ForeignCode {
        /// The file that names it.
        file: PathBuf,
        /// Its class.
        class: String,
    },
    /// An adapter changes the weights of the folder.
    #[error("{} tells of an adapter (LoRA) over the weights, which is not applied; merge it into them: model.merge_and_unload().save_pretrained(FOLDER) of peft", file.display())]
    Adapter {
        /// The file that tells of it.
        file: PathBuf,
    },
    /// A tensor has values that are no numbers.
    #[error("{}: tensor {tensor:?} has values that are not finite; fetch the file again", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The folder has its tokenizer in another form than the one that is read.
    #[error("no tokenizer.json in {}, only {found}; have transformers write one: AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)", folder.display())]
    NoTokenizer {
        /// The folder that was searched.
        folder: PathBuf,
        /// What was found in its place.
        found: &'static str,
    },
    /// The tokenizer's file is damaged or of an unknown kind.
    #[error("cannot understand the tokenizer in {}", file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// What the tokenizer library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer knows a token for which the weights have no row.
    #[error("{} has a token {token}, the weights have rows for {rows}; it belongs to another model", file.display())]
    TokenizerTooLarge {
        /// The tokenizer's file.
        file: PathBuf,
        /// The largest number of a token.
        token: u32,
        /// Rows of the embedding table.
        rows: usize,
    },
    /// The tensor library refused the weights.
    #[error("cannot place the weights of {}", file.display())]
    Tensor {
        /// The file that they come from.
        file: PathBuf,
        /// What it said.
        source: candle_core::Error,
    },
}

/// What is wrong with the header of a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The header's own length cannot be true.
    #[error("it claims {claimed} bytes, the file has {available} for it")]
    Length {
        /// What it claims.
        claimed: u64,
        /// What the file has, or the most that is accepted.
        available: u64,
    },
    /// It is not the JSON that it should be.
    #[error("it is no list of tensors")]
    Json(#[source] serde_json::Error),
    /// A tensor's place and its shape do not agree.
    #[error("tensor {tensor:?} lies at {start}..{end}, which does not fit its shape {shape:?}")]
    Span {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Tensors overlap, or bytes belong to none.
    #[error("tensor {tensor:?} starts at {start}, the one before it ends at {end_before}")]
    Gap {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// Where the one before it ends.
        end_before: u64,
    },
}

/// What is wrong with a file that torch should have written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFault {
    /// It begins like no file of torch.
    #[error("it is no file that torch writes")]
    Foreign,
    /// The archive around the tensors is damaged, or of a kind that torch does not write.
    #[error("{0}")]
    Archive(&'static str),
    /// The list of tensors is damaged, or wants to do more than to list tensors.
    #[error("its list of tensors cannot be read at byte {at}: {what}")]
    Pickle {
        /// How far it was read.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// It holds something else than tensors by name.
    #[error("it holds no tensors by name")]
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
