//! Which models are in memory, on which device, and for whom. Pure: no clock, no thread, no I/O.
//!
//! ```text
//!              asked for             room found             loaded
//! Configured ────────────▶ prepared ──────────────▶ Loading ──────────▶ Ready ⇄ Idle
//!     ▲  ▲                                             │                  │       │ idle too long,
//!     │  └──────────── Failed, until its retry ◀───────┘ failed           │       │ evicted,
//!     │                                                 unload requested  ▼       ▼ unload requested
//!     └──────────────────────────────────────────────── Unloading ◀─── Draining ──┘
//! ```
//! Each request for a model becomes a waiter. Each event ends in `settle`, which asks for every
//! waiter, in the order of arrival, what can be done for it now. Hence no wake-up can be lost or
//! reach the wrong waiter: `settle` never relies on an earlier decision. An instance that is
//! leaving is in a state of its own and accepts no new work.
//!
//! A waiter that waits for room keeps later waiters from taking that room.

mod device;
mod events;
mod explain;
mod ids;
mod instances;
mod journal;
mod model_state;
mod placement;
mod policy;
mod retry;
mod settle;
mod state;
#[cfg(test)]
mod tests;
mod types;
mod waiters;

pub use crate::ground::device::{Device, DeviceChoice};
pub use crate::models::scheduler::device::{DeviceFigures, Devices};
pub use crate::models::scheduler::ids::{InstanceId, WaiterId};
pub use crate::models::scheduler::instances::{Instance, InstanceState};
pub use crate::models::scheduler::placement::{
    Placement, PlacementRequest, PlacementVerdict, Residency, Resident, place,
};
pub use crate::models::scheduler::policy::{ModelPolicy, Policy};
pub use crate::models::scheduler::retry::FailedLoad;
pub use crate::models::scheduler::state::Scheduler;
pub use crate::models::scheduler::types::{
    Action, Granted, LeaseUse, UnloadError, WaitError, Want,
};
pub use crate::settings::Change;
