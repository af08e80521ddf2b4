//! `emberd embed`: embeddings of texts, written to a file or standard output.

use super::out_file::OutFile;
use super::texts::{self, next_batch, warn_truncated};
use super::{connect, npy};
use crate::args::{Element, Embed, RowFormat};
use crate::exit::CommandError;
use emberd_client::{Client, ElementType, EmbedOptions, Embeddings, Prompt};
use emberd_daemon::settings::DEFAULT_EMBEDDING;
use emberd_protocol::ModelState;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// The default model, if the daemon has it.
const DEFAULT_MODEL: &str = "embedding";

/// The default model otherwise: every daemon has it.
const BUILTIN_MODEL: &str = "builtin";

pub(super) fn run(args: &Embed) -> Result<(), CommandError> {
    let texts = texts::read(&args.texts, args.file.as_deref())?;
    let client = connect(&args.socket)?;
    let name = match &args.model {
        Some(id) => id.to_string(),
        None => default_model(&client)?,
    };
    let model = client.embedding_model(&name)?;
    let path = args.output.as_deref();
    let failed = |source| CommandError::io(format!("cannot write {}", shown(path)))(source);
    let mut output = OutFile::open(path).map_err(failed)?;
    let out = &mut output.writer;
    let options = options(args);
    // The scale of these elements comes from all rows of a request.
    let is_scaled = matches!(options.element, ElementType::I8 | ElementType::U8);
    let most = if is_scaled { texts.len() } else { args.batch as usize };
    let columns = options.dimension.map_or(model.dimension(), |columns| columns as usize);
    if args.format == RowFormat::Npy {
        let (dtype, columns) = numpy(options.element, columns);
        out.write_all(&npy::header(dtype, texts.len(), columns)).map_err(failed)?;
    }
    let progress = progress(texts.len(), most);
    let mut truncated = 0;
    let mut first = 0;
    while first < texts.len() {
        let batch = if is_scaled { &texts[..] } else { next_batch(&texts[first..], most) };
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

/// The model to use if none is named. The default model of the hub counts only once it is loaded: a
/// first try should not download it.
fn default_model(client: &Client) -> Result<String, CommandError> {
    let models = client.available_models()?;
    let has_default = models.iter().any(|model| {
        let is_usable = model.source != DEFAULT_EMBEDDING
            || matches!(model.state, ModelState::Ready | ModelState::Idle | ModelState::Loading);
        model.id.as_str() == DEFAULT_MODEL && is_usable
    });
    Ok(if has_default { DEFAULT_MODEL } else { BUILTIN_MODEL }.to_owned())
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

/// NumPy's name of an element type, and the elements in a row of `columns` values.
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

/// A line of the output.
#[derive(Serialize)]
struct EmbedLine<'a> {
    index: usize,
    text: &'a str,
    embedding: Numbers<'a>,
    /// Written only for texts that were cut.
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
        let line = EmbedLine {
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

/// A progress bar on a terminal, if there is more than one request.
fn progress(texts: usize, batch: usize) -> ProgressBar {
    if texts <= batch || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} texts, {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(texts as u64).with_style(style)
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "to standard output".into(), |path| path.display().to_string())
}
