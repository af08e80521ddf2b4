//! Cuts texts and tokens that are too long.

use tokenizers::{Tokenizer, TruncationDirection};

use crate::checkpoint::truncation_side::TruncationSide;

impl TruncationSide {
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
    use crate::checkpoint::truncation_side::TruncationSide::{Left, Right};

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
