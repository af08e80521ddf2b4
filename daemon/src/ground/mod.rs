//! What every floor uses: byte counts, times, locks, memory, error chains. It imports
//! nothing of the other floors.

pub(crate) mod bytes;
pub(crate) mod connection_id;
pub(crate) mod device;
pub(crate) mod error_chain;
pub(crate) mod headroom;
pub(crate) mod histogram;
pub(crate) mod memory;
pub(crate) mod sync;
pub(crate) mod time;
