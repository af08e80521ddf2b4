//! What every floor stands on: bytes, locks, memory.

pub(crate) mod bytes;
pub(crate) mod headroom;
pub(crate) mod memory;
pub(crate) mod sync;
