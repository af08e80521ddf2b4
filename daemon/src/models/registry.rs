//! The models of this daemon. Carries out what the
//! [`Scheduler`](crate::models::scheduler::Scheduler) decides, and reports the outcome to it.
//!
//! One lock covers the decisions and the list of models in memory. It is never held while files are
//! read, a model is loaded or freed, or a waiter is answered. Loads and unloads run on threads of
//! their own, so a client that leaves while it waits stops nothing, and a slow load delays no other
//! model.

mod acquire;
mod control;
mod grants;
mod policy;
mod snapshot;
mod state;
mod threads;
mod waiting;

pub(crate) use crate::models::registry::grants::{HeldLease, Use};
pub(crate) use crate::models::registry::snapshot::ModelSnapshot;
pub(crate) use crate::models::registry::state::Registry;
pub(crate) use crate::models::registry::waiting::Events;
