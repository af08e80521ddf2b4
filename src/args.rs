//! The command line as types. No I/O.

mod embed;
mod fill_mask;
mod generate;
mod rerank;

pub(crate) use embed::{Element, Embed, RowFormat};
pub(crate) use fill_mask::FillMask;
pub(crate) use generate::{EarlyStoppingArg, Generate, GenerateArgs};
pub(crate) use rerank::Rerank;

use crate::exit;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
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
    /// Start the daemon: load models and serve other processes.
    Serve(Serve),
    /// Compute embeddings of texts.
    Embed(Embed),
    /// Generate text from text.
    Generate(Generate),
    /// Predict the masked tokens of texts.
    FillMask(FillMask),
    /// Sort documents by how well they match a query.
    Rerank(Rerank),
    /// Show the daemon's models, leases and connections.
    Status(StatusArgs),
    /// List the models that the daemon knows.
    Models(Query),
    /// Load a model into memory before it is needed.
    Preload(ModelQuery),
    /// Unload a model that nobody holds.
    Unload(ModelQuery),
    /// Unload all models that nobody holds or uses.
    Cleanup(Query),
    /// Empty the embedding cache.
    ClearCache(Query),
    /// Make the daemon read its settings again.
    Reload(Query),
    /// Show past decisions about a model, with their reasons.
    Why(ModelQuery),
    /// Show what loading a model would do now.
    Plan(ModelQuery),
    /// Show or check settings.
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// Runs in the foreground until SIGTERM or SIGINT, then finishes the running work. Under systemd it
/// takes over the socket that systemd opened and reports when it is ready.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  emberd serve                                    the models of your settings, or the default ones
  emberd serve --model minilm=./all-MiniLM-L6-v2  the same and one from a folder
  emberd serve --settings emberd.toml --detach    in the background; returns when ready")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// A settings file (TOML) [default: ~/.config/emberd/emberd.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Add an embedding model from a folder to those of the settings. May be repeated.
    #[arg(long = "model", value_name = "ID=FOLDER", value_parser = model_folder)]
    pub(crate) models: Vec<(ModelId, PathBuf)>,
    /// Run in the background. Returns once the daemon is ready, or says why it failed to start.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Append the log to a file instead of standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or filters such as emberd_daemon=debug.
    #[arg(long, env = "EMBERD_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SocketArg {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/emberd/emberd.sock if a daemon answers there,
    /// else /run/emberd/emberd.sock]
    #[arg(long, env = "EMBERD_SOCKET", value_name = "PATH",
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) socket: Option<PathBuf>,
}

impl SocketArg {
    /// The given path. An empty variable counts as none, as in the client.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.socket.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}

/// The arguments of every command that sends the daemon a request.
#[derive(Debug, clap::Args)]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) socket: SocketArg,
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of a request about one model.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelQuery {
    /// The model's id.
    #[arg(value_parser = model_id)]
    pub(crate) id: ModelId,
    #[command(flatten)]
    pub(crate) query: Query,
}

/// Lists the models within 100 columns. With --wide it adds the counters of each model, the devices,
/// leases, connections and latencies.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) query: Query,
    /// Show everything, without a limit on the width.
    #[arg(long)]
    pub(crate) wide: bool,
    /// Refresh until interrupted, cut to the size of the terminal.
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Seconds between refreshes.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", requires = "watch")]
    pub(crate) every: f64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every key with its value and origin.
    Show {
        /// A settings file (TOML) [default: ~/.config/emberd/emberd.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Report every error in a settings file.
    Check {
        /// The file.
        file: PathBuf,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Print the settings of a model as the daemon uses them.
    Model {
        /// The model's id.
        #[arg(value_parser = model_id)]
        id: ModelId,
        #[command(flatten)]
        query: Query,
    },
}

/// Parses a model id. The name of a built-in model stands for its id.
fn model_id(text: &str) -> Result<ModelId, String> {
    let id = emberd_daemon::settings::builtin_id(text).unwrap_or(text);
    ModelId::new(id).map_err(|error| error.to_string())
}

fn model_folder(text: &str) -> Result<(ModelId, PathBuf), String> {
    let (id, folder) = text.split_once('=').ok_or("expected ID=FOLDER, such as minilm=./model")?;
    let id = ModelId::new(id).map_err(|error| error.to_string())?;
    if folder.is_empty() {
        return Err("the folder after '=' is missing".into());
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
