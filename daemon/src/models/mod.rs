//! Which models are in memory: loading, leases, placement, unloading.

pub(crate) mod acquire_error;
pub(crate) mod counters;
pub mod devices;
pub mod lease;
pub(crate) mod load_failure;
mod load_target;
pub(crate) mod loaded;
pub(crate) mod loader;
pub(crate) mod parts;
pub(crate) mod registry;
pub(crate) mod residence;
pub mod scheduler;
pub(crate) mod slot;
