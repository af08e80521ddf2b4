//! What the files of a model say about it.

use crate::batching::row_shape::RowShape;
use crate::ground::device::Device;
use crate::models::load_failure::LoadFailure;
use crate::settings::ModelSettings;
use emberd_engine::{ModelParts, ModelSpec};
use emberd_protocol::{Method, ModelId, ModelInfo, ModelKind};

/// A model's description for clients, without what its settings add.
pub(super) fn model_info(
    id: &ModelId,
    parts: &ModelParts,
    device: Device,
) -> Result<ModelInfo, LoadFailure> {
    let embed = parts.embed.as_ref().map(|model| model.spec());
    let rank = parts.rank.as_ref().map(|head| head.model.spec());
    let generate = parts.generate.as_ref().map(|model| model.spec());
    let fill_mask = parts.fill_mask.as_ref().map(|model| model.spec());
    let methods = [
        (Method::Embed, embed, ModelKind::Embedding),
        (Method::Generate, generate, ModelKind::Text2Text),
        (Method::FillMask, fill_mask, ModelKind::Text2Text),
        (Method::Rerank, rank, ModelKind::Rerank),
    ];
    let offered =
        || methods.iter().filter_map(|(method, spec, kind)| Some((method, (*spec)?, kind)));
    // The first method decides the kind.
    let (_, spec, kind) = offered().next().ok_or(LoadFailure::NoMethods)?;
    let labels = parts.rank.as_ref().map(|head| head.labels.clone()).unwrap_or_default();
    Ok(ModelInfo {
        id: id.clone(),
        kind: kind.clone(),
        methods: offered().map(|(method, ..)| *method).collect(),
        architecture: spec.architecture.clone(),
        device: device.to_string(),
        dimension: count(spec.dimension),
        max_tokens: count(spec.max_tokens),
        normalized: spec.normalized,
        max_output_tokens: 0,
        prompts: spec.prompts.keys().cloned().collect(),
        default_prompt: spec.default_prompt.clone(),
        similarity: spec.similarity.clone(),
        labels,
        weight_bytes: offered().map(|(_, spec, _)| spec.weight_bytes).sum(),
    })
}

/// The shape of the rows that a request without options gets.
pub(super) fn row_shape(
    spec: &ModelSpec,
    settings: &ModelSettings,
) -> Result<RowShape, LoadFailure> {
    let available = spec.dimension;
    let used = match settings.dimension {
        Some(wanted) if !(1..=available).contains(&wanted) => {
            return Err(LoadFailure::Dimension { wanted, available });
        }
        Some(wanted) => wanted,
        None => spec.truncate_dim.filter(|&used| used > 0).unwrap_or(available).min(available),
    };
    // Rows that the settings truncate are normalised again; those that the folder truncates stay as
    // they are, as with sentence-transformers.
    let renormalize = used < available && settings.dimension.is_some();
    Ok(RowShape { model: available, used, renormalize })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
