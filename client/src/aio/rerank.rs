//! A leased model that scores pairs of texts.

use super::client::Client;
use super::lease::Lease;
use crate::error::Error;
use crate::question::model_id;
use crate::rerank::{Ranked, Scores, check_ranks, ranking, scoring};
use crate::text::UNAIMED;
use emberd_protocol::{ModelInfo, ScoreActivation, Target};

/// A lease on a model that scores pairs of texts; as [`crate::RerankModel`]. Clones share it.
#[derive(Debug, Clone)]
pub struct RerankModel {
    lease: Lease,
}

impl Client {
    /// As [`crate::Client::rerank_model`].
    ///
    /// # Errors
    /// As there.
    pub async fn rerank_model(&self, id: &str) -> Result<RerankModel, Error> {
        let lease = self.model(id).await?;
        check_ranks(&lease.info())?;
        Ok(RerankModel { lease })
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
        let mut question = ranking(Target::Model(model_id(id)?), query, documents)?;
        self.ask_on(&mut question, |_| {}).await?.1.scores(documents.len())?.into_ranking()
    }
}

impl RerankModel {
    /// As [`crate::RerankModel::rerank`].
    ///
    /// # Errors
    /// As there.
    pub async fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        documents: &[T],
    ) -> Result<Vec<Ranked>, Error> {
        let question = ranking(UNAIMED, query, documents)?;
        self.lease.ask(question, |_| {}).await?.scores(documents.len())?.into_ranking()
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
        let question = scoring(UNAIMED, pairs, activation)?;
        self.lease.ask(question, |_| {}).await?.scores(pairs.len())
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

    /// As [`crate::RerankModel::release`].
    ///
    /// # Errors
    /// As there.
    pub async fn release(&self) -> Result<(), Error> {
        self.lease.release().await
    }
}
