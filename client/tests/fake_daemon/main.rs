//! The client against a daemon that the test plays itself, well or badly.
#![expect(clippy::unwrap_used, reason = "what fails in a test is shown as it is")]

/// Administration: preloading, unloading, settings, decisions.
mod admin;
/// The same for futures.
#[cfg(feature = "tokio")]
mod aio;
/// Answers in any order, to nobody, of the wrong kind.
mod answers;
/// The names and types that programs use.
mod api;
/// The daemon's part: a listener, frames, sealed memory.
mod daemon;
/// News of a load on its way.
mod events;
/// From no socket at all to a welcome.
mod handshake;
/// Leases: one release each, and none that hits another's.
mod leases;
/// The connection dies, and is made anew.
mod loss;
/// A daemon goes, and another comes: what is asked again, and what is not.
mod restart;
/// Memory that must not be believed.
mod segments;
/// Where rows are said to lie.
mod slots;
/// Nobody is there, and a program is to be started.
mod start;
/// Texts, masks and scores, and pieces on their way.
mod text;
/// Rows in the hands of the program.
mod views;
