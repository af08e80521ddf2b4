//! From a decoded request to its answer: finds the handler, lets the floors below do the work, and
//! turns what comes back, errors included, into one answer.
//!
//! ```text
//! dispatch ─▶ models          acquire, release, preload, unload, why, plan, lists
//!          ─▶ embed           plan ─▶ destination ─▶ lookup ─▶ queue … ─▶ elements
//!          ─▶ rerank, generate, fill_mask
//!          ─▶ status
//! ```
//!
//! Nothing here knows sockets or frames on the wire: a handler gets the [`caller`] and the
//! [`state`] of the daemon, and returns an [`answer`] that owns what it promises.

mod admin;
pub(crate) mod answer;
pub(crate) mod caller;
pub(crate) mod dispatch;
mod embed;
pub(crate) mod events;
pub(crate) mod failure;
mod fill_mask;
mod generate;
pub(crate) mod in_flight;
pub(crate) mod latency;
mod models;
pub(crate) mod peer;
pub(crate) mod reload;
mod rerank;
pub(crate) mod state;
pub(crate) mod status;
mod target;
