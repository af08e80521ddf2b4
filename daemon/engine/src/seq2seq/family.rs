//! The kinds of encoder-decoder that can be loaded.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;

/// A kind of encoder-decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    T5,
    Bart(BartKind),
}

/// The two kinds of network with BART's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BartKind {
    /// Learned positions, and a norm behind the embedding.
    Bart,
    /// Sinusoidal positions, and no norm; each stack may have a vocabulary of its own.
    Marian,
}

impl Family {
    /// By the folder's `config.json`.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("config.json");
        let json: Value = read_json(&file)?;
        Self::of_config(RawConfig { file: &file, json: &json })
    }

    pub(super) fn of_config(config: RawConfig<'_>) -> Result<Self, LoadError> {
        match config.text("model_type")? {
            Some("t5" | "mt5") => Ok(Self::T5),
            Some("bart") => Ok(Self::Bart(BartKind::Bart)),
            Some("marian") => Ok(Self::Bart(BartKind::Marian)),
            other => {
                let (what, supported) = ("the architecture", "t5, mt5, bart, marian");
                Err(config.unsupported(what, other.unwrap_or("(none)"), supported))
            }
        }
    }
}
