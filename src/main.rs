//! `emberd`, the program: `emberd serve` runs the daemon, the other commands talk to one.
//!
//! It owns the process: arguments, environment, signals, the terminal and the exit code. The daemon
//! itself is `emberd-daemon`. The other commands use the public API of `emberd-client`, as any
//! program would.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod detach;
mod exit;
mod format;
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
