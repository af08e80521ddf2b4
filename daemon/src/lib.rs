//! The daemon of emberd as a library.
//!
//! It reads no environment, forks nothing, installs no signal handler, prints nothing and never
//! exits: the program does that, and hands over a listening socket and a future that ends when it
//! is time to stop. A test can run ten daemons in one process.
//!
//! The folders are floors. Each imports only those below it (`tests/tidy` checks that):
//!
//! ```text
//! daemon        accepts connections, drains
//! connection    frames, handshake, the loop of one client, replies
//! request       from a request to its answer
//! models        which models are in memory, and why
//! batching      work of many clients, computed together
//! settings      what the daemon is configured with
//! cache, hub, segment    rows computed before; models by name; shared memory
//! ground        devices, errors, locks, memory
//! ```
//!
//! ```no_run
//! use emberd_daemon::{Daemon, settings::Settings};
//! use interprocess::local_socket::{GenericFilePath, ListenerOptions, prelude::*};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let name = "/tmp/emberd.sock".to_fs_name::<GenericFilePath>()?;
//! let listener = ListenerOptions::new().name(name).create_tokio()?;
//! let daemon = Daemon::builder(Settings::default()).build()?;
//! daemon.run(listener, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - Model work never runs on the runtime's threads.
//! - A lease never outlives its connection, nor does queued work or a slot.
//! - A result has its memory before it is computed, and the engine writes into it.
//! - Nothing a client sends is trusted; every failure leaves with one code, mapped in `request`.

mod batching;
pub mod cache;
mod connection;
mod daemon;
mod ground;
pub mod hub;
mod models;
mod request;
pub mod segment;
pub mod settings;

pub use crate::batching::{fill_mask, generation};
pub use crate::daemon::{Daemon, DaemonBuilder};
pub use crate::models::load_failure::CustomError;
pub use crate::models::{devices, lease, scheduler};
pub use emberd_engine as engine;
