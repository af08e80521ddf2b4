//! The arguments of `emberd embed`.

use super::{SocketArg, model_id};
use clap::ValueEnum;
use emberd_protocol::ModelId;
use std::path::PathBuf;

/// Each argument is a text. Without arguments, each line of the file or of standard input is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  emberd embed \"a text\" \"another\"
  ls | emberd embed --model minilm
  emberd embed --file lines.txt --format npy --output rows.npy
  emberd embed --prompt-name query --dimension 256 --element ubinary \"a question\"")]
pub(crate) struct Embed {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model [default: `embedding` if the settings name one or it is loaded, else `builtin`]
    #[arg(long, short, value_name = "ID", value_parser = model_id)]
    pub(crate) model: Option<ModelId>,
    /// Texts to embed.
    #[arg(conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The output format.
    #[arg(long, value_enum, default_value_t = RowFormat::Jsonl)]
    pub(crate) format: RowFormat,
    /// Write to a file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Prefix each text with this prompt instead of the model's default; empty for none.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    pub(crate) prompt: Option<String>,
    /// Prefix each text with one of the model's own prompts.
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt_name: Option<String>,
    /// Keep the leading COUNT values of each row (Matryoshka); at most the model's dimension.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) dimension: Option<u32>,
    /// Whether rows are scaled to unit length [default: as the model does]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) normalize: Option<bool>,
    /// The type of a value. int8 and uint8 send all texts in one request, because the scale comes
    /// from the rows of the request.
    #[arg(long, value_enum, default_value_t = Element::F32)]
    pub(crate) element: Element,
    /// Texts in one request.
    #[arg(long, default_value_t = 1024, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(emberd_protocol::MAX_TEXTS)))]
    pub(crate) batch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// One JSON object a line: index, text, embedding, and `truncated` if the text was cut.
    Jsonl,
    /// One array in NumPy's format.
    Npy,
}

/// The small ones are those of sentence-transformers' `quantize_embeddings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Integers from -128 to 127, from the smallest value of each column to its largest.
    Int8,
    /// Integers from 0 to 255, from the smallest value of each column to its largest.
    Uint8,
    /// One bit for each value, set if it is above 0; eight in a byte, less 128.
    Binary,
    /// One bit for each value, set if it is above 0; eight in a byte.
    Ubinary,
}
