//! Requests, ready to be sent and to be sent again.

use super::expected_events::ExpectedEvents;
use crate::error::Error;
use emberd_protocol::{
    Delivery, EmbedOptions, EmbedRequest, ErrorCode, Failure, FillMaskRequest, Frame, FrameKind,
    GenerateOptions, GenerateRequest, LeaseId, Limits, MAX_FRAME_BYTES, ModelId, ModelKind,
    Pairing, Request, RerankRequest, ScoreActivation, Target, TextBuilder,
};
use std::fmt;

/// The target of a request that [`PreparedRequest::set_lease`] completes before each sending.
pub(crate) const ANY_LEASE: Target = Target::Lease(LeaseId(0));

/// A request and its frame, which can be sent any number of times.
#[derive(Debug)]
pub(crate) struct PreparedRequest {
    request: Request,
    frame: Frame,
}

impl PreparedRequest {
    /// # Errors
    /// When it is too large for a frame.
    pub(crate) fn new(request: Request) -> Result<Self, Error> {
        Self::with_tail(request, Vec::new())
    }

    /// Takes a lease on a model.
    pub(crate) fn acquire(
        model: ModelId,
        kind: Option<ModelKind>,
        events: bool,
    ) -> Result<Self, Error> {
        Self::new(Request::Acquire { model, kind, events })
    }

