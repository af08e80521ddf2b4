//! A model's files, found and measured.

use crate::settings::ModelSettings;
use emberd_engine::Need;
use std::path::PathBuf;
use std::sync::Arc;

/// A model's files, and the memory that the model takes.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(super) files: Files,
    /// The source of the files, for people.
    pub(crate) source: String,
    /// The settings that they were found by. The load uses the same, even if the model is
    /// configured otherwise by then.
    pub(crate) settings: Arc<ModelSettings>,
    /// The memory that the model takes.
    pub(crate) need: Need,
}

/// The location of a model's files.
#[derive(Debug, Clone)]
pub(super) enum Files {
    /// The built-in static embedding table.
    StaticTable,
    /// The built-in small T5.
    Verbalizer,
    /// A folder.
    Folder(PathBuf),
    /// Known to the custom loader only.
    Custom,
}
