//! A leased model that scores pairs of texts.

use super::client::AsyncClient;
use super::lease::AsyncLease;
use crate::calls::leased_model::leased_model;
use crate::error::Error;
use crate::results::{Ranked, Scores};
use crate::wire::request::{ANY_LEASE, PreparedRequest, model_id};
use emberd_protocol::{Method, ScoreActivation, Target};

/// A lease on a model that scores pairs of texts; as [`crate::RerankModel`]. Clones share it.
#[derive(Debug, Clone)]
pub struct AsyncRerankModel {
    lease: AsyncLease,
}

impl AsyncRerankModel {
    /// As [`crate::RerankModel::rerank`].
    ///
    /// # Errors
    /// As there.
    pub async fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let request = PreparedRequest::rerank(ANY_LEASE, query, documents)?;
        self.lease.send(request).await?.scores(documents.len())?.into_ranking()
    }

    /// As [`crate::RerankModel::scores`].
    ///
    /// # Errors
    /// As there.
    pub async fn scores<A: AsRef<str>, B: AsRef<str>>(
        &self,
        pairs: &[(A, B)],
        activation: ScoreActivation,
    ) -> Result<Scores, Error> {
        let request = PreparedRequest::score(ANY_LEASE, pairs, activation)?;
        self.lease.send(request).await?.scores(pairs.len())
    }
}

leased_model!(AsyncRerankModel, AsyncLease, AsyncClient, async, await);

impl AsyncClient {
    /// As [`crate::Client::rerank_model`].
    ///
    /// # Errors
    /// As there.
    pub async fn rerank_model(&self, id: &str) -> Result<AsyncRerankModel, Error> {
        // Of any kind: embedding models may rerank, too.
        let lease = self.model(id).await?;
        lease.require(&Method::Rerank)?;
        Ok(AsyncRerankModel { lease })
    }

    /// As [`crate::Client::rerank`].
    ///
    /// # Errors
    /// As there.
    pub async fn rerank<T: AsRef<str>>(
        &self,
        id: &str,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let request = PreparedRequest::rerank(Target::Model(model_id(id)?), query, documents)?;
        self.send(request).await?.scores(documents.len())?.into_ranking()
    }
}
