//! The arguments of `emberd fill-mask`.

use super::{SocketArg, model_id};
use emberd_protocol::ModelId;
use std::path::PathBuf;

/// Each argument is a text. Without arguments, each line of the file or of standard input is one. Write
/// a mask as the model's tokenizer spells it, such as `[MASK]` or `<mask>`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples (with `models.bert.type = \"text2text\"` and a BERT-like model in the settings):
  emberd fill-mask --model bert \"an ember [MASK] in the dark\"
  emberd fill-mask --model bert --top-k 3 --json --file lines.txt

The built-in models cannot fill masks.")]
pub(crate) struct FillMask {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model: a masked language model, of type text2text.
    #[arg(long, short, value_name = "ID", value_parser = model_id)]
    pub(crate) model: ModelId,
    /// Texts with masks.
    #[arg(conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Candidates for each mask.
    #[arg(long, default_value_t = 5, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top_k: u32,
    /// Print one JSON object a line, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}
