//! What a request's options come to for the model that they are for.

use crate::batching::row_shape::RowShape;
use crate::models::parts::Embedding;
use emberd_protocol::{ElementType, EmbedOptions, ModelId, ModelInfo, Prompt, QuantizationRanges};

/// What is to be done for a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Goes in front of each text; `None`: whatever the model puts there by itself.
    pub(crate) prompt: Option<String>,
    /// What of the model's rows is used.
    pub(crate) shape: RowShape,
    /// What a value shall be.
    pub(crate) element: ElementType,
    /// What the numbers of a quantised row stand for; `None`: to be found in the rows.
    pub(crate) ranges: Option<QuantizationRanges>,
}

/// Why a request's options cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RowError {
    /// No such prompt.
    #[error("model \"{model}\" has no prompt \"{name}\": it has {known}")]
    NoSuchPrompt { model: ModelId, name: String, known: String },
    /// Fewer values than one, or more than there are.
    #[error("rows of {wanted} values cannot be had of model \"{model}\": give 1 to {available}")]
    Dimension { model: ModelId, wanted: u32, available: usize },
    /// Bits that do not fill their bytes.
    #[error(
        "rows of {0} bits do not fill whole bytes: give a dimension that is a multiple of 8 for \
         binary and ubinary"
    )]
    Bits(usize),
    /// Ranges where nothing is quantised.
    #[error("ranges mean something for int8 and uint8 only")]
    Ranges,
    /// Ranges of other rows.
    #[error("the ranges have {starts} starts and {steps} steps: rows have {columns} columns")]
    RangeColumns { starts: usize, steps: usize, columns: usize },
    /// Ranges that are no numbers.
    #[error("the ranges have values that are not finite")]
    RangeValues,
}

impl Wanted {
    /// Understands the options of a request for a model.
    ///
    /// # Errors
    /// When they cannot be followed.
    pub(crate) fn of(
        options: EmbedOptions,
        info: &ModelInfo,
        model: &Embedding,
    ) -> Result<Self, RowError> {
        let EmbedOptions { prompt, normalize, dimension, element, ranges } = options;
        let shape = shape(normalize, dimension, info, model)?;
        check_elements(element, ranges.as_ref(), shape.used)?;
        let prompt = match prompt {
            Prompt::Default => None,
            Prompt::Text(text) => Some(text),
            Prompt::Named(name) => Some(named(name, info, model)?),
        };
        Ok(Self { prompt, shape, element, ranges })
    }

    /// The text that stands in front of each text in the end; for the cache, where a row is found
    /// again whichever way its prompt was named.
    pub(crate) fn prompt_text<'a>(&'a self, info: &ModelInfo, model: &'a Embedding) -> &'a str {
        let usual = || info.default_prompt.as_ref().and_then(|name| model.prompts.get(name));
        self.prompt.as_ref().or_else(usual).map_or("", String::as_str)
    }
}

fn shape(
    normalize: Option<bool>,
    dimension: Option<u32>,
    info: &ModelInfo,
    model: &Embedding,
) -> Result<RowShape, RowError> {
    let usual = model.shape;
    let available = usual.model;
    let used = match dimension {
        None => usual.used,
        Some(wanted) => usize::try_from(wanted)
            .ok()
            .filter(|wanted| (1..=available).contains(wanted))
            .ok_or_else(|| RowError::Dimension { model: info.id.clone(), wanted, available })?,
    };
    let is_cut = used < available;
    let is_normalized = model.normalizes;
    let renormalize = match normalize {
        // As the settings have it.
        None if dimension.is_none() => usual.renormalize,
        None => is_normalized && is_cut,
        // Rows that have length 1 as they are made keep their bits.
        Some(true) => is_cut || !is_normalized,
        // What the model itself does stays done.
        Some(false) => false,
    };
    Ok(RowShape { model: available, used, renormalize })
}

fn check_elements(
    element: ElementType,
    ranges: Option<&QuantizationRanges>,
    columns: usize,
) -> Result<(), RowError> {
    let is_quantized = matches!(element, ElementType::I8 | ElementType::U8);
    if matches!(element, ElementType::Binary | ElementType::Ubinary) && !columns.is_multiple_of(8) {
        return Err(RowError::Bits(columns));
    }
    let Some(QuantizationRanges { starts, steps }) = ranges else { return Ok(()) };
    if !is_quantized {
        return Err(RowError::Ranges);
    }
    if starts.len() != columns || steps.len() != columns {
        let (starts, steps) = (starts.len(), steps.len());
        return Err(RowError::RangeColumns { starts, steps, columns });
    }
    if starts.iter().chain(steps).all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(RowError::RangeValues)
}

fn named(name: String, info: &ModelInfo, model: &Embedding) -> Result<String, RowError> {
    if let Some(text) = model.prompts.get(&name) {
        return Ok(text.clone());
    }
    let known: Vec<String> = model.prompts.keys().map(|name| format!("\"{name}\"")).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(RowError::NoSuchPrompt { model: info.id.clone(), name, known })
}
