//! The client against a daemon that the test plays itself, well or badly.
#![expect(clippy::unwrap_used, reason = "what fails in a test is shown as it is")]

/// Answers in any order, to nobody, of the wrong kind.
mod answers;
/// The daemon's part: a listener, frames, sealed memory.
mod daemon;
/// From no socket at all to a welcome.
mod handshake;
/// Leases: one release each, and none that hits another's.
mod leases;
/// The connection dies, and is made anew.
mod loss;
/// Memory that must not be believed.
mod segments;
/// Where rows are said to lie.
mod slots;
/// Rows in the hands of the program.
mod views;
