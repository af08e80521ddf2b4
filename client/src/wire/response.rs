//! Responses, and whether they fit their requests.

use crate::error::{Error, ProtocolError};
use crate::results::{Embeddings, Scores};
use emberd_protocol::{
    CacheCleared, Decision, FilledText, Freed, Generated, LeaseId, Leased, MasksFilled,
    ModelSummary, Preloaded, Reloaded, Response, Status,
};

/// A response, with the rows or scores of its frame.
#[derive(Debug)]
pub(crate) enum ReceivedResponse {
    Rows(Embeddings),
    Scores(Scores),
    Other(Response),
}

/// One method for each kind of response: it returns the payload, or fails for any other response.
macro_rules! payloads {
    ($($name:ident: $variant:pat => $value:expr => $type:ty),* $(,)?) => {
        $(pub(crate) fn $name(self) -> Result<$type, Error> {
            match self {
                Self::Other($variant) => Ok($value),
                other => Err(other.out_of_place()),
            }
        })*
    };
}

impl ReceivedResponse {
    payloads!(
        pong: Response::Pong => () => (),
        leased: Response::Leased(leased) => leased => Leased,
        released: Response::Released => () => (),
        models: Response::AvailableModels(models) => models => Vec<ModelSummary>,
        config: Response::ModelConfig(keys) => keys => Vec<(String, String)>,
        status: Response::Status(status) => *status => Status,
        preloaded: Response::Preloaded(preloaded) => preloaded => Preloaded,
        freed: Response::Freed(freed) => freed => Freed,
        cleared: Response::CacheCleared(cleared) => cleared => CacheCleared,
        reloaded: Response::Reloaded(reloaded) => reloaded => Reloaded,
        decisions: Response::Decisions(decisions) => decisions => Vec<Decision>,
    );

    /// Exactly one decision.
    pub(crate) fn decision(self) -> Result<Decision, Error> {
        let [decision] = <[Decision; 1]>::try_from(self.decisions()?)
            .map_err(|_| ProtocolError::OutOfPlace("the wrong number of decisions"))?;
        Ok(decision)
    }

    /// Rows, one for each text.
    pub(crate) fn rows(self, texts: usize) -> Result<Embeddings, Error> {
        match self {
            Self::Rows(rows) if rows.len() == texts => Ok(rows),
            Self::Rows(_) => Err(ProtocolError::OutOfPlace("the wrong number of rows").into()),
            other => Err(other.out_of_place()),
        }
    }

    /// Scores of a number of pairs.
    pub(crate) fn scores(self, pairs: usize) -> Result<Scores, Error> {
        match self {
            Self::Scores(scores) if scores.len() == pairs => Ok(scores),
            Self::Scores(_) => Err(ProtocolError::OutOfPlace("the wrong number of scores").into()),
            other => Err(other.out_of_place()),
        }
    }

    /// Generated sequences, at least one for each text.
    pub(crate) fn generated(self, texts: usize) -> Result<Generated, Error> {
        let Self::Other(Response::Generated(generated)) = self else {
            return Err(self.out_of_place());
        };
        if generated.texts.len() != texts {
            return Err(ProtocolError::OutOfPlace("the wrong number of texts").into());
        }
        if generated.texts.iter().any(|text| text.sequences.is_empty()) {
            return Err(ProtocolError::OutOfPlace("a text without a sequence").into());
        }
        Ok(generated)
    }

    /// The masks of each text, with at most `top_k` candidates each.
    pub(crate) fn filled(self, texts: usize, top_k: u32) -> Result<MasksFilled, Error> {
        let Self::Other(Response::MasksFilled(filled)) = self else {
            return Err(self.out_of_place());
        };
        if filled.texts.len() != texts {
            return Err(ProtocolError::OutOfPlace("the wrong number of texts").into());
        }
        let is_too_many = |text: &FilledText| {
            text.masks.iter().any(|mask| mask.candidates.len() > top_k as usize)
        };
        if filled.texts.iter().any(is_too_many) {
            return Err(ProtocolError::OutOfPlace("more candidates than were requested").into());
        }
        Ok(filled)
    }

    /// Turns a failure of the request into an error.
    pub(crate) fn or_failure(self) -> Result<Self, Error> {
        match self {
            Self::Other(Response::Failed(failure)) => Err(failure.into()),
            response => Ok(response),
        }
    }

    /// The lease, if the response grants one.
    pub(crate) fn granted_lease(&self) -> Option<LeaseId> {
        let Self::Other(Response::Leased(leased)) = self else { return None };
        Some(leased.lease)
    }

    fn out_of_place(&self) -> Error {
        let name = match self {
            Self::Rows(_) | Self::Other(Response::Embedded(_)) => "rows",
            Self::Other(Response::Failed(_)) => "a failure",
            Self::Other(Response::Pong) => "a pong",
            Self::Other(Response::Leased(_)) => "a lease",
            Self::Other(Response::Released) => "a release",
            Self::Other(Response::AvailableModels(_)) => "a list of models",
            Self::Other(Response::ModelConfig(_)) => "a model's configuration",
            Self::Other(Response::Status(_)) => "a status",
            Self::Other(Response::Preloaded(_)) => "the result of a preload",
            Self::Other(Response::Freed(_)) => "a list of freed models",
            Self::Other(Response::CacheCleared(_)) => "the size of a cleared cache",
            Self::Other(Response::Reloaded(_)) => "the result of a reload",
            Self::Other(Response::Decisions(_)) => "decisions",
            Self::Scores(_) | Self::Other(Response::Reranked(_)) => "scores",
            Self::Other(Response::Generated(_)) => "texts",
            Self::Other(Response::MasksFilled(_)) => "filled masks",
        };
        ProtocolError::OutOfPlace(name).into()
    }
}
