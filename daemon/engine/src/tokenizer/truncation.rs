//! Which end of a text that is too long is cut off.

use std::path::Path;

use serde_json::Value;
use tokenizers::{Tokenizer, TruncationDirection};

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

    /// The value of a `tokenizer.json`: it counts if no configuration file has one.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        match tokenizer.get_truncation().map(|truncation| truncation.direction) {
            Some(TruncationDirection::Left) => Self::Left,
            _ => Self::Right,
        }
    }

    /// At most `bytes` bytes of a text, from the end that is kept.
    pub(crate) fn part(self, text: &str, bytes: usize) -> &str {
        match self {
            Self::Right => &text[..text.floor_char_boundary(bytes)],
            Self::Left => &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..],
        }
    }

    /// Keeps at most `most` of the tokens from `start` on.
    pub(crate) fn keep(self, ids: &mut Vec<u32>, start: usize, most: usize) {
        let surplus = ids.len().saturating_sub(start.saturating_add(most));
        match self {
            Self::Right => ids.truncate(ids.len() - surplus),
            Self::Left => drop(ids.drain(start..start + surplus)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TruncationSide::{Left, Right};

    #[test]
    fn the_end_that_is_named_is_lost() {
        for (side, ids) in [(Right, [7, 1, 2]), (Left, [7, 2, 3])] {
            let mut kept = vec![7, 1, 2, 3];
            side.keep(&mut kept, 1, 2);
            assert_eq!(kept, ids);
            side.keep(&mut kept, 1, 9);
            assert_eq!(kept, ids);
        }
        assert_eq!((Right.part("abä", 3), Left.part("äab", 3)), ("ab", "ab"));
        assert_eq!((Right.part("ab", 3), Left.part("ab", 3)), ("ab", "ab"));
    }
}
