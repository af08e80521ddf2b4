//! The one place where errors of the daemon's parts become a [`Failure`] for a client.

use crate::batching::generation::OptionError;
use crate::batching::queue::QueueError;
use crate::batching::row_job::JobError;
use crate::batching::text_job::TextError;
use crate::ground::error_chain::chain;
use crate::models::lease::LeaseError;
use crate::models::loader::LoadFailure;
use crate::models::scheduler::{PlacementVerdict, UnloadError, WaitError};

use crate::request::embed::RowError;
use crate::segment::SegmentError;
use emberd_engine::ComputeError;
use emberd_protocol::{
    CodecError, ErrorCode, Failure, LeaseId, Method, ModelId, ModelKind, TextBlockError,
};
use std::time::Duration;

/// Why a request is answered with a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RequestError {
    /// No such model.
    #[error("model \"{model}\" is not configured: this daemon knows {known}")]
    NotConfigured {
        /// What was asked for.
        model: ModelId,
        /// What there is.
        known: String,
    },
    /// It cannot be brought up.
    #[error("model \"{model}\" cannot be loaded")]
    Load {
        /// Which.
        model: ModelId,
        /// Why.
        source: std::sync::Arc<LoadFailure>,
        /// When it is tried again.
        retry_in: Option<Duration>,
    },
    /// There is no place for it.
    #[error("model \"{model}\" cannot be loaded: {}; `emberd why {model}` tells more", reasons.join("; "))]
    NoPlace {
        /// Which.
        model: ModelId,
        /// Which kind of refusal.
        verdict: PlacementVerdict,
        /// Why, device by device.
        reasons: Vec<String>,
    },
    /// It is not shared.
    #[error(
        "model \"{0}\" is not shared: each holder gets a copy of its own, and there is none to preload"
    )]
    NotShared(ModelId),
    /// It cannot be unloaded.
    #[error("model \"{model}\" cannot be unloaded: {source}; `emberd status` tells whose")]
    Unload {
        /// Which.
        model: ModelId,
        /// Why.
        source: UnloadError,
    },
    /// The settings cannot be read again.
    #[error("the settings were not changed: {0}")]
    Reload(String),
    /// The embedding cache could not be cleared.
    #[error("the rows in memory are gone, those on disk may not be: {0}")]
    Cache(String),
    /// The peer may not ask for this.
    #[error("only the daemon's own user and root may do this")]
    NotAdmin,
    /// It is of another kind.
    #[error("model \"{model}\" is of kind {is}, not {wanted}")]
    WrongKind {
        /// Which.
        model: ModelId,
        /// What it is.
        is: ModelKind,
        /// What was wanted.
        wanted: ModelKind,
    },
    /// What the rows shall be cannot be had.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// It does not do what was asked.
    #[error("model \"{model}\" offers {offered}, not {wanted}")]
    NotOffered {
        /// Which.
        model: ModelId,
        /// What was asked.
        wanted: Method,
        /// What it does.
        offered: String,
    },
    /// The texts do not form pairs.
    #[error("{texts} texts do not form pairs: each needs two")]
    OddTexts {
        /// How many there are.
        texts: u32,
    },
    /// The lease cannot be used.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// No room for the result.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// No room for the work.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The work failed.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Texts cannot be made in this way.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// Texts were not made.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The message makes no sense.
    #[error("the request cannot be read")]
    Codec(#[from] CodecError),
    /// The texts make no sense.
    #[error(transparent)]
    Texts(#[from] TextBlockError),
    /// Bytes ride behind a request that has none.
    #[error("{len_bytes} bytes ride behind a request that takes none")]
    UnexpectedTail {
        /// How many.
        len_bytes: usize,
    },
    /// The result would be too large for a frame.
    #[error(
        "the rows take {len_bytes} bytes, more than the {limit} of an inline answer: embed fewer texts at a time"
    )]
    InlineTooLarge {
        /// What they take.
        len_bytes: u64,
        /// What fits.
        limit: u64,
    },
    /// The client cancelled.
    #[error("the request was cancelled")]
    Cancelled,
    /// The daemon is stopping.
    #[error("the daemon is stopping: connect again in a moment")]
    ShuttingDown,
    /// A part of the daemon broke its own rules.
    #[error("the daemon failed: see its log")]
    Defect(&'static str),
}

