//! The command line as types. No I/O.

use crate::exit;
use clap::{Parser, Subcommand, ValueEnum};
use emberd_protocol::ModelId;
use std::path::PathBuf;

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
    #[arg(long, env = "EMBERD_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
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
    #[arg(long, short, value_name = "ID")]
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
    },
    /// Ask the daemon how a model is configured.
    Model {
        /// Its id.
        id: ModelId,
        #[command(flatten)]
        reading: Reading,
    },
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
    fn a_model_folder_needs_an_id_and_a_folder() {
        assert!(model_folder("minilm=/m").is_ok());
        for wrong in ["minilm", "=/m", "a b=/m", "minilm="] {
            assert!(model_folder(wrong).is_err(), "{wrong}");
        }
    }
}
