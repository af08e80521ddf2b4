//! The commands, one function each.

mod admin;
mod config;
mod decisions;
mod embed;
mod fill_mask;
mod generate;
mod models;
mod npy;
mod out_file;
mod rerank;
mod status;
mod texts;

use crate::args::{Args, Command, SocketArg};
use crate::exit::CommandError;
use crate::{output, serve};
use clap::CommandFactory;
use emberd_client::Client;

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), CommandError> {
    match args.command {
        Command::Serve(args) => serve::run(args),
        Command::Embed(args) => embed::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::FillMask(args) => fill_mask::run(&args),
        Command::Rerank(args) => rerank::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Preload(args) => admin::preload(&args),
        Command::Unload(args) => admin::unload(&args),
        Command::Cleanup(args) => admin::cleanup(&args),
        Command::ClearCache(args) => admin::clear_cache(&args),
        Command::Reload(args) => admin::reload(&args),
        Command::Why(args) => decisions::why(&args),
        Command::Plan(args) => decisions::plan(&args),
        Command::Config(args) => config::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "emberd", &mut script);
            output::bytes(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            let failed = CommandError::io("cannot make the manual page");
            clap_mangen::Man::new(Args::command()).render(&mut page).map_err(failed)?;
            output::bytes(&page)
        }
    }
}

/// Connects to the daemon of the command line or the environment.
fn connect(socket: &SocketArg) -> Result<Client, CommandError> {
    let builder = || Client::builder().name("emberd");
    Ok(match socket.path() {
        Some(path) => builder().connect_to(path),
        None => builder().connect(),
    }?)
}