impl RequestError {
    /// What the client is told. Causes that concern the client's own files and wishes are told
    /// in full; the daemon's own defects only in its log.
    #[must_use]
    pub(crate) fn to_failure(&self) -> Failure {
        let code = self.code();
        let message = match self {
            Self::Load { retry_in: Some(wait), .. } => {
                let seconds = wait.as_secs_f64().ceil();
                format!("{} (the next try is in {seconds} s)", chain(self))
            }
            Self::Load { .. } => chain(self),
            // Without what the decoder says, which is for those who write one.
            Self::Codec(error) => format!("{self}: {error}"),
            Self::Job(JobError::Compute(_))
            | Self::Text(TextError::Compute(_) | TextError::Threads(_)) => chain(self),
            _ => self.to_string(),
        };
        Failure { code, message, retryable: self.is_retryable() }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::NotConfigured { .. } => ErrorCode::ModelNotConfigured,
            Self::Load { source, .. } => match **source {
                LoadFailure::Files(_)
                | LoadFailure::Custom { .. }
                | LoadFailure::NoSuchBuiltin(_)
                | LoadFailure::NoSuchType(_)
                | LoadFailure::OfAnotherType { .. }
                | LoadFailure::NoSource
                | LoadFailure::Dimension { .. }
                | LoadFailure::NoMethods
                | LoadFailure::NoHub(_)
                | LoadFailure::NotFetched(_)
                | LoadFailure::Hub(_) => ErrorCode::ModelLoadError,
                LoadFailure::Threads(_)
                | LoadFailure::OutOfMemory { .. }
                | LoadFailure::NoDevice(_) => ErrorCode::DeviceError,
                LoadFailure::Panicked => ErrorCode::Internal,
            },
            Self::NoPlace { verdict: PlacementVerdict::TooMany, .. } => ErrorCode::LimitExceeded,
            Self::NoPlace { .. } => ErrorCode::DeviceError,
            Self::NotShared(_) | Self::Reload(_) | Self::OddTexts { .. } | Self::Rows(_) => {
                ErrorCode::InvalidRequest
            }
            Self::Unload { source: UnloadError::Held(_) | UnloadError::Loading, .. } => {
                ErrorCode::ReferenceError
            }
            Self::Unload { source: UnloadError::NotConfigured, .. } => {
                ErrorCode::ModelNotConfigured
            }
            Self::Cache(_) => ErrorCode::CacheError,
            Self::NotAdmin => ErrorCode::PermissionDenied,
            Self::WrongKind { .. } | Self::NotOffered { .. } => ErrorCode::WrongModelType,
            Self::Lease(LeaseError::NotHeld(LeaseId(_))) => ErrorCode::ReferenceError,
            Self::Lease(LeaseError::TooMany(_)) => ErrorCode::LimitExceeded,
            Self::Segment(error) => match error {
                SegmentError::Credit { .. }
                | SegmentError::Total { .. }
                | SegmentError::NeverFits { .. } => ErrorCode::LimitExceeded,
                SegmentError::NoMemory { .. } | SegmentError::CutShort => ErrorCode::DeviceError,
                SegmentError::System { .. }
                | SegmentError::Unsealed
                | SegmentError::Shape { .. }
                | SegmentError::NumbersUsedUp
                | SegmentError::Interrupted => ErrorCode::Internal,
            },
            Self::Queue(QueueError::Full { .. }) => ErrorCode::Overloaded,
            Self::Queue(QueueError::Closed) | Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::Job(JobError::Compute(
                ComputeError::Tensor(_) | ComputeError::OutOfMemory { .. },
            )) => ErrorCode::DeviceError,
            Self::Job(_) | Self::Defect(_) => ErrorCode::Internal,
            Self::Options(OptionError::OverLimit { .. }) => ErrorCode::LimitExceeded,
            Self::Options(OptionError::Range { .. } | OptionError::Conflict { .. }) => {
                ErrorCode::InvalidRequest
            }
            Self::Text(error) => match error {
                TextError::Compute(error) => match **error {
                    ComputeError::Tensor(_) => ErrorCode::DeviceError,
                    _ => ErrorCode::Internal,
                },
                TextError::Threads(_) => ErrorCode::DeviceError,
                TextError::Panicked => ErrorCode::Internal,
                TextError::TooLarge { .. } => ErrorCode::LimitExceeded,
                TextError::NoToken
                | TextError::NoMask { .. }
                | TextError::NoCandidates
                | TextError::FewCandidates { .. } => ErrorCode::InvalidRequest,
            },
            Self::Texts(TextBlockError::TooMany { .. } | TextBlockError::TooLong { .. })
            | Self::InlineTooLarge { .. } => ErrorCode::LimitExceeded,
            Self::Codec(_) | Self::Texts(_) | Self::UnexpectedTail { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::Cancelled => ErrorCode::Cancelled,
        }
    }

    /// Why a waiter did not get its model.
    pub(crate) fn waiting(model: &ModelId, error: WaitError) -> Self {
        let model = model.clone();
        match error {
            WaitError::NotConfigured => Self::NotConfigured { model, known: String::new() },
            WaitError::Failed { cause, retry_in } => {
                Self::Load { model, source: cause, retry_in: Some(retry_in) }
            }
            WaitError::Refused { verdict, reasons } => Self::NoPlace { model, verdict, reasons },
            WaitError::Lease(error) => error.into(),
            WaitError::NotShared => Self::NotShared(model),
        }
    }

    fn is_retryable(&self) -> bool {
        if let Self::NoPlace { verdict, .. } = self {
            return *verdict != PlacementVerdict::Never;
        }
        if let Self::Load { source, .. } = self
            && let LoadFailure::Hub(error) = &**source
        {
            return error.is_retryable();
        }
        if matches!(self, Self::Segment(SegmentError::CutShort)) {
            return true;
        }
        match self.code() {
            ErrorCode::Overloaded | ErrorCode::ShuttingDown => true,
            // It may pass when results are dropped, by this client or by others.
            ErrorCode::LimitExceeded => matches!(
                self,
                Self::Segment(SegmentError::Credit { .. } | SegmentError::Total { .. })
            ),
            _ => false,
        }
    }
}
