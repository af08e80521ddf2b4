//! Going to the background on systems without systemd, and telling the caller how it went.
//!
//! The one place that knows daemonize (its maintained fork, `daemonix`, under the same name). It
//! forks, so it runs before any thread exists.

use crate::exit::CommandError;
use daemonize::{Daemonize, Outcome};
use nix::unistd::close;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::RawFd;

/// In the background: tells the process that the user started how it went.
#[derive(Debug)]
pub(crate) struct Caller {
    pipe: Option<PipeWriter>,
}

/// Which of the two processes this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The one in the background.
    Background(Caller),
    /// The one that the user started, after the other was ready. Its message is for the user.
    Foreground(String),
}

/// Forks. The first process waits until the one in the background is ready or has failed.
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
            message: format!("cannot go to the background: {error}"),
            code: 1,
        }),
    }
}

/// Closes what whoever started this had open beside the three standard streams: a daemon that lives
/// for weeks must not keep a script's lock or the end of its pipe. Nothing of our own is open yet,
/// but for what systemd has passed.
fn close_inherited() {
    let passed = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<RawFd>().ok());
    let first = 3 + passed.unwrap_or(0).max(0);
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Read to the end before the first is closed: reading has a descriptor of its own.
    for number in numbers.collect::<Vec<RawFd>>() {
        if number >= first {
            // That of the reading is closed already.
            let _ = close(number);
        }
    }
}

fn wait(mut reader: PipeReader) -> Result<String, CommandError> {
    let mut told = Vec::new();
    reader.read_to_end(&mut told).map_err(CommandError::io("cannot hear of the daemon"))?;
    let message = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match told.split_first() {
        Some((0, text)) => Ok(message(text)),
        Some((code, text)) => Err(CommandError::Detached { message: message(text), code: *code }),
        None => Err(CommandError::Detached {
            message: "the daemon ended before it was ready: run it without --detach to see why"
                .into(),
            code: 1,
        }),
    }
}

impl Caller {
    /// In the foreground there is nobody to tell.
    pub(crate) fn none() -> Self {
        Self { pipe: None }
    }

    /// The daemon takes connections.
    pub(crate) fn ready(&mut self, message: &str) {
        self.tell(0, message);
    }

    /// The daemon will not run.
    pub(crate) fn failed(&mut self, error: &CommandError) {
        self.tell(error.code(), &crate::exit::chain(error));
    }

    fn tell(&mut self, code: u8, message: &str) {
        if let Some(mut pipe) = self.pipe.take() {
            // The caller may have been killed meanwhile: the daemon goes on.
            let _ = pipe.write_all(&[&[code], message.as_bytes()].concat());
        }
    }
}
