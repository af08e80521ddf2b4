//! One connection: frames, handshake, the session's loop, replies.
//!
//! ```text
//! accept ─▶ handshake ─▶ session ──dispatch──▶ request
//!                          │  ▲                   │ answer, events
//!              frames ◀────┴──┴───── reply ◀──────┘
//! ```
//!
//! The end of a session, whatever caused it, aborts the connection's requests and takes it off the
//! daemon's list, which ends its leases. Nothing else cleans up after clients.

mod credentials;
mod error;
mod frames;
mod handshake;
mod reply;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use crate::connection::handshake::turn_away;
pub(crate) use crate::connection::session::serve;
