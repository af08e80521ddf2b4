//! The scheduler's vocabulary: wants, actions and answers.

use crate::ground::connection_id::ConnectionId;
use crate::ground::device::Device;
use crate::models::lease::LeaseError;
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::ids::{InstanceId, WaiterId};
use crate::models::scheduler::placement::PlacementVerdict;
use emberd_protocol::{LeaseId, ModelId};
use std::sync::Arc;
use std::time::Duration;

/// What a waiter asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A lease for a connection.
    Lease(ConnectionId),
    /// The model for one request.
    Use,
    /// The model of a lease for one request, after the lease's instance was unloaded.
    UseOfLease(LeaseId),
    /// The model in memory.
    Preload,
}

/// Work for the caller, which reports the outcome.
#[derive(Debug, Clone)]
pub enum Action {
    /// Find a model's files and compute its need; then call
    /// [`Scheduler::prepared`](super::Scheduler::prepared).
    Prepare {
        /// The model whose files are to be found.
        model: ModelId,
    },
    /// Load an instance; then call [`Scheduler::loaded`](super::Scheduler::loaded).
    Load {
        /// The instance to be.
        instance: InstanceId,
        /// Its model.
        model: ModelId,
        /// The device that takes it.
        device: Device,
        /// The memory that it needs there, in bytes.
        bytes: u64,
    },
    /// Unload an instance; once its memory is free call
    /// [`Scheduler::unloaded`](super::Scheduler::unloaded).
    Unload {
        /// The instance to unload.
        instance: InstanceId,
    },
    /// Give a waiter what it asked for.
    Grant {
        /// The waiter that is served.
        waiter: WaiterId,
        /// What it gets.
        granted: Granted,
    },
    /// Turn a waiter down.
    Fail {
        /// The waiter that is refused.
        waiter: WaiterId,
        /// The reason, which the client gets.
        error: WaitError,
    },
    /// Tell a waiter that other instances must be unloaded first.
    WaitingForRoom {
        /// The waiter to be informed.
        waiter: WaiterId,
    },
}

/// What a waiter gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// A lease, and the instance that it is bound to.
    Lease(LeaseId, InstanceId),
    /// An instance for one request; ended by [`Scheduler::end_use`](super::Scheduler::end_use).
    Use(InstanceId),
    /// The model is in memory.
    Preloaded {
        /// The instance in memory.
        instance: InstanceId,
        /// Whether it was in memory before.
        was_loaded: bool,
    },
}

/// What a request on a lease gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseUse {
    /// Its instance; ended by [`Scheduler::end_use`](super::Scheduler::end_use).
    Now(InstanceId),
    /// Its instance was unloaded and is being loaded again.
    Wait(WaiterId),
}

/// Why a waiter cannot have its model.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WaitError {
    /// No model has this id.
    #[error("the model is not configured")]
    NotConfigured,
    /// Its load failed; the next attempt is scheduled.
    #[error("it cannot be loaded; the next attempt is in {} s", retry_in.as_secs_f64().ceil())]
    Failed {
        /// The failure of the last load.
        cause: Arc<LoadFailure>,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// No device can take it.
    #[error("{}", reasons.join("; "))]
    Refused {
        /// The kind of refusal.
        verdict: PlacementVerdict,
        /// Why, device by device.
        reasons: Vec<String>,
    },
    /// The connection holds too many leases, or the lease has ended.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A model that is not shared cannot be loaded before its holder asks for it.
    #[error("it is not shared: each lease loads its own instance, so there is none to preload")]
    NotShared,
}

/// Why a model cannot be unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnloadError {
    /// No model has this id.
    #[error("the model is not configured")]
    NotConfigured,
    /// Leases hold it.
    #[error("{}", held_by(*.0))]
    Held(usize),
    /// It is being loaded for a waiter.
    #[error("it is being loaded for another request: wait until it is loaded")]
    Loading,
}

fn held_by(leases: usize) -> String {
    match leases {
        1 => "1 lease holds it; see `emberd status --wide`".into(),
        leases => format!("{leases} leases hold it; see `emberd status --wide`"),
    }
}
