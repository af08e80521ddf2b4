//! Why the options of a request are refused.

use std::fmt::Display;

/// The options of a request contradict their ranges, the settings or each other.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// Outside its range.
    #[error("{option} is {value}: it must be {range}")]
    Range {
        /// Name of the option.
        option: &'static str,
        /// Its value in the request.
        value: String,
        /// The values that are accepted.
        range: String,
    },
    /// More than the settings, or the model itself, allow.
    #[error("{option} is {value}, more than this model's limit of {limit}")]
    OverLimit {
        /// Name of the option.
        option: &'static str,
        /// Its value in the request.
        value: usize,
        /// The largest value that is allowed.
        limit: usize,
    },
    /// Two options that do not go together, or one that would have no effect.
    #[error("{option} cannot be combined with {other}: {remedy}")]
    Conflict {
        /// One option.
        option: &'static str,
        /// The other option, or the state that makes it useless.
        other: &'static str,
        /// How to resolve it.
        remedy: &'static str,
    },
}

impl OptionError {
    /// An option outside its range.
    pub(super) fn range(option: &'static str, value: impl Display, range: String) -> Self {
        Self::Range { option, value: format!("{value}"), range }
    }
}
