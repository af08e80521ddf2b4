//! The command line as types. No I/O.

use crate::exit;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use emberd_protocol::ModelId;
use std::path::{Path, PathBuf};

/// One warm copy of each model, shared by every process on the machine.
#[derive(Debug, Parser)]
#[command(name = "emberd", version, after_help = exit::HELP, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold models and answer other processes.
    Serve(Serve),
    /// Turn texts into rows of numbers.
    Embed(Embed),
    /// Make texts from texts.
    Generate(Generate),
    /// Tell what may stand at the masks of texts.
    FillMask(FillMask),
    /// Put documents into the order in which they go with a query.
    Rerank(Rerank),
    /// Show what the daemon holds and does.
    Status(StatusArgs),
    /// List the models that the daemon knows.
    Models(Reading),
    /// Bring a model into memory ahead of its use.
    Preload(OfModel),
    /// Take a model out of memory that nobody holds.
    Unload(OfModel),
    /// Take all models out of memory that nobody holds or uses.
    Cleanup(Reading),
    /// Take all rows out of the embedding cache.
    ClearCache(Reading),
    /// Let the daemon read its settings again.
    Reload(Reading),
    /// Tell what was decided about a model, and why.
    Why(OfModel),
    /// Tell what a load of a model would do now.
    Plan(OfModel),
    /// Show or check settings.
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SocketArg {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/emberd/emberd.sock if it answers, else
    /// /run/emberd/emberd.sock]
    #[arg(long, env = "EMBERD_SOCKET", value_name = "PATH",
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) socket: Option<PathBuf>,
}

impl SocketArg {
    /// The path that was given. A variable that is set to nothing gives none, as in the client.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.socket.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}

/// Runs in the foreground until SIGTERM or SIGINT, then lets running work end. Under systemd it
/// takes the socket that systemd opened and tells when it is ready.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  emberd serve                                    the models of your settings, or the default ones
  emberd serve --model minilm=./all-MiniLM-L6-v2  and one from a folder
  emberd serve --settings emberd.toml --detach    in the background; returns when ready")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// A settings file (TOML) [default: ~/.config/emberd/emberd.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// An embedding model in a folder, beside those of the settings. May be repeated.
    #[arg(long = "model", value_name = "ID=FOLDER", value_parser = model_folder)]
    pub(crate) models: Vec<(ModelId, PathBuf)>,
    /// Go to the background; returns once the daemon is ready, or tells why it is not.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Append the log to a file instead of standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or filters such as emberd_daemon=debug.
    #[arg(long, env = "EMBERD_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

/// Every argument is a text; without any, every line of the file or of standard input is one.
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
    /// The model [default: `embedding` where settings name one or it is loaded, else `builtin`]
    #[arg(long, short, value_name = "ID", value_parser = model_id)]
    pub(crate) model: Option<ModelId>,
    /// Texts.
    #[arg(conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How to write the rows.
    #[arg(long, value_enum, default_value_t = RowFormat::Jsonl)]
    pub(crate) format: RowFormat,
    /// Write to a file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// A text to put in front of each text, in place of the model's own prompt; empty for none.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    pub(crate) prompt: Option<String>,
    /// One of the model's prompts to put in front of each text.
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt_name: Option<String>,
    /// The first so many values of each row, at most as many as the model makes.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) dimension: Option<u32>,
    /// Whether rows get the length 1 [default: as the model does it]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) normalize: Option<bool>,
    /// What a value shall be. For int8 and uint8 all texts go in one request, since the numbers are
    /// spread over what its rows hold.
    #[arg(long, value_enum, default_value_t = Element::F32)]
    pub(crate) element: Element,
    /// Texts sent in one request.
    #[arg(long, default_value_t = 1024, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(emberd_protocol::MAX_TEXTS)))]
    pub(crate) batch: u32,
}

/// Every argument is a text; without any, every line of the file or of standard input is one. One
/// answer a line; on a terminal a single text is answered piece by piece.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  emberd generate \"number: four hundred and seven\"     the built-in model writes numbers
  emberd generate \"spell: 1999\" \"date: 3 March 2021\"   and dates, and the other way round
  emberd generate --stream --json \"spell: 407\"         each piece as it is made
  emberd generate --num-beams 4 --num-return-sequences 2 \"number: nine\"
  emberd generate --model t5_summarizer --max-new-tokens 60 --file articles.txt

What no option says is as the model's generation_config.json and the daemon's settings have it. Names
and meanings are those of transformers' GenerationConfig.")]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model, one of type text2text.
    #[arg(long, short, value_name = "ID", default_value = "builtin-t5", value_parser = model_id)]
    pub(crate) model: ModelId,
    /// Texts.
    #[arg(conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Write each answer piece by piece as it is made, one text after the other.
    #[arg(long)]
    pub(crate) stream: bool,
    /// A JSON object a line, for programs: every sequence with its tokens, score and end; with
    /// --stream the pieces before.
    #[arg(long)]
    pub(crate) json: bool,
    /// Texts sent in one request.
    #[arg(long, default_value_t = 128, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(emberd_protocol::MAX_TEXTS)))]
    pub(crate) batch: u32,
    #[command(flatten)]
    pub(crate) options: GenerateArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How texts are made")]
