//! Identifiers in messages.

use crate::bounded;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest model id.
pub const MAX_MODEL_ID_BYTES: usize = 128;

/// The id under which a model is configured, such as `embedding`: letters, digits, `.`, `_`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ModelId(String);

impl ModelId {
    /// An id, checked.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_MODEL_ID_BYTES`], or has other characters.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidModelId> {
        let id = id.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > MAX_MODEL_ID_BYTES || !id.chars().all(allowed) {
            return Err(InvalidModelId { id: id.chars().take(MAX_MODEL_ID_BYTES).collect() });
        }
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ModelId {
    type Err = InvalidModelId;
    fn from_str(id: &str) -> Result<Self, InvalidModelId> {
        Self::new(id)
    }
}

impl<'de> Deserialize<'de> for ModelId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(bounded::string(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A text that is not a valid model id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidModelId {
    /// The text, cut to [`MAX_MODEL_ID_BYTES`] characters.
    pub id: String,
}

impl fmt::Display for InvalidModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a model id: use 1 to {MAX_MODEL_ID_BYTES} letters, digits, '.', '_' or '-'",
            self.id
        )
    }
}

impl std::error::Error for InvalidModelId {}

/// A lease, unique for the daemon's life. Valid only on the connection that acquired it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A segment of shared memory, unique on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
