//! What every floor stands on: bytes, locks, memory.

pub(crate) mod bytes;
pub(crate) mod connection_id;
pub(crate) mod device;
pub(crate) mod error_chain;
pub(crate) mod headroom;
pub(crate) mod memory;
pub(crate) mod sync;
