//! What a request's options mean for its model.

use crate::batching::row_shape::RowShape;
use crate::models::parts::Embedding;
use emberd_protocol::{ElementType, EmbedOptions, ModelId, ModelInfo, Prompt, QuantizationRanges};

/// How the rows of a request are made.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::request) struct EmbedPlan {
    /// Precedes each text; `None`: the model's default prompt.
    pub(super) prompt: Option<String>,
    /// Which values of the model's rows are used, and whether they are normalised.
    pub(super) shape: RowShape,
    /// The type of a value.
    pub(super) element: ElementType,
    /// What the numbers of a quantised row stand for; `None`: found in the rows themselves.
    pub(super) ranges: Option<QuantizationRanges>,
}

/// Why a request's options cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EmbedOptionsError {
    /// No such prompt.
    #[error("model \"{model}\" has no prompt \"{name}\": it has {known}")]
    NoSuchPrompt { model: ModelId, name: String, known: String },
    /// No values, or more than the model makes.
    #[error("model \"{model}\" has no rows of {wanted} values: give 1 to {available}")]
    Dimension { model: ModelId, wanted: u32, available: usize },
    /// Bits that do not fill their bytes.
    #[error(
        "rows of {0} bits do not fill whole bytes: give a dimension that is a multiple of 8 for \
         binary and ubinary"
    )]
    Bits(usize),
    /// Ranges for rows that are not quantised.
    #[error("ranges apply only to int8 and uint8")]
    Ranges,
    /// Ranges for rows of another dimension.
    #[error("the ranges have {starts} starts and {steps} steps: rows have {columns} columns")]
    RangeColumns { starts: usize, steps: usize, columns: usize },
    /// Ranges that are not finite.
    #[error("the ranges have values that are not finite")]
    RangeValues,
}

impl EmbedPlan {
    /// Resolves a request's options for a model.
    ///
    /// # Errors
    /// When they cannot be met.
    pub(super) fn new(
        options: EmbedOptions,
        info: &ModelInfo,
        model: &Embedding,
    ) -> Result<Self, EmbedOptionsError> {
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

    /// The text that precedes each text, the model's default included. The cache goes by it, so that
    /// a row is found again whichever way its prompt was named.
    pub(super) fn prompt_text<'a>(&'a self, info: &ModelInfo, model: &'a Embedding) -> &'a str {
        let usual = || info.default_prompt.as_ref().and_then(|name| model.prompts.get(name));
        self.prompt.as_ref().or_else(usual).map_or("", String::as_str)
    }
}

fn shape(
    normalize: Option<bool>,
    dimension: Option<u32>,
    info: &ModelInfo,
    model: &Embedding,
) -> Result<RowShape, EmbedOptionsError> {
    let usual = model.shape;
    let available = usual.model;
    let used = match dimension {
        None => usual.used,
        Some(wanted) => usize::try_from(wanted)
            .ok()
            .filter(|wanted| (1..=available).contains(wanted))
            .ok_or_else(|| EmbedOptionsError::Dimension {
                model: info.id.clone(),
                wanted,
                available,
            })?,
    };
    let is_cut = used < available;
    let is_normalized = model.normalizes;
    let renormalize = match normalize {
        // As the settings say.
        None if dimension.is_none() => usual.renormalize,
        None => is_normalized && is_cut,
        // Rows that the model normalises keep their bits.
        Some(true) => is_cut || !is_normalized,
        // What the model itself normalises stays so.
        Some(false) => false,
    };
    Ok(RowShape { model: available, used, renormalize })
}

fn check_elements(
    element: ElementType,
    ranges: Option<&QuantizationRanges>,
    columns: usize,
) -> Result<(), EmbedOptionsError> {
    let is_quantized = matches!(element, ElementType::I8 | ElementType::U8);
    if matches!(element, ElementType::Binary | ElementType::Ubinary) && !columns.is_multiple_of(8) {
        return Err(EmbedOptionsError::Bits(columns));
    }
    let Some(QuantizationRanges { starts, steps }) = ranges else { return Ok(()) };
    if !is_quantized {
        return Err(EmbedOptionsError::Ranges);
    }
    if starts.len() != columns || steps.len() != columns {
        let (starts, steps) = (starts.len(), steps.len());
        return Err(EmbedOptionsError::RangeColumns { starts, steps, columns });
    }
    if starts.iter().chain(steps).all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(EmbedOptionsError::RangeValues)
}

fn named(name: String, info: &ModelInfo, model: &Embedding) -> Result<String, EmbedOptionsError> {
    if let Some(text) = model.prompts.get(&name) {
        return Ok(text.clone());
    }
    let known: Vec<String> = model.prompts.keys().map(|name| format!("\"{name}\"")).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(EmbedOptionsError::NoSuchPrompt { model: info.id.clone(), name, known })
}
