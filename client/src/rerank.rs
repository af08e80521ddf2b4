//! A leased model that scores pairs of texts.

use crate::client::Client;
use crate::error::{Error, ProtocolError};
use crate::lease::Lease;
use crate::question::{Question, model_id};
use crate::text::UNAIMED;
use emberd_protocol::{
    ErrorCode, Failure, Method, ModelInfo, Pairing, Reranked, ScoreActivation, Target,
};
use std::slice::ChunksExact;

/// A lease on a model that scores pairs of texts: a cross-encoder, or another sequence
/// classification. Clones share it.
///
/// ```no_run
/// let client = emberd_client::Client::connect()?;
/// let model = client.rerank_model("reranker")?;
/// for ranked in model.rerank("what glows?", &["an ember", "a stone"])? {
///     println!("{}: {}", ranked.index, ranked.score); // the best first
/// }
/// # Ok::<(), emberd_client::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RerankModel {
    lease: Lease,
}

/// A document's place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Its position among those that were given.
    pub index: usize,
    /// How well it goes with the query.
    pub score: f32,
}

/// The scores of pairs of texts: one for each label of each pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pairs: usize,
    labels: Vec<String>,
    values: Vec<f32>,
    tokens: u64,
    truncated: Vec<u32>,
}

impl Scores {
    /// The scores of an answer, which ride behind it.
    pub(crate) fn new(answer: Reranked, tail: &[u8]) -> Result<Self, ProtocolError> {
        let (values, rest) = tail.as_chunks::<4>();
        let pairs = answer.pairs as usize;
        if !rest.is_empty() || Some(values.len()) != pairs.checked_mul(answer.labels.len()) {
            return Err(ProtocolError::OutOfPlace("other scores than the pairs and labels need"));
        }
        if answer.labels.is_empty() || answer.truncated.iter().any(|pair| *pair >= answer.pairs) {
            return Err(ProtocolError::OutOfPlace("scores that make no sense"));
        }
        Ok(Self {
            pairs,
            labels: answer.labels,
            values: values.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            tokens: answer.tokens,
            truncated: answer.truncated,
        })
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// The names of the scores of a pair, as the model's folder gives them; at least one.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The scores of the pair at a position, one for each label.
    ///
    /// # Panics
    /// When there is no such pair, as indexing a slice does.
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

    /// All scores, pair behind pair.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// The pairs (by position, ascending) that were longer than the model reads and lost their end.
    #[must_use]
    pub fn truncated(&self) -> &[u32] {
        &self.truncated
    }

    /// Tokens that were computed.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The pairs as a ranking, the best first; those that score the same as they were given.
    pub(crate) fn into_ranking(self) -> Result<Vec<Ranked>, Error> {
        if self.labels.len() != 1 {
            let message = format!(
                "this model has {} scores for a pair ({}), and so no order: ask for its scores",
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

/// A query and the documents to be ranked for it.
pub(crate) fn ranking<T: AsRef<str>>(
    target: Target,
    query: &str,
    documents: &[T],
) -> Result<Question, Error> {
    let texts = std::iter::once(query).chain(documents.iter().map(AsRef::as_ref));
    Question::rerank(target, Pairing::QueryFirst, ScoreActivation::Model, texts)
}

/// Pairs to be scored.
pub(crate) fn scoring<A: AsRef<str>, B: AsRef<str>>(
    target: Target,
    pairs: &[(A, B)],
    activation: ScoreActivation,
) -> Result<Question, Error> {
    let texts = pairs.iter().flat_map(|(first, second)| [first.as_ref(), second.as_ref()]);
    Question::rerank(target, Pairing::Adjacent, activation, texts)
}

/// A model is leased whatever its kind: an embedding model may score pairs too.
pub(crate) fn check_ranks(model: &ModelInfo) -> Result<(), Error> {
    if model.methods.contains(&Method::Rerank) {
        return Ok(());
    }
    let offered: Vec<String> = model.methods.iter().map(Method::to_string).collect();
    let message =
        format!("model \"{}\" offers {}, not {}", model.id, offered.join(", "), Method::Rerank);
    Err(Failure::new(ErrorCode::WrongModelType, message).into())
}

impl Client {
    /// A lease on a model that scores pairs of texts: one of type `rerank`, or an embedding model
    /// whose folder has such a head.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn rerank_model(&self, id: &str) -> Result<RerankModel, Error> {
        let lease = self.model(id)?;
        check_ranks(&lease.info())?;
        Ok(RerankModel { lease })
    }

    /// Documents in the order in which they go with a query, with a lease for the call only.
    ///
    /// # Errors
    /// As [`Client::rerank_model`] and [`RerankModel::rerank`].
    pub fn rerank<T: AsRef<str>>(
        &self,
        id: &str,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let mut question = ranking(Target::Model(model_id(id)?), query, documents)?;
        self.ask_on(&mut question, None)?.1.scores(documents.len())?.into_ranking()
    }
}

impl RerankModel {
    /// Documents in the order in which they go with a query, the best first. Only for models with one
    /// score for a pair.
    ///
    /// # Errors
    /// `WRONG_MODEL_TYPE` for a model with several scores for a pair: use [`RerankModel::scores`].
    /// `LIMIT_EXCEEDED` when the documents are too many for one request; `OVERLOADED`;
    /// `REFERENCE_ERROR` after a release.
    pub fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let question = ranking(UNAIMED, query, documents)?;
        self.lease.ask(question, &mut |_| {})?.scores(documents.len())?.into_ranking()
    }

    /// The scores of pairs, in their order.
    ///
    /// # Errors
    /// As [`RerankModel::rerank`], for models with any number of scores.
    pub fn scores<A: AsRef<str>, B: AsRef<str>>(
        &self,
        pairs: &[(A, B)],
        activation: ScoreActivation,
    ) -> Result<Scores, Error> {
        let question = scoring(UNAIMED, pairs, activation)?;
        self.lease.ask(question, &mut |_| {})?.scores(pairs.len())
    }

    /// The model, as it was when the lease was taken.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        self.lease.info()
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The client that took it.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.lease.client()
    }

    /// Releases it for all clones, and waits until the daemon has.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` the second time.
    pub fn release(&self) -> Result<(), Error> {
        self.lease.release()
    }
}
