//! Writing to standard output, which no other file does.

use crate::exit::CommandError;
use crate::format;
use serde::Serialize;
use std::io::{self, Write};

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failed())
}

/// Writes bytes.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failed())
}

/// Writes a value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failed()(error.into()))?;
    line(&text)
}

/// Writes a value as one line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).map_err(|error| failed()(error.into()))?;
    line(&text)
}

/// Writes a table.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), CommandError> {
    bytes(format::table(header, rows).as_bytes())
}

fn failed() -> impl FnOnce(io::Error) -> CommandError {
    CommandError::io("cannot write to standard output")
}
