//! `--detach`: running in the background without systemd, and reporting to the caller whether the
//! daemon became ready.
//!
//! No other file uses daemonize (its maintained fork, `daemonix`, under the same name). It forks, so
//! it runs before any thread exists.

use crate::exit::CommandError;
use daemonize::{Daemonize, Outcome};
use nix::unistd::close;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::RawFd;

/// In the background process: the connection to the process that the user started, which waits to
/// hear whether the daemon became ready.
#[derive(Debug)]
pub(crate) struct Caller {
    pipe: Option<PipeWriter>,
}

/// Which of the two processes this is, after the fork.
#[derive(Debug)]
pub(crate) enum Side {
    /// The background process.
    Background(Caller),
    /// The process that the user started, once the daemon is ready. The message is for the user.
    Foreground(String),
}

/// Forks. The foreground process waits until the daemon is ready or has failed.
pub(crate) fn detach() -> Result<Side, CommandError> {
    close_inherited();
    let (reader, writer) = io::pipe().map_err(CommandError::io("cannot make a pipe"))?;
    match Daemonize::new().umask(0o077).execute() {
        Outcome::Parent(Ok(_)) => {
            drop(writer);
            wait(reader).map(Side::Foreground)
        }
        Outcome::Child(Ok(_)) => {
            drop(reader);
            Ok(Side::Background(Caller { pipe: Some(writer) }))
        }
        Outcome::Parent(Err(error)) | Outcome::Child(Err(error)) => Err(CommandError::Detached {
            message: format!("cannot run in the background: {error}"),
            code: 1,
        }),
    }
}

impl Caller {
    /// For a daemon in the foreground: nobody waits for a report.
    pub(crate) fn none() -> Self {
        Self { pipe: None }
    }

    /// Reports that the daemon accepts connections.
    pub(crate) fn ready(&mut self, message: &str) {
        self.report(0, message);
    }

    /// Reports why the daemon failed to start.
    pub(crate) fn failed(&mut self, error: &CommandError) {
        self.report(error.code(), &crate::exit::chain(error));
    }

    fn report(&mut self, code: u8, message: &str) {
        if let Some(mut pipe) = self.pipe.take() {
            // The caller may have been killed in the meantime; the daemon keeps running.
            let _ = pipe.write_all(&[&[code], message.as_bytes()].concat());
        }
    }
}

/// Closes the descriptors inherited from the caller, except the three standard streams: a daemon that
/// lives for weeks must not keep a script's lock or the end of its pipe. The program itself has opened
/// nothing yet; descriptors that systemd passed are kept.
fn close_inherited() {
    let passed = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<RawFd>().ok());
    let first = 3 + passed.unwrap_or(0).max(0);
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Collected first: reading the folder needs a descriptor of its own.
    for number in numbers.collect::<Vec<RawFd>>() {
        if number >= first {
            // The folder's own descriptor is closed already.
            let _ = close(number);
        }
    }
}

fn wait(mut reader: PipeReader) -> Result<String, CommandError> {
    let mut report = Vec::new();
    reader.read_to_end(&mut report).map_err(CommandError::io("cannot read the daemon's report"))?;
    let message = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match report.split_first() {
        Some((0, text)) => Ok(message(text)),
        Some((code, text)) => Err(CommandError::Detached { message: message(text), code: *code }),
        None => Err(CommandError::Detached {
            message: "the daemon ended before it was ready: run it without --detach to see why"
                .into(),
            code: 1,
        }),
    }
}
