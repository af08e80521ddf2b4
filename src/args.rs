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
  emberd embed --file lines.txt --format npy --output rows.npy")]
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
    /// Texts sent in one request.
    #[arg(long, default_value_t = 1024, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(emberd_protocol::MAX_TEXTS)))]
    pub(crate) batch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// One JSON object a line: index, text, embedding, and truncated where the end was cut off.
    Jsonl,
    /// One array of 32-bit floats in NumPy's format.
    Npy,
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
        /// For programs.
        #[arg(long)]
        json: bool,
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
