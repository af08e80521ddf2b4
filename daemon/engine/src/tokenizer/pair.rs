//! Two texts as one sequence.

use tokenizers::Tokenizer;

use crate::api::embedding::{ComputeError, Sequence};
use crate::tokenizer::Encoder;

/// The special tokens of a pair.
#[derive(Debug, Clone)]
pub(crate) struct PairTemplate {
    before: Vec<u32>,
    /// Between the texts, at first those that count as the first one's.
    between: Vec<u32>,
    after: Vec<u32>,
    /// How many of `between` are of the first one's segment; `None` where all of a pair is of one.
    first_share: Option<usize>,
    is_told: bool,
}

impl PairTemplate {
    /// As the tokenizer puts two texts together.
    pub(crate) fn of(tokenizer: &Tokenizer) -> tokenizers::Result<Self> {
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
            is_told: true,
            before: ids[..first.start].to_vec(),
            between: ids[between].to_vec(),
            after: ids[second.end..].to_vec(),
        })
    }

    /// The same, whether segments differ or not: a model that is not told of segments has but one. What
    /// the tokenizer itself says is kept, to be told another time.
    pub(crate) fn telling(self, tells_segments: bool) -> Self {
        Self { is_told: tells_segments, ..self }
    }

    fn len(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }
}

impl Encoder {
    /// The tokens of two texts as one sequence. Where they are too many, the longer text is cut
    /// first. Unlike single texts they are read with the blanks around them.
    pub(crate) fn encode_pair(&self, first: &str, second: &str) -> Result<Sequence, ComputeError> {
        let template = self.pair.as_ref().ok_or(ComputeError::NoPairs)?;
        let most = self.before.len() + self.max_tokens + self.after.len();
        let room = most.saturating_sub(template.len());
        let read = |text, most| {
            let mut ids = Vec::new();
            let is_cut = self.append(text, most, &mut ids)?;
            Ok::<_, ComputeError>((ids, is_cut))
        };
        // One more than there is room for: so much tells which texts are too long.
        let (mut a, a_is_cut) = read(first, room + 1)?;
        let (mut b, b_is_cut) = read(second, room + 1)?;
        let mut lengths = (a.len(), b.len());
        if lengths.0.min(lengths.1) > room && room % 2 == 1 {
            // The odd token is the longer text's, which shows at its end only.
            lengths = (read(first, usize::MAX)?.0.len(), read(second, usize::MAX)?.0.len());
        }
        let (a_len, b_len) = shares(lengths, room);
        let truncated = a_is_cut || b_is_cut || a_len < a.len() || b_len < b.len();
        self.side.keep(&mut a, 0, a_len);
        self.side.keep(&mut b, 0, b_len);
        let PairTemplate { before, between, after, first_share, is_told } = template;
        let ids = [before, &a, between, &b, after].map(Vec::as_slice).concat();
        let first_len = match first_share.filter(|_| *is_told) {
            Some(share) => before.len() + a.len() + share,
            None => ids.len(),
        };
        Ok(Sequence { ids, truncated, first_len, ..Sequence::default() })
    }
}

/// How many tokens each of two texts keeps: transformers' `longest_first`.
fn shares(lengths: (usize, usize), room: usize) -> (usize, usize) {
    let (a, b) = lengths;
    if a + b <= room {
        return lengths;
    }
    let (short, is_swapped) = (a.min(b), a > b);
    let (short, long) =
        if short <= room / 2 { (short, room - short) } else { (room / 2, room - room / 2) };
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
