//! How two texts become one sequence.

use tokenizers::Tokenizer;

/// The special tokens around and between the texts of a pair.
#[derive(Debug, Clone)]
pub(super) struct PairTemplate {
    before: Vec<u32>,
    /// The tokens of the first text's segment come first.
    between: Vec<u32>,
    after: Vec<u32>,
    /// How many of `between` are in the first text's segment; `None` if a pair has a single segment.
    first_share: Option<usize>,
    uses_segments: bool,
}

impl PairTemplate {
    /// The template that a tokenizer uses for pairs.
    pub(super) fn of(tokenizer: &Tokenizer) -> tokenizers::Result<Self> {
        let pair = tokenizer.encode(("a", "b"), true)?;
        let (ids, segments) = (pair.get_ids(), pair.get_type_ids());
        let text = |number| {
            let belongs = |&i: &usize| pair.token_to_sequence(i) == Some(number);
            let mut tokens = (0..ids.len()).filter(belongs);
            let first = tokens.next();
            first.map(|first| first..tokens.next_back().unwrap_or(first) + 1)
        };
        let (Some(first), Some(second)) = (text(0), text(1)) else {
            return Err("the tokenizer takes no pairs".into());
        };
        let between = first.end..second.start.max(first.end);
        let is_one = segments[second.start] == segments[first.start];
        let share = segments[between.clone()].iter().take_while(|&&s| s == segments[first.start]);
        Ok(Self {
            first_share: (!is_one).then(|| share.count()),
            uses_segments: true,
            before: ids[..first.start].to_vec(),
            between: ids[between].to_vec(),
            after: ids[second.end..].to_vec(),
        })
    }

    /// The same template for a model with or without segment ids. Without them a pair has a single
    /// segment; the tokenizer's own division is kept, in case another model uses it.
    pub(super) fn with_segments(self, uses_segments: bool) -> Self {
        Self { uses_segments, ..self }
    }

    /// The number of special tokens.
    pub(super) fn len(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }

    /// The tokens of a pair, and how many of them are in the first text's segment.
    pub(super) fn join(&self, first: &[u32], second: &[u32]) -> (Vec<u32>, usize) {
        let Self { before, between, after, first_share, uses_segments } = self;
        let ids = [before, first, between, second, after].concat();
        let first_len = match first_share.filter(|_| *uses_segments) {
            Some(share) => before.len() + first.len() + share,
            None => ids.len(),
        };
        (ids, first_len)
    }
}

/// How many of `most` tokens each of two texts keeps: transformers' `longest_first`.
pub(super) fn shares(lengths: (usize, usize), most: usize) -> (usize, usize) {
    let (a, b) = lengths;
    if a + b <= most {
        return lengths;
    }
    let (short, is_swapped) = (a.min(b), a > b);
    let (short, long) =
        if short <= most / 2 { (short, most - short) } else { (most / 2, most - most / 2) };
    if is_swapped { (long, short) } else { (short, long) }
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn the_longer_text_is_cut_first_and_both_alike_where_both_are_too_long() {
        for (lengths, kept) in [
            ((0, 0), (0, 0)),
            ((0, 9), (0, 7)),
            ((2, 4), (2, 4)),
            ((2, 9), (2, 5)),
            ((9, 2), (5, 2)),
            ((4, 4), (3, 4)),
            ((9, 4), (4, 3)),
            ((4, 9), (3, 4)),
            ((9, 8), (4, 3)),
            ((20, 20), (3, 4)),
        ] {
            assert_eq!(shares(lengths, 7), kept, "{lengths:?}");
        }
    }
}
