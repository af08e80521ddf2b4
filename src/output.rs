//! The only writer to standard output.

use crate::exit::CommandError;
use serde::Serialize;
use std::io::{self, Write};

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failed())
}

/// Writes bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failed())
}

/// Writes a value as JSON, for programs.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failed()(error.into()))?;
    line(&text)
}

/// Writes a value as one line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).map_err(|error| failed()(error.into()))?;
    line(&text)
}

/// Writes rows of cells under a header, in columns.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), CommandError> {
    bytes(table_text(header, rows).as_bytes())
}

/// Rows of cells under a header, in columns.
pub(crate) fn table_text(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([name.len()]).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let header = header.iter().map(|name| (*name).to_owned()).collect();
    for row in [&header].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}

/// A time for people.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

fn failed() -> impl FnOnce(io::Error) -> CommandError {
    CommandError::io("cannot write to standard output")
}
