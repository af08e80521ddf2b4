//! `emberd embed`: texts from arguments, a file or standard input; rows to a file or standard
//! output.

use super::texts::{self, next_batch, warn_truncated};
use super::{connect, npy};
use crate::args::{Element, Embed, RowFormat};
use crate::exit::CommandError;
use emberd_client::{Client, ElementType, EmbedOptions, Embeddings, Prompt};
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
    let options = options(args);
    // Numbers that are spread over the rows of their request mean something beside these alone.
    let is_spread = matches!(options.element, ElementType::I8 | ElementType::U8);
    let most = if is_spread { texts.len() } else { args.batch as usize };
    let columns = options.dimension.map_or(model.dimension(), |columns| columns as usize);
    if args.format == RowFormat::Npy {
        let (dtype, columns) = numpy(options.element, columns);
        out.write_all(&npy::header(dtype, texts.len(), columns)).map_err(failed)?;
    }
    let progress = progress(texts.len(), most);
    let mut truncated = 0;
    let mut first = 0;
    while first < texts.len() {
        let batch = if is_spread { &texts[..] } else { next_batch(&texts[first..], most) };
        let rows = model.embed_with(batch, &options)?;
        truncated += rows.truncated().len();
        match args.format {
            RowFormat::Npy => out.write_all(rows.as_bytes()),
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

fn options(args: &Embed) -> EmbedOptions {
    let prompt = match (&args.prompt, &args.prompt_name) {
        (Some(text), _) => Prompt::Text(text.clone()),
        (None, Some(name)) => Prompt::Named(name.clone()),
        (None, None) => Prompt::Default,
    };
    let element = match args.element {
        Element::F32 => ElementType::F32,
        Element::F16 => ElementType::F16,
        Element::Int8 => ElementType::I8,
        Element::Uint8 => ElementType::U8,
        Element::Binary => ElementType::Binary,
        Element::Ubinary => ElementType::Ubinary,
    };
    let (normalize, dimension) = (args.normalize, args.dimension);
    EmbedOptions { prompt, normalize, dimension, element, ranges: None }
}

/// What NumPy calls an element, and how many of them a row of so many values has.
fn numpy(element: ElementType, columns: usize) -> (&'static str, usize) {
    match element {
        ElementType::F32 => ("<f4", columns),
        ElementType::F16 => ("<f2", columns),
        ElementType::I8 => ("|i1", columns),
        ElementType::U8 => ("|u1", columns),
        ElementType::Binary => ("|i1", columns.div_ceil(8)),
        ElementType::Ubinary => ("|u1", columns.div_ceil(8)),
    }
}

/// A row of the output.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    text: &'a str,
    embedding: Numbers<'a>,
    /// Said only of texts that lost their end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// The elements of a row, as numbers.
#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Floats(&'a [f32]),
    Unsigned(&'a [u8]),
    Signed(Vec<i8>),
}

impl<'a> Numbers<'a> {
    fn of(rows: &'a Embeddings, index: usize) -> Self {
        let bytes = rows.row_bytes(index).unwrap_or_default();
        match rows.element() {
            ElementType::F32 | ElementType::F16 => {
                Self::Floats(rows.get(index).unwrap_or_default())
            }
            ElementType::U8 | ElementType::Ubinary => Self::Unsigned(bytes),
            ElementType::I8 | ElementType::Binary => {
                Self::Signed(bytes.iter().map(|byte| byte.cast_signed()).collect())
            }
        }
    }
}

fn write_lines(
    out: &mut dyn Write,
    first: usize,
    texts: &[String],
    rows: &Embeddings,
) -> io::Result<()> {
    let truncated = rows.truncated();
    for (position, text) in texts.iter().enumerate() {
        let truncated = u32::try_from(position)
            .is_ok_and(|position| truncated.binary_search(&position).is_ok());
        let line = Line {
            index: first + position,
            text,
            embedding: Numbers::of(rows, position),
            truncated,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
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
