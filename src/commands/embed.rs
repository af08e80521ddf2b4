//! `emberd embed`: texts from arguments, a file or standard input; rows to a file or standard
//! output.

use super::out_file::OutFile;
use super::{connect, npy};
use crate::args::{Embed, RowFormat};
use crate::exit::CommandError;
use emberd_client::{Client, Embeddings};
use emberd_daemon::settings::DEFAULT_EMBEDDING;
use emberd_protocol::ModelState;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// Taken when the daemon has it and nothing else is asked for.
const USUAL_MODEL: &str = "embedding";

/// Taken otherwise: every daemon has it.
const BUILTIN_MODEL: &str = "builtin";

/// Text in one request, at most, unless a single one is longer: far below a frame's limit.
const BATCH_BYTES: usize = 8 << 20;

pub(super) fn run(args: &Embed) -> Result<(), CommandError> {
    let texts = texts(args)?;
    let client = connect(&args.socket)?;
    let name = match &args.model {
        Some(id) => id.to_string(),
        None => usual_model(&client)?,
    };
    let model = client.embedding_model(&name)?;
    let place = args.output.as_deref();
    let failed = |source| CommandError::io(format!("cannot write {}", shown(place)))(source);
    let mut output = OutFile::open(place).map_err(failed)?;
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
    if truncated > 0 {
        // Standard error may be closed; the rows are written all the same.
        let _ = writeln!(
            io::stderr(),
            "emberd: {truncated} of {} texts were longer than the {} tokens that \"{name}\" reads; \
             their ends were cut off",
            texts.len(),
            model.info().max_tokens
        );
    }
    Ok(())
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

fn texts(args: &Embed) -> Result<Vec<String>, CommandError> {
    if !args.texts.is_empty() {
        return Ok(args.texts.clone());
    }
    let from_stdin = args.file.as_deref().is_none_or(|file| file == Path::new("-"));
    let mut bytes = Vec::new();
    if from_stdin {
        if args.file.is_none() && io::stdin().is_terminal() {
            let message =
                "no texts: give some as arguments, --file FILE, or lines on standard input";
            return Err(CommandError::Usage(message.into()));
        }
        io::stdin()
            .read_to_end(&mut bytes)
            .map_err(CommandError::io("cannot read standard input"))?;
    } else if let Some(file) = &args.file {
        bytes = std::fs::read(file)
            .map_err(CommandError::io(format!("cannot read {}", file.display())))?;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        let name = match &args.file {
            Some(file) if !from_stdin => file.display().to_string(),
            _ => "standard input".to_owned(),
        };
        let source = io::Error::new(io::ErrorKind::InvalidData, "make it UTF-8 first");
        CommandError::Io { what: format!("line {line} of {name} is not UTF-8"), source }
    })?;
    // Some editors begin a file with a mark that is no part of its text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().map(str::to_owned).collect())
}

/// As many texts as one request should have, and at least one.
fn next_batch(texts: &[String], most: usize) -> &[String] {
    let mut len_bytes = 0;
    let fits = |text: &&String| {
        len_bytes += text.len();
        len_bytes <= BATCH_BYTES
    };
    let count = texts.iter().take(most).take_while(fits).count();
    &texts[..count.max(1)]
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
