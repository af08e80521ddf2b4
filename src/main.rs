//! `emberd`, the program: serves models to this machine's processes, and asks a daemon that does.
//!
//! It owns the process: arguments, environment, signals, the terminal and the exit code. What the
//! daemon does is in `emberd-daemon`; the other commands use `emberd-client` as a stranger would.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod detach;
mod exit;
mod listen;
mod output;
mod serve;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
