//! A leased model that scores pairs of texts.

use super::client::Client;
use super::lease::Lease;
use crate::calls::leased_model::leased_model;
use crate::error::Error;
use crate::results::{Ranked, Scores};
use crate::wire::request::{ANY_LEASE, PreparedRequest, model_id};
use emberd_protocol::{Method, ScoreActivation, Target};

/// A lease on a model that scores pairs of texts: a cross-encoder, or another sequence classifier.
/// Clones share it.
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

impl RerankModel {
    /// Documents ordered by how well they match a query, the best first. Only for models with one
    /// score for a pair.
    ///
    /// # Errors
    /// `WRONG_MODEL_TYPE` for a model with several scores for a pair: use [`RerankModel::scores`].
    /// `LIMIT_EXCEEDED` when a request has too many documents; `OVERLOADED`; `REFERENCE_ERROR`
    /// after a release.
    pub fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let request = PreparedRequest::rerank(ANY_LEASE, query, documents)?;
        self.lease.send(request)?.scores(documents.len())?.into_ranking()
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
        let request = PreparedRequest::score(ANY_LEASE, pairs, activation)?;
        self.lease.send(request)?.scores(pairs.len())
    }
}

leased_model!(RerankModel, Lease, Client);

impl Client {
    /// A lease on a model that scores pairs of texts: one of type `rerank`, or an embedding model
    /// whose folder has a classification head.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn rerank_model(&self, id: &str) -> Result<RerankModel, Error> {
        // Of any kind: embedding models may rerank, too.
        let lease = self.model(id)?;
        lease.require(&Method::Rerank)?;
        Ok(RerankModel { lease })
    }

    /// Documents ordered by how well they match a query, with a lease for this call only.
    ///
    /// # Errors
    /// As [`Client::rerank_model`] and [`RerankModel::rerank`].
    pub fn rerank<T: AsRef<str>>(
        &self,
        id: &str,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let request = PreparedRequest::rerank(Target::Model(model_id(id)?), query, documents)?;
        self.send(request)?.scores(documents.len())?.into_ranking()
    }
}