    /// Rows for texts.
    pub(crate) fn embed<T: AsRef<str>>(
        target: Target,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Self, Error> {
        let options = options.clone();
        Self::with_texts(texts.iter().map(AsRef::as_ref), |texts| {
            Request::Embed(EmbedRequest { target, texts, delivery: Delivery::Auto, options })
        })
    }

    /// Scores of documents for a query.
    pub(crate) fn rerank<T: AsRef<str>>(
        target: Target,
        query: &str,
        documents: &[T],
    ) -> Result<Self, Error> {
        let texts = std::iter::once(query).chain(documents.iter().map(AsRef::as_ref));
        Self::score_pairs(target, Pairing::QueryFirst, ScoreActivation::Model, texts)
    }

    /// Scores of pairs of texts.
    pub(crate) fn score<A: AsRef<str>, B: AsRef<str>>(
        target: Target,
        pairs: &[(A, B)],
        activation: ScoreActivation,
    ) -> Result<Self, Error> {
        let texts = pairs.iter().flat_map(|(first, second)| [first.as_ref(), second.as_ref()]);
        Self::score_pairs(target, Pairing::Adjacent, activation, texts)
    }

    /// Texts generated from texts, as a stream of pieces or not.
    pub(crate) fn generate<T: AsRef<str>>(
        target: Target,
        texts: &[T],
        options: &GenerateOptions,
        stream: bool,
    ) -> Result<Self, Error> {
        let options = options.clone();
        Self::with_texts(texts.iter().map(AsRef::as_ref), |texts| {
            Request::Generate(GenerateRequest { target, texts, options, stream })
        })
    }

    /// Candidates for the masks in texts.
    pub(crate) fn fill_mask<T: AsRef<str>>(
        target: Target,
        texts: &[T],
        top_k: u32,
    ) -> Result<Self, Error> {
        Self::with_texts(texts.iter().map(AsRef::as_ref), |texts| {
            Request::FillMask(FillMaskRequest { target, texts, top_k })
        })
    }

    /// Names the lease under which to send it. The texts stay as they are.
    pub(crate) fn set_lease(&mut self, lease: LeaseId) -> Result<(), Error> {
        let target = match &mut self.request {
            Request::Embed(embed) => &mut embed.target,
            Request::Rerank(rerank) => &mut rerank.target,
            Request::Generate(generate) => &mut generate.target,
            Request::FillMask(fill) => &mut fill.target,
            Request::Ping
            | Request::Acquire { .. }
            | Request::Release { .. }
            | Request::AvailableModels
            | Request::ModelConfig { .. }
            | Request::Status
            | Request::Preload { .. }
            | Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload
            | Request::Why { .. }
            | Request::Plan { .. } => return Ok(()),
        };
        *target = Target::Lease(lease);
        let frame = Frame::message(FrameKind::Request, 0, &self.request).map_err(too_large)?;
        self.frame.body = frame.body;
        Ok(())
    }

    /// The frame, unless the connection's limits forbid it.
    pub(crate) fn frame(&mut self, limits: &Limits) -> Result<&mut Frame, Error> {
        let (texts, most) = (self.texts(), limits.max_texts);
        if texts > most {
            return Err(over_limit(format!(
                "{texts} texts are more than the {most} that a request may have: split them"
            )));
        }
        Ok(&mut self.frame)
    }

    /// The events that the daemon may send before its response.
    pub(crate) fn expected_events(&self) -> ExpectedEvents {
        match self.request {
            Request::Acquire { events: true, .. } | Request::Preload { events: true, .. } => {
                ExpectedEvents::LoadProgress
            }
            Request::Generate(GenerateRequest { stream: true, texts, .. }) => {
                ExpectedEvents::Pieces { texts }
            }
            Request::Ping
            | Request::Acquire { .. }
            | Request::Embed(_)
            | Request::Rerank(_)
            | Request::Generate(_)
            | Request::FillMask(_)
            | Request::Release { .. }
            | Request::AvailableModels
            | Request::ModelConfig { .. }
            | Request::Status
            | Request::Preload { .. }
            | Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload
            | Request::Why { .. }
            | Request::Plan { .. } => ExpectedEvents::None,
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn is_release(&self) -> bool {
        matches!(self.request, Request::Release { .. })
    }

    /// Whether sending it again changes nothing, whether or not the daemon carried it out.
    pub(crate) fn is_safe_to_repeat(&self) -> bool {
        match self.request {
            Request::Ping
            | Request::Acquire { .. } // a lease ended with the connection that took it
            | Request::Embed(_)
            | Request::Rerank(_)
            | Request::Generate(_)
            | Request::FillMask(_)
            | Request::AvailableModels
            | Request::ModelConfig { .. }
            | Request::Status
            | Request::Preload { .. }
            | Request::Why { .. }
            | Request::Plan { .. } => true,
            Request::Release { .. }
            | Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload => false,
        }
    }

    fn score_pairs<'a>(
        target: Target,
        pairs: Pairing,
        activation: ScoreActivation,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        Self::with_texts(texts, |texts| {
            Request::Rerank(RerankRequest { target, texts, pairs, activation })
        })
    }

    /// A request with texts in its tail; `request` makes it from the number of texts.
    fn with_texts<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        request: impl FnOnce(u32) -> Request,
    ) -> Result<Self, Error> {
        let mut builder = TextBuilder::default();
        for text in texts {
            builder.push(text).map_err(|error| over_limit(error.to_string()))?;
        }
        Self::with_tail(request(builder.count()), builder.into_bytes())
    }

    fn with_tail(request: Request, tail: Vec<u8>) -> Result<Self, Error> {
        let mut frame = Frame::message(FrameKind::Request, 0, &request).map_err(too_large)?;
        frame.tail = tail;
        if frame.len_bytes() > MAX_FRAME_BYTES {
            return Err(too_large(frame.len_bytes()));
        }
        Ok(Self { request, frame })
    }

    /// How many texts are in its tail.
    fn texts(&self) -> u32 {
        match &self.request {
            Request::Embed(embed) => embed.texts,
            Request::Rerank(rerank) => rerank.texts,
            Request::Generate(generate) => generate.texts,
            Request::FillMask(fill) => fill.texts,
            Request::Ping
            | Request::Acquire { .. }
            | Request::Release { .. }
            | Request::AvailableModels
            | Request::ModelConfig { .. }
            | Request::Status
            | Request::Preload { .. }
            | Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload
            | Request::Why { .. }
            | Request::Plan { .. } => 0,
        }
    }
}

/// Fails for an id that cannot exist: no daemon has such a model, so none need be asked.
pub(crate) fn model_id(id: &str) -> Result<ModelId, Error> {
    ModelId::new(id)
        .map_err(|error| Failure::new(ErrorCode::ModelNotConfigured, error.to_string()).into())
}

fn over_limit(message: String) -> Error {
    Failure::new(ErrorCode::LimitExceeded, message).into()
}

fn too_large(detail: impl fmt::Display) -> Error {
    over_limit(format!(
        "the request is too large for a frame of {MAX_FRAME_BYTES} bytes ({detail}): send fewer \
         texts at once"
    ))
}
