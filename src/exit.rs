//! Errors of commands, and their exit codes.

use crate::listen::ListenError;
use emberd_daemon::segment::SegmentError;
use emberd_daemon::settings::SettingsError;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// For `--help` and the manual page.
pub(crate) const HELP: &str = "\
Exit codes:
  0  success
  1  the daemon reported an error, or a file could not be read or written
  2  the command line is wrong
  3  no daemon could be reached
  4  the settings are wrong
  5  another daemon already serves this socket";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Client(#[from] emberd_client::Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{0} is not UTF-8: set it to a value that is, or unset it")]
    Variable(String),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("{0}")]
    Usage(String),
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// The detached daemon ended before it was ready; the message says why.
    #[error("{message}")]
    Detached { message: String, code: u8 },
}

impl CommandError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Client(emberd_client::Error::Connect(_)) => 3,
            Self::Client(_) | Self::Segment(_) | Self::Io { .. } => 1,
            Self::Usage(_) => 2,
            Self::Settings(_) | Self::Variable(_) => 4,
            Self::Listen(ListenError::InUse { .. }) => 5,
            Self::Listen(_) => 1,
            Self::Detached { code, .. } => *code,
        }
    }

    /// Whether the reader of the output closed it (`emberd embed ... | head`), which is no failure.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Prints the error to standard error and returns its exit code.
pub(crate) fn report(error: &CommandError) -> ExitCode {
    if error.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    // Standard error may be closed: nothing can be done about it.
    let _ = writeln!(io::stderr(), "emberd: {}", chain(error));
    ExitCode::from(error.code())
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
