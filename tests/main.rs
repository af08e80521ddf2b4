//! The system from outside: the real program, real sockets, several real processes.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail where they are wrong")]

/// Users of one machine.
mod access;
/// Rows that were computed before.
mod cache;
/// Hundreds of clients that connect and die.
mod churn;
/// The command line: input, output and exit codes.
mod cli;
/// Each error code, from its cause to the value that a client sees.
mod failure;
/// Texts from texts, by the built-in model that can be checked exactly.
mod generate;
/// Peers that are silent, send garbage, or arrive in crowds.
mod hostile;
/// Models by name.
mod hub;
/// Counting, sharing, release, and the death of a holder.
mod lease;
/// Loading, unloading, evicting, and how it is reported.
mod life;
/// The list of promises, and their proofs.
mod mission;
/// Options of rows, set with each request.
mod options;
/// Random steps of several processes, against a simple model of the rules.
mod random;
/// Settings that are read again while the daemon runs.
mod reload;
/// Scores of pairs, and candidates for masks, against the reference.
mod rerank;
/// The daemon dies and restarts; two daemons want the same socket.
mod restart;
/// Rows: inline and through shared memory, their limits, and how their memory is returned.
mod result;
/// Stopping by signal: running work finishes, and nothing is left behind.
mod shutdown;
/// Starting a daemon.
mod start;
mod support;
/// Units under a real user manager.
mod systemd;
/// Rules for the source tree: dependencies between packages, files with unsafe code.
mod tidy;
