//! The arguments of `emberd rerank`.

use super::{SocketArg, model_id};
use emberd_protocol::ModelId;
use std::path::PathBuf;

/// Each argument is a document. Without arguments, each line of the file or of standard input is one.
/// The best match comes first. A model with several scores for a pair gives no order: the documents
/// stay in the given order, each with its scores.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples (with `models.ranker.type = \"rerank\"` and a cross-encoder in the settings):
  emberd rerank --model ranker --query \"what glows?\" \"an ember\" \"a stone\"
  emberd rerank --model ranker --query \"what glows?\" --top 10 --json --file documents.txt

The built-in models cannot rerank.")]
pub(crate) struct Rerank {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model: one of type rerank, or an embedding model with a classification head.
    #[arg(long, short, value_name = "ID", value_parser = model_id)]
    pub(crate) model: ModelId,
    /// The query.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) query: String,
    /// Documents to sort.
    #[arg(conflicts_with = "file")]
    pub(crate) documents: Vec<String>,
    /// A file with one document a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Show only the COUNT best documents.
    #[arg(long, value_name = "COUNT")]
    pub(crate) top: Option<usize>,
    /// Print one JSON object a line, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}
