//! Scores of pairs of texts, and the ranking that they make.

use crate::error::{Error, ProtocolError};
use emberd_protocol::{ErrorCode, Failure, Reranked};
use std::slice::ChunksExact;

/// The scores of pairs of texts: one for each label of each pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pairs: usize,
    labels: Vec<String>,
    /// `pairs` rows of `labels.len()` values.
    values: Vec<f32>,
    tokens: u64,
    truncated: Vec<u32>,
}

/// A document's position in a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The document, by its position in the request.
    pub index: usize,
    /// How well it matches the query.
    pub score: f32,
}

impl Scores {
    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there are no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// The names of a pair's scores, from the model's folder; at least one.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The scores of the pair at a position, one for each label.
    ///
    /// # Panics
    /// When the position is out of range, as indexing a slice does.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        let Some(row) = self.rows().nth(index) else {
            panic!("pair {index} of {}", self.pairs);
        };
        row
    }

    /// The scores of each pair, in order.
    pub fn rows(&self) -> ChunksExact<'_, f32> {
        self.values.chunks_exact(self.labels.len())
    }

    /// All scores, one pair after the other.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// The pairs (by position, ascending) that were longer than the model's limit and lost their
    /// end.
    #[must_use]
    pub fn truncated(&self) -> &[u32] {
        &self.truncated
    }

    /// How many tokens were computed.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The scores of a response, whose values are little-endian floats in the frame's tail.
    pub(crate) fn new(response: Reranked, tail: &[u8]) -> Result<Self, ProtocolError> {
        let (values, rest) = tail.as_chunks::<4>();
        let pairs = response.pairs as usize;
        if !rest.is_empty() || Some(values.len()) != pairs.checked_mul(response.labels.len()) {
            return Err(ProtocolError::OutOfPlace("scores that do not match the pairs and labels"));
        }
        if response.labels.is_empty() || response.truncated.iter().any(|at| *at >= response.pairs) {
            return Err(ProtocolError::OutOfPlace("scores without labels or of unknown pairs"));
        }
        Ok(Self {
            pairs,
            labels: response.labels,
            values: values.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            tokens: response.tokens,
            truncated: response.truncated,
        })
    }

    /// The pairs as a ranking, the best first. Pairs with the same score keep their order.
    pub(crate) fn into_ranking(self) -> Result<Vec<Ranked>, Error> {
        if self.labels.len() != 1 {
            let message = format!(
                "this model gives a pair {} scores ({}), which do not order the documents: use \
                 `scores` instead",
                self.labels.len(),
                self.labels.join(", ")
            );
            return Err(Failure::new(ErrorCode::WrongModelType, message).into());
        }
        let ranked = |(index, score): (usize, &f32)| Ranked { index, score: *score };
        let mut ranking: Vec<Ranked> = self.values.iter().enumerate().map(ranked).collect();
        ranking.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranking)
    }
}
