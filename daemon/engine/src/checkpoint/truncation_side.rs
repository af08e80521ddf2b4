//! Which end of a text that is too long is cut off.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::load_error::LoadError;

/// `truncation_side`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TruncationSide {
    /// The text loses its end.
    #[default]
    Right,
    /// The text loses its beginning.
    Left,
}

impl TruncationSide {
    /// The value of a configuration file; `None` if it has none. `file` is for messages.
    pub(crate) fn of_config(side: &Value, file: &Path) -> Result<Option<Self>, LoadError> {
        match side.as_str() {
            None => Ok(None),
            Some("right") => Ok(Some(Self::Right)),
            Some("left") => Ok(Some(Self::Left)),
            Some(other) => Err(LoadError::Unsupported {
                file: file.to_owned(),
                what: "the truncation_side",
                found: other.to_owned(),
                supported: "left, right",
            }),
        }
    }
}
