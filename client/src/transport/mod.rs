//! From a path to a connection, and from a dead connection to the next one.

pub(crate) mod connect;
pub(crate) mod find_program;
mod handshake;
pub(crate) mod link;
pub(crate) mod renewals;
pub(crate) mod session;
pub(crate) mod spawn;

pub use spawn::StartOptions;
