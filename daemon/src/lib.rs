//! The daemon of emberd as a library.
//!
//! It reads no environment, forks nothing, installs no signal handler, prints nothing and never
//! exits: the program does that, and hands over a listening socket and a future that ends when it
//! is time to stop. A test can run ten daemons in one process.
//!
//! ```text
//! connection → session → dispatch → lease, registry → queue → worker (engine) → segment → reply
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
//! - Only this package knows candle; model work never runs on the runtime's threads.
//! - A lease never outlives its connection, nor does queued work or a slot.
//! - A result has its home before it is computed, and the engine writes into it.
//! - Nothing a client sends is believed; every failure leaves with one code, mapped in `error`.

pub mod cache;
mod connection;
mod daemon;
pub mod devices;
mod dispatch;
mod embed;
pub mod engine;
mod error;
mod fair_queue;
pub mod fill_mask;
pub mod generate;
pub mod hub;
mod job;
mod latency;
pub mod lease;
mod loader;
mod lookup;
mod memory;
mod model;
mod news;
mod peer;
mod queue;
mod registry;
mod reload;
mod rerank;
mod row_shape;
pub mod scheduler;
pub mod segment;
mod session;
pub mod settings;
mod status;
mod sync;
mod text;
mod text_job;
mod worker;

pub use daemon::{Daemon, DaemonBuilder};
pub use loader::CustomError;
