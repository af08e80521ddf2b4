//! The client against a fake daemon that each test scripts, whether or not it keeps to the protocol.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails its test")]

/// Administration: preloading, unloading, settings, decisions.
mod admin;
/// The same for futures.
#[cfg(feature = "tokio")]
mod aio;
/// Responses in any order, without a request, of the wrong kind.
mod answers;
/// The names and types that programs use.
mod api;
/// The fake daemon: a listener, frames, sealed memory.
mod daemon;
/// Events that report the progress of a load.
mod events;
/// Connecting, from a missing socket to a welcome.
mod handshake;
/// Leases: each is released once, and never in place of another.
mod leases;
/// Connections that die, and calls that connect again.
mod loss;
/// Daemons that restart: which requests are repeated, and which are not.
mod restart;
/// Segments that must not be trusted.
mod segments;
/// Slots that must not be trusted.
mod slots;
/// Starting a daemon if none runs.
mod start;
/// Generated texts and their pieces, masks, scores.
mod text;
/// Rows that the program holds.
mod views;
