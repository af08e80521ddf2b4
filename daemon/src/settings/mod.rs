//! The settings of the daemon: a TOML file of flat keys, checked before anything runs.
//!
//! Dotted keys (`models.minilm.type = "embedding"`) and tables (`[models.minilm]`) mean the same.
//! Nothing is ignored: all unknown keys and impossible values are reported at once, each with its
//! file, its line and the remedy.

mod builtin;
mod checks;
mod environment;
mod lines;
mod model;
mod model_type;
mod origin;
mod problem;
mod read;
pub(crate) mod reload;
mod rule;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod toml_layer;
mod values;

pub use crate::ground::device::DeviceChoice;
pub use crate::settings::builtin::{
    BUILTIN_ID, BUILTIN_STATIC, BUILTIN_TEXT_ID, BUILTIN_VERBALIZER, DEFAULT_EMBEDDING, builtin_id,
    is_builtin_id,
};
pub use crate::settings::lines::KeyLine;
pub use crate::settings::model::{Change, ModelSettings};
pub use crate::settings::model_type::ModelType;
pub use crate::settings::origin::Origin;
pub use crate::settings::problem::{Problem, SettingsError};
pub use crate::settings::values::{
    AccessGroup, LimitSettings, SegmentSettings, Settings, SharingSettings,
};
pub use emberd_engine::WeightType;