pub(crate) struct GenerateArgs {
    /// Tokens of an answer, at most.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_new_tokens: Option<u32>,
    /// Tokens of an answer, at least.
    #[arg(long, value_name = "COUNT")]
    pub(crate) min_new_tokens: Option<u32>,
    /// Beams that are followed side by side; 1 for none.
    #[arg(long, value_name = "COUNT")]
    pub(crate) num_beams: Option<u32>,
    /// Answers to each text: of the beams the best, else so many samples.
    #[arg(long, value_name = "COUNT")]
    pub(crate) num_return_sequences: Option<u32>,
    /// The exponent of the length by which a beam's score is divided.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) length_penalty: Option<f32>,
    /// When beam search ends.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) early_stopping: Option<EarlyStoppingArg>,
    /// Draw tokens rather than take the likeliest; --do-sample=false takes the likeliest.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    pub(crate) do_sample: Option<bool>,
    /// Above 1 evens the odds, below 1 sharpens them.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Draw from the so many likeliest tokens; 0 for all.
    #[arg(long, value_name = "COUNT")]
    pub(crate) top_k: Option<u32>,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// The same seed, the same text.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Above 1 makes tokens less likely that stand in the text already.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,
    /// No run of so many tokens comes twice; 0 for no such rule.
    #[arg(long, value_name = "COUNT")]
    pub(crate) no_repeat_ngram_size: Option<u32>,
    /// End an answer where this text begins. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EarlyStoppingArg {
    /// When no running beam is likely to become better than those that are complete.
    No,
    /// When there are as many complete beams as are followed.
    Yes,
    /// When no running beam can become better than those that are complete.
    Never,
}

/// Every argument is a text; without any, every line of the file or of standard input is one. A mask
/// is spelled as the model's tokenizer has it, such as `[MASK]` or `<mask>`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples (with `models.bert.type = \"text2text\"` and a BERT-like model in the settings):
  emberd fill-mask --model bert \"an ember [MASK] in the dark\"
  emberd fill-mask --model bert --top-k 3 --json --file lines.txt

The built-in models fill no masks.")]
pub(crate) struct FillMask {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model: a masked language model, of type text2text.
    #[arg(long, short, value_name = "ID", value_parser = model_id)]
    pub(crate) model: ModelId,
    /// Texts.
    #[arg(conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Candidates for each mask.
    #[arg(long, default_value_t = 5, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top_k: u32,
    /// A JSON object a line, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Every argument is a document; without any, every line of the file or of standard input is one. The
/// best stands first. Where the model has several scores for a pair there is no order: the documents
/// come as they were given, each with its scores.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples (with `models.ranker.type = \"rerank\"` and a cross-encoder in the settings):
  emberd rerank --model ranker --query \"what glows?\" \"an ember\" \"a stone\"
  emberd rerank --model ranker --query \"what glows?\" --top 10 --json --file documents.txt

The built-in models score no pairs.")]
pub(crate) struct Rerank {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// The model: one of type rerank, or an embedding model whose folder has such a head.
    #[arg(long, short, value_name = "ID", value_parser = model_id)]
    pub(crate) model: ModelId,
    /// What the documents are compared with.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) query: String,
    /// Documents.
    #[arg(conflicts_with = "file")]
    pub(crate) documents: Vec<String>,
    /// A file with one document a line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Show the best so many alone.
    #[arg(long, value_name = "COUNT")]
    pub(crate) top: Option<usize>,
    /// A JSON object a line, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// One JSON object a line: index, text, embedding, and truncated where the end was cut off.
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
    /// Bytes from -128 to 127, from the smallest value of each column to its largest.
    Int8,
    /// Bytes from 0 to 255, from the smallest value of each column to its largest.
    Uint8,
    /// A bit for each value, set where it is above 0, eight in a byte, and 128 taken from the byte.
    Binary,
    /// A bit for each value, set where it is above 0, eight in a byte.
    Ubinary,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Reading {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// For programs.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Show it again and again, until interrupted.
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", requires = "watch")]
    pub(crate) every: f64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OfModel {
    /// Its id.
    #[arg(value_parser = model_id)]
    pub(crate) id: ModelId,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every key, its value, and where it came from.
    Show {
        /// A settings file (TOML) [default: ~/.config/emberd/emberd.toml, if it is there]
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Say everything that is wrong with a settings file.
    Check {
        /// The file.
        file: PathBuf,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Ask the daemon how a model is configured.
    Model {
        /// Its id.
        #[arg(value_parser = model_id)]
        id: ModelId,
        #[command(flatten)]
        reading: Reading,
    },
}

/// An id, or the name of a built-in model for its id.
fn model_id(text: &str) -> Result<ModelId, String> {
    let id = emberd_daemon::settings::builtin_id(text).unwrap_or(text);
    ModelId::new(id).map_err(|error| error.to_string())
}

fn model_folder(text: &str) -> Result<(ModelId, PathBuf), String> {
    let (id, folder) = text.split_once('=').ok_or("expected ID=FOLDER, such as minilm=./model")?;
    let id = ModelId::new(id).map_err(|error| error.to_string())?;
    if folder.is_empty() {
        return Err("the folder is missing behind '='".into());
    }
    Ok((id, folder.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_built_in_model_may_be_called_by_its_name() {
        for (name, id) in [
            ("builtin:static-minilm", "builtin"),
            ("builtin:verbalizer-t5", "builtin-t5"),
            ("builtin-t5", "builtin-t5"),
            ("mine", "mine"),
        ] {
            assert_eq!(model_id(name).unwrap().as_str(), id);
        }
        assert!(model_id("builtin:other").is_err());
    }

    #[test]
    fn a_model_folder_needs_an_id_and_a_folder() {
        assert!(model_folder("minilm=/m").is_ok());
        for wrong in ["minilm", "=/m", "a b=/m", "minilm="] {
            assert!(model_folder(wrong).is_err(), "{wrong}");
        }
    }
}
