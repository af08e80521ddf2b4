//! The system from outside: the real program, real sockets, several real processes.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail where they are wrong")]

/// Users of one machine.
mod access;
/// Rows that were computed before.
mod cache;
/// Clients that come and die by the hundred.
mod churn;
/// What a user types, and what comes back.
mod cli;
/// Each error code, from its cause to the value that a client sees.
mod failure;
/// Texts from texts, by the built-in model that can be checked exactly.
mod generate;
/// Peers that say nothing, say garbage, or come in crowds.
mod hostile;
/// Models by name.
mod hub;
/// Counting, sharing, release, and the death of a holder.
mod lease;
/// Loading, unloading, evicting, and what is told of it.
mod life;
/// The list of promises, and their proofs.
mod mission;
/// What rows shall be, asked for with each request.
mod options;
/// Random steps of several processes, against a simple model of the rules.
mod random;
/// Settings that are read again while the daemon runs.
mod reload;
/// Scores of pairs, and candidates for masks, against the reference.
mod rerank;
/// The daemon dies and comes back; two want the same socket.
mod restart;
/// Rows: inline and through shared memory, their limits and their way back.
mod result;
/// Stopping by signal: what runs may end, nothing is left.
mod shutdown;
/// How a daemon comes to be.
mod start;
mod support;
/// Units under a real user manager.
mod systemd;
/// Promises about the tree itself: who depends on whom, where unsafe code may stand.
mod tidy;
