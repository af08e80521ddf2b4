//! Why a model could not be acquired.

use crate::models::lease::LeaseError;
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::{PlacementVerdict, WaitError};
use emberd_protocol::ModelId;
use std::sync::Arc;
use std::time::Duration;

/// Why a lease, a use, a preload or a plan of a model failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    /// No model has this id.
    #[error("model \"{0}\" is not configured")]
    NotConfigured(ModelId),
    /// Its load failed.
    #[error("model \"{model}\" cannot be loaded")]
    Load {
        /// The model that was requested.
        model: ModelId,
        /// The failure of its last load.
        source: Arc<LoadFailure>,
        /// The time until the next attempt; `None` if none is scheduled.
        retry_in: Option<Duration>,
    },
    /// No device can take it.
    #[error("model \"{model}\" cannot be placed: {}", reasons.join("; "))]
    Refused {
        /// The model that was requested.
        model: ModelId,
        /// Whether room may come later, or never.
        verdict: PlacementVerdict,
        /// What each device lacks.
        reasons: Vec<String>,
    },
    /// It is not shared, so it cannot be preloaded.
    #[error("model \"{0}\" is not shared")]
    NotShared(ModelId),
    /// The connection holds too many leases, or does not hold this one.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The daemon broke one of its own rules.
    #[error("{0}")]
    Defect(&'static str),
}

impl AcquireError {
    /// The error of a waiter for this model.
    pub(super) fn of_waiter(model: &ModelId, error: WaitError) -> Self {
        let model = model.clone();
        match error {
            WaitError::NotConfigured => Self::NotConfigured(model),
            WaitError::Failed { cause, retry_in } => {
                Self::Load { model, source: cause, retry_in: Some(retry_in) }
            }
            WaitError::Refused { verdict, reasons } => Self::Refused { model, verdict, reasons },
            WaitError::Lease(error) => Self::Lease(error),
            WaitError::NotShared => Self::NotShared(model),
        }
    }
}
