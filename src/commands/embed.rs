//! `emberd embed`: texts from arguments, a file or standard input; rows to a file or standard
//! output.

use super::texts::{self, next_batch, warn_truncated};
use super::{connect, npy};
use crate::args::{Embed, RowFormat};
use crate::exit::CommandError;
use emberd_client::{Client, Embeddings};
use emberd_daemon::settings::DEFAULT_EMBEDDING;
use emberd_protocol::ModelState;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Taken when the daemon has it and nothing else is asked for.
const USUAL_MODEL: &str = "embedding";

/// Taken otherwise: every daemon has it.
const BUILTIN_MODEL: &str = "builtin";

pub(super) fn run(args: &Embed) -> Result<(), CommandError> {
    let texts = texts::read(&args.texts, args.file.as_deref())?;
    let client = connect(&args.socket)?;
    let name = match &args.model {
        Some(id) => id.to_string(),
        None => usual_model(&client)?,
    };
    let model = client.embedding_model(&name)?;
    let place = args.output.as_deref();
    let failed = |source| CommandError::io(format!("cannot write {}", shown(place)))(source);
    let mut output = RowOutput::open(place).map_err(failed)?;
    let out = &mut output.writer;
    if args.format == RowFormat::Npy {
        out.write_all(&npy::header(texts.len(), model.dimension())).map_err(failed)?;
    }
    let progress = progress(texts.len(), args.batch as usize);
    let mut truncated = 0;
    let mut first = 0;
    while first < texts.len() {
        let batch = next_batch(&texts[first..], args.batch as usize);
        let rows = model.embed(batch)?;
        truncated += rows.truncated().len();
        match args.format {
            RowFormat::Npy => write_values(out, &rows),
            RowFormat::Jsonl => write_lines(out, first, batch, &rows),
        }
        .map_err(failed)?;
        progress.inc(batch.len() as u64);
        first += batch.len();
    }
    output.finish().map_err(failed)?;
    progress.finish_and_clear();
    warn_truncated(truncated, texts.len(), &name, model.info().max_tokens);
    Ok(())
}

/// Where the rows go. A file gets its name when it is whole, so that none ever looks done that
/// is not.
struct RowOutput {
    writer: Box<dyn Write>,
    /// What is written, and what it becomes.
    rename: Option<(PathBuf, PathBuf)>,
}

impl RowOutput {
    fn open(place: Option<&Path>) -> io::Result<Self> {
        let Some(place) = place else {
            let writer = Box::new(BufWriter::new(io::stdout().lock()));
            return Ok(Self { writer, rename: None });
        };
        // A pipe or a device is written to as it is.
        let is_special = std::fs::metadata(place).is_ok_and(|place| !place.is_file());
        let mut partial = place.as_os_str().to_owned();
        partial.push(".partial");
        let rename = (!is_special).then(|| (PathBuf::from(partial), place.to_owned()));
        let path = rename.as_ref().map_or(place, |(partial, _)| partial);
        Ok(Self { writer: Box::new(BufWriter::new(File::create(path)?)), rename })
    }

    fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        match self.rename.take() {
            Some((partial, place)) => std::fs::rename(partial, place),
            None => Ok(()),
        }
    }
}

impl Drop for RowOutput {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.rename {
            // It may never have come to be.
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// The default from the hub, where nobody has asked for it yet, is not fetched for a trial.
fn usual_model(client: &Client) -> Result<String, CommandError> {
    let models = client.available_models()?;
    let has_usual = models.iter().any(|model| {
        let is_meant = model.source != DEFAULT_EMBEDDING
            || matches!(model.state, ModelState::Ready | ModelState::Idle | ModelState::Loading);
        model.id.as_str() == USUAL_MODEL && is_meant
    });
    Ok(if has_usual { USUAL_MODEL } else { BUILTIN_MODEL }.to_owned())
}

/// A row of the output.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    text: &'a str,
    embedding: &'a [f32],
    /// Said only of texts that lost their end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

fn write_lines(
    out: &mut dyn Write,
    first: usize,
    texts: &[String],
    rows: &Embeddings,
) -> io::Result<()> {
    let truncated = rows.truncated();
    for (position, (text, row)) in texts.iter().zip(rows.rows()).enumerate() {
        let truncated = u32::try_from(position)
            .is_ok_and(|position| truncated.binary_search(&position).is_ok());
        let line = Line { index: first + position, text, embedding: row, truncated };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn write_values(out: &mut dyn Write, rows: &Embeddings) -> io::Result<()> {
    for row in rows.rows() {
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// A bar on a terminal, where there is more than one request to wait for.
fn progress(texts: usize, batch: usize) -> ProgressBar {
    if texts <= batch || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} texts, {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(texts as u64).with_style(style)
}

fn shown(place: Option<&Path>) -> String {
    place.map_or_else(|| "to standard output".into(), |path| path.display().to_string())
}
