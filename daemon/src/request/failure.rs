//! Why requests fail, and the only mapping from the daemon's errors to what a client receives.

use crate::batching::generation::OptionError;
use crate::batching::queue::QueueError;
use crate::batching::row_job::JobError;
use crate::batching::text_job::TextError;
use crate::cache::ClearError;
use crate::ground::error_chain::chain;
use crate::models::acquire_error::AcquireError;
use crate::models::lease::LeaseError;
use crate::models::load_failure::LoadFailure;
use crate::models::loaded::NotOffered;
use crate::models::scheduler::{PlacementVerdict, UnloadError};
use crate::request::embed::plan::EmbedOptionsError;
use crate::request::reload::ReloadError;
use crate::segment::SegmentError;
use emberd_engine::ComputeError;
use emberd_protocol::{CodecError, ErrorCode, Failure, Method, ModelId, ModelKind, TextBlockError};
use std::sync::Arc;
use std::time::Duration;

/// Why a request is answered with a failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    // ---- the request itself
    /// The message makes no sense.
    #[error("the request cannot be read")]
    Codec(#[from] CodecError),
    /// The texts make no sense.
    #[error(transparent)]
    Texts(#[from] TextBlockError),
    /// Bytes follow a request that takes none.
    #[error("{len_bytes} bytes follow a request that takes none")]
    UnexpectedTail { len_bytes: usize },
    /// The texts do not form pairs.
    #[error("{texts} texts do not form pairs: each pair needs two")]
    OddTexts { texts: u32 },
    /// The options of an embed request cannot be met.
    #[error(transparent)]
    EmbedOptions(#[from] EmbedOptionsError),
    /// The options of a generate request cannot be met.
    #[error(transparent)]
    GenerateOptions(#[from] OptionError),
    /// The model is of another kind.
    #[error("model \"{model}\" is of kind {is}, not {wanted}")]
    WrongKind { model: ModelId, is: ModelKind, wanted: ModelKind },
    /// The model does not offer the method.
    #[error("model \"{model}\" offers {offered}, not {wanted}")]
    NotOffered { model: ModelId, wanted: Method, offered: String },
    /// The client may not ask for this.
    #[error("only the daemon's own user and root may do this")]
    NotAdmin,
    /// The client cancelled.
    #[error("the request was cancelled")]
    Cancelled,

    // ---- the models floor: errors of acquiring, unloading and planning are converted here
    /// No such model.
    #[error("model \"{model}\" is not configured: this daemon knows {known}")]
    NotConfigured { model: ModelId, known: String },
    /// The model cannot be loaded.
    #[error("model \"{model}\" cannot be loaded")]
    Load {
        model: ModelId,
        source: Arc<LoadFailure>,
        /// When it is tried again.
        retry_in: Option<Duration>,
    },
    /// No device has room for the model.
    #[error("model \"{model}\" cannot be loaded: {}; see `emberd why {model}`", reasons.join("; "))]
    NoRoom {
        model: ModelId,
        verdict: PlacementVerdict,
        /// A reason for each device.
        reasons: Vec<String>,
    },
    /// The model is not shared, so there is nothing to preload.
    #[error(
        "model \"{0}\" is not shared: each lease loads its own instance, so there is none to preload"
    )]
    NotShared(ModelId),
    /// The model cannot be unloaded.
    #[error("model \"{model}\" cannot be unloaded: {source}")]
    Unload { model: ModelId, source: UnloadError },
    /// The lease cannot be used.
    #[error(transparent)]
    Lease(#[from] LeaseError),

    // ---- the work
    /// No room for the work.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Rows or scores were not computed.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Texts or masks were not computed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// No room for the result.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The result does not fit a frame.
    #[error(
        "the rows take {len_bytes} bytes, more than the {limit} that an inline answer may have: embed fewer texts at a time"
    )]
    InlineTooLarge { len_bytes: u64, limit: u64 },

    // ---- the daemon
    /// The settings cannot be read again.
    #[error("the settings were not changed: {0}")]
    Reload(#[from] ReloadError),
    /// The file of the embedding cache could not be cleared.
    #[error("the cache in memory was cleared, but its file may not have been: {0}")]
    Cache(#[from] ClearError),
    /// The daemon is stopping.
    #[error("the daemon is stopping: connect again in a moment")]
    ShuttingDown,
    /// A part of the daemon broke its own rules.
    #[error("the daemon failed: see its log")]
    Defect(&'static str),
}

impl RequestError {
    /// What the client is told. Causes in the user's own files and options are reported in
    /// full; causes of defects are in the daemon's log only.
    #[must_use]
    pub(crate) fn to_failure(&self) -> Failure {
        let (code, retryable) = self.code();
        let message = match self {
            Self::Load { retry_in: Some(wait), .. } => {
                let seconds = wait.as_secs_f64().ceil();
                format!("{} (the next attempt is in {seconds} s)", chain(self))
            }
            Self::Load { retry_in: None, .. }
            | Self::Job(JobError::Compute(_))
            | Self::Text(TextError::Compute(_) | TextError::Threads(_)) => chain(self),
            // Without the decoder's own causes, which help only those who write a decoder.
            Self::Codec(error) => format!("{self}: {error}"),
            Self::Texts(_)
            | Self::UnexpectedTail { .. }
            | Self::OddTexts { .. }
            | Self::EmbedOptions(_)
            | Self::GenerateOptions(_)
            | Self::WrongKind { .. }
            | Self::NotOffered { .. }
            | Self::NotAdmin
            | Self::Cancelled
            | Self::NotConfigured { .. }
            | Self::NoRoom { .. }
            | Self::NotShared(_)
            | Self::Unload { .. }
            | Self::Lease(_)
            | Self::Queue(_)
            | Self::Job(JobError::Panicked)
            | Self::Text(
                TextError::Panicked
                | TextError::NoToken
                | TextError::TooLarge { .. }
                | TextError::NoMask { .. }
                | TextError::NoCandidates
                | TextError::FewCandidates { .. },
            )
            | Self::Segment(_)
            | Self::InlineTooLarge { .. }
            | Self::Reload(_)
            | Self::Cache(_)
            | Self::ShuttingDown
            | Self::Defect(_) => self.to_string(),
        };
        Failure { code, message, retryable }
    }

    /// The code, and whether the same request may succeed later.
    fn code(&self) -> (ErrorCode, bool) {
        match self {
            Self::Codec(_)
            | Self::UnexpectedTail { .. }
            | Self::OddTexts { .. }
            | Self::EmbedOptions(_)
            | Self::NotShared(_) => (ErrorCode::InvalidRequest, FINAL),
            Self::Texts(error) => (code_of_texts(error), FINAL),
            Self::GenerateOptions(error) => (code_of_options(error), FINAL),
            Self::WrongKind { .. } | Self::NotOffered { .. } => (ErrorCode::WrongModelType, FINAL),
            Self::NotAdmin => (ErrorCode::PermissionDenied, FINAL),
            Self::Cancelled => (ErrorCode::Cancelled, FINAL),
            Self::NotConfigured { .. } => (ErrorCode::ModelNotConfigured, FINAL),
            Self::Load { source, .. } => code_of_load(source),
            Self::NoRoom { verdict, .. } => code_of_placement(verdict),
            Self::Unload { source, .. } => match source {
                UnloadError::Held(_) | UnloadError::Loading => (ErrorCode::ReferenceError, FINAL),
                UnloadError::NotConfigured => (ErrorCode::ModelNotConfigured, FINAL),
            },
            Self::Lease(LeaseError::NotHeld(_)) => (ErrorCode::ReferenceError, FINAL),
            Self::Lease(LeaseError::TooMany(_)) => (ErrorCode::LimitExceeded, FINAL),
            Self::Queue(QueueError::Full { .. }) => (ErrorCode::Overloaded, RETRYABLE),
            Self::Queue(QueueError::Closed) | Self::ShuttingDown => {
                (ErrorCode::ShuttingDown, RETRYABLE)
            }
            Self::Job(JobError::Compute(error)) => (code_of_compute(error), FINAL),
            Self::Text(error) => (code_of_text(error), FINAL),
            Self::Segment(error) => code_of_segment(error),
            Self::InlineTooLarge { .. } => (ErrorCode::LimitExceeded, FINAL),
            Self::Reload(ReloadError::NoReader | ReloadError::Read(_)) => {
                (ErrorCode::InvalidRequest, FINAL)
            }
            Self::Cache(_) => (ErrorCode::CacheError, FINAL),
            Self::Reload(ReloadError::Panicked)
            | Self::Job(JobError::Panicked)
            | Self::Defect(_) => (ErrorCode::Internal, FINAL),
        }
    }
}

impl From<AcquireError> for RequestError {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::NotConfigured(model) => {
                Self::NotConfigured { model, known: String::new() }
            }
            AcquireError::Load { model, source, retry_in } => {
                Self::Load { model, source, retry_in }
            }
            AcquireError::Refused { model, verdict, reasons } => {
                Self::NoRoom { model, verdict, reasons }
            }
            AcquireError::NotShared(model) => Self::NotShared(model),
            AcquireError::Lease(error) => Self::Lease(error),
            AcquireError::Defect(what) => Self::Defect(what),
        }
    }
}

impl From<NotOffered> for RequestError {
    fn from(NotOffered { model, wanted, offered }: NotOffered) -> Self {
        Self::NotOffered { model, wanted, offered }
    }
}

/// The same request fails again until somebody changes something.
const FINAL: bool = false;

/// The same request may succeed later.
const RETRYABLE: bool = true;

fn code_of_texts(error: &TextBlockError) -> ErrorCode {
    match error {
        TextBlockError::TooMany { .. } | TextBlockError::TooLong { .. } => ErrorCode::LimitExceeded,
        TextBlockError::LengthsDoNotFit
        | TextBlockError::NotUtf8
        | TextBlockError::SplitCharacter { .. } => ErrorCode::InvalidRequest,
    }
}

fn code_of_options(error: &OptionError) -> ErrorCode {
    match error {
        OptionError::OverLimit { .. } => ErrorCode::LimitExceeded,
        OptionError::Range { .. } | OptionError::Conflict { .. } => ErrorCode::InvalidRequest,
    }
}

fn code_of_load(failure: &LoadFailure) -> (ErrorCode, bool) {
    match failure {
        LoadFailure::Hub(error) => (ErrorCode::ModelLoadError, error.is_retryable()),
        LoadFailure::Files(_)
        | LoadFailure::Custom { .. }
        | LoadFailure::NoSuchBuiltin(_)
        | LoadFailure::NoSuchType(_)
        | LoadFailure::OfAnotherType { .. }
        | LoadFailure::NoSource
        | LoadFailure::Dimension { .. }
        | LoadFailure::NoMethods
        | LoadFailure::NoHub(_)
        | LoadFailure::NotFetched(_) => (ErrorCode::ModelLoadError, FINAL),
        LoadFailure::Threads(_) | LoadFailure::OutOfMemory { .. } | LoadFailure::NoDevice(_) => {
            (ErrorCode::DeviceError, FINAL)
        }
        LoadFailure::Panicked => (ErrorCode::Internal, FINAL),
    }
}

fn code_of_placement(verdict: &PlacementVerdict) -> (ErrorCode, bool) {
    match verdict {
        PlacementVerdict::Never => (ErrorCode::DeviceError, FINAL),
        // They pass when others release what they hold.
        PlacementVerdict::TooMany => (ErrorCode::LimitExceeded, RETRYABLE),
        PlacementVerdict::NoMemory
        // These refuse nothing.
        | PlacementVerdict::Load { .. }
        | PlacementVerdict::Wait
        | PlacementVerdict::MakeRoom(_) => (ErrorCode::DeviceError, RETRYABLE),
    }
}

fn code_of_text(error: &TextError) -> ErrorCode {
    match error {
        TextError::Compute(error) => code_of_compute(error),
        TextError::Threads(_) => ErrorCode::DeviceError,
        TextError::Panicked => ErrorCode::Internal,
        TextError::TooLarge { .. } => ErrorCode::LimitExceeded,
        TextError::NoToken
        | TextError::NoMask { .. }
        | TextError::NoCandidates
        | TextError::FewCandidates { .. } => ErrorCode::InvalidRequest,
    }
}

/// The same for rows, scores, texts and masks.
fn code_of_compute(error: &ComputeError) -> ErrorCode {
    match error {
        ComputeError::Tensor(_) | ComputeError::OutOfMemory { .. } => ErrorCode::DeviceError,
        ComputeError::NoPairs
        | ComputeError::Generation(_)
        | ComputeError::Tokenizer(_)
        | ComputeError::RowCount { .. }
        | ComputeError::RowLength { .. } => ErrorCode::Internal,
    }
}

fn code_of_segment(error: &SegmentError) -> (ErrorCode, bool) {
    match error {
        // They pass when this client or others drop results.
        SegmentError::Credit { .. } | SegmentError::Total { .. } => {
            (ErrorCode::LimitExceeded, RETRYABLE)
        }
        SegmentError::NeverFits { .. } => (ErrorCode::LimitExceeded, FINAL),
        SegmentError::NoMemory { .. } => (ErrorCode::DeviceError, FINAL),
        SegmentError::CutShort => (ErrorCode::DeviceError, RETRYABLE),
        SegmentError::System { .. }
        | SegmentError::Unsealed
        | SegmentError::Shape { .. }
        | SegmentError::NumbersUsedUp
        | SegmentError::Interrupted => (ErrorCode::Internal, FINAL),
    }
}
