//! One connection: frames, handshake, session.

pub(crate) mod frames;
pub(crate) mod peer;
pub(crate) mod session;
