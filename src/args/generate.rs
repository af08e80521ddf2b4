//! The arguments of `emberd generate`.

use super::{SocketArg, model_id};
use clap::ValueEnum;
use emberd_protocol::ModelId;
use std::path::PathBuf;

/// Each argument is a text. Without arguments, each line of the file or of standard input is one.
/// Prints one answer a line; on a terminal, the answer to a single text appears as it is generated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  emberd generate \"number: four hundred and seven\"     the built-in model converts numbers
  emberd generate \"spell: 1999\" \"date: 3 March 2021\"   and dates, and spells digits out
  emberd generate --stream --json \"spell: 407\"         each piece as it is generated
  emberd generate --num-beams 4 --num-return-sequences 2 \"number: nine\"
  emberd generate --model t5_summarizer --max-new-tokens 60 --file articles.txt

Options that you leave out come from the model's generation_config.json and the daemon's settings.
Names and meanings are those of transformers' GenerationConfig.")]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model, one of type text2text.
    #[arg(long, short, value_name = "ID", default_value = "builtin-t5", value_parser = model_id)]
    pub(crate) model: ModelId,
    /// Input texts.
    #[arg(conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print each answer piece by piece as it is generated, one text after the other.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Print one JSON object a line, for programs: every sequence with its tokens, score and finish
    /// reason; with --stream, the pieces first.
    #[arg(long)]
    pub(crate) json: bool,
    /// Texts in one request.
    #[arg(long, default_value_t = 128, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(emberd_protocol::MAX_TEXTS)))]
    pub(crate) batch: u32,
    #[command(flatten)]
    pub(crate) options: GenerateArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerateArgs {
    /// The most tokens of an answer.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_new_tokens: Option<u32>,
    /// The fewest tokens of an answer.
    #[arg(long, value_name = "COUNT")]
    pub(crate) min_new_tokens: Option<u32>,
    /// Beams of beam search; 1 turns it off.
    #[arg(long, value_name = "COUNT")]
    pub(crate) num_beams: Option<u32>,
    /// Answers for each text: the best beams, or independent samples.
    #[arg(long, value_name = "COUNT")]
    pub(crate) num_return_sequences: Option<u32>,
    /// Divide a beam's score by its length to the power of this.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) length_penalty: Option<f32>,
    /// When beam search ends.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) early_stopping: Option<EarlyStoppingArg>,
    /// Sample tokens instead of taking the most likely one; --do-sample=false does not sample.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    pub(crate) do_sample: Option<bool>,
    /// Above 1 flattens the distribution, below 1 sharpens it.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Sample from the COUNT most likely tokens; 0 for all.
    #[arg(long, value_name = "COUNT")]
    pub(crate) top_k: Option<u32>,
    /// Sample from the most likely tokens whose probabilities add up to this.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// The seed of sampling: the same seed gives the same text.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Above 1 makes tokens that the text already has less likely.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,
    /// Let no sequence of COUNT tokens occur twice; 0 allows it.
    #[arg(long, value_name = "COUNT")]
    pub(crate) no_repeat_ngram_size: Option<u32>,
    /// End an answer where this text begins. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EarlyStoppingArg {
    /// When no running beam is likely to beat the complete ones.
    No,
    /// When as many beams are complete as the search keeps.
    Yes,
    /// When no running beam can beat the complete ones.
    Never,
}
