//! What a client asks, ready to be sent, and to be sent again.

use crate::error::Error;
use crate::table::Wants;
use emberd_protocol::{
    Delivery, EmbedOptions, EmbedRequest, ErrorCode, Failure, FillMaskRequest, Frame, FrameKind,
    GenerateOptions, GenerateRequest, LeaseId, Limits, MAX_FRAME_BYTES, ModelId, ModelKind,
    Pairing, Request, RerankRequest, ScoreActivation, Target, TextBuilder,
};

/// A request and its frame, which can be sent over and over.
#[derive(Debug)]
pub(crate) struct Question {
    request: Request,
    frame: Frame,
}

impl Question {
    /// # Errors
    /// When it is too large for a frame.
    pub(crate) fn new(request: Request) -> Result<Self, Error> {
        Self::with_tail(request, Vec::new())
    }

    fn with_tail(request: Request, tail: Vec<u8>) -> Result<Self, Error> {
        let mut frame = Frame::message(FrameKind::Request, 0, &request).map_err(too_large)?;
        frame.tail = tail;
        if frame.len_bytes() > MAX_FRAME_BYTES {
            return Err(too_large(frame.len_bytes()));
        }
        Ok(Self { request, frame })
    }

    /// A lease on a model.
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
        let mut builder = TextBuilder::default();
        for text in texts {
            builder.push(text.as_ref()).map_err(|error| over(error.to_string()))?;
        }
        let count = u32::try_from(texts.len()).map_err(|_| over("too many texts".into()))?;
        let request = Request::Embed(EmbedRequest {
            target,
            texts: count,
            delivery: Delivery::Auto,
            options: options.clone(),
        });
        Self::with_tail(request, builder.into_bytes())
    }

    /// Rows for texts, with a lease that [`Question::aim`] names before each sending.
    pub(crate) fn embed_leased<T: AsRef<str>>(
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Self, Error> {
        Self::embed(Target::Lease(LeaseId(0)), texts, options)
    }

    /// Scores for pairs of texts.
    pub(crate) fn rerank<'a>(
        target: Target,
        pairs: Pairing,
        activation: ScoreActivation,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        Self::with_texts(texts, |texts| {
            Request::Rerank(RerankRequest { target, texts, pairs, activation })
        })
    }

    /// Texts made from texts.
    pub(crate) fn generate<T: AsRef<str>>(
        target: Target,
        texts: &[T],
        options: GenerateOptions,
        stream: bool,
    ) -> Result<Self, Error> {
        Self::with_texts(texts.iter().map(AsRef::as_ref), |texts| {
            Request::Generate(GenerateRequest { target, texts, options, stream })
        })
    }

    /// What may stand at the masks of texts.
    pub(crate) fn fill_mask<T: AsRef<str>>(
        target: Target,
        texts: &[T],
        top_k: u32,
    ) -> Result<Self, Error> {
        Self::with_texts(texts.iter().map(AsRef::as_ref), |texts| {
            Request::FillMask(FillMaskRequest { target, texts, top_k })
        })
    }

    /// A request with texts behind it, made of their number.
    fn with_texts<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        request: impl FnOnce(u32) -> Request,
    ) -> Result<Self, Error> {
        let mut builder = TextBuilder::default();
        for text in texts {
            builder.push(text).map_err(|error| over(error.to_string()))?;
        }
        Self::with_tail(request(builder.count()), builder.into_bytes())
    }

    /// Names the lease to ask with. The texts stay as they are.
    pub(crate) fn aim(&mut self, lease: LeaseId) -> Result<(), Error> {
        let target = match &mut self.request {
            Request::Embed(embed) => &mut embed.target,
            Request::Rerank(rerank) => &mut rerank.target,
            Request::Generate(generate) => &mut generate.target,
            Request::FillMask(fill) => &mut fill.target,
            _ => return Ok(()),
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
            let message =
                format!("{texts} texts are more than the {most} of one request: split them");
            return Err(over(message));
        }
        Ok(&mut self.frame)
    }

    /// How many texts ride behind it.
    fn texts(&self) -> u32 {
        match &self.request {
            Request::Embed(embed) => embed.texts,
            Request::Rerank(rerank) => rerank.texts,
            Request::Generate(generate) => generate.texts,
            Request::FillMask(fill) => fill.texts,
            _ => 0,
        }
    }

    /// What is wanted before the answer.
    pub(crate) fn wants(&self) -> Wants {
        match self.request {
            Request::Acquire { events: true, .. } | Request::Preload { events: true, .. } => {
                Wants::News
            }
            Request::Generate(GenerateRequest { stream: true, texts, .. }) => {
                Wants::Pieces { texts }
            }
            _ => Wants::Nothing,
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn is_release(&self) -> bool {
        matches!(self.request, Request::Release { .. })
    }

    /// Whether asking again changes nothing, whatever became of the first time.
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
}

/// An id that cannot exist is not configured anywhere: the daemon need not be asked.
pub(crate) fn model_id(id: &str) -> Result<ModelId, Error> {
    ModelId::new(id)
        .map_err(|error| Failure::new(ErrorCode::ModelNotConfigured, error.to_string()).into())
}

fn over(message: String) -> Error {
    Failure::new(ErrorCode::LimitExceeded, message).into()
}

fn too_large(what: impl std::fmt::Display) -> Error {
    over(format!(
        "the request is too large for a frame of {MAX_FRAME_BYTES} bytes ({what}): send fewer \
         texts at once"
    ))
}
