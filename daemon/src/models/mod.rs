//! Which models are in memory: settings, loading, leases, placement.

pub mod devices;
pub mod lease;
pub(crate) mod loaded;
pub(crate) mod loader;
pub(crate) mod parts;
pub(crate) mod registry;
pub mod scheduler;
