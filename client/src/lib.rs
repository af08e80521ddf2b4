//! The thin client of emberd: leases on models that a daemon holds for the whole machine, and
//! embeddings read where the daemon wrote them.
//!
//! ```no_run
//! # fn main() -> Result<(), emberd_client::Error> {
//! let client = emberd_client::Client::connect()?;
//! let model = client.embedding_model("embedding")?; // a lease: loaded once, shared by all
//! let vectors = model.embed(&["text to embed", "another"])?; // rows over shared memory
//! let first: &[f32] = vectors.row(0);
//! # let _ = first;
//! drop(model); // releases; so does the end of the process
//! # Ok(())
//! # }
//! ```
//!
//! Blocking, on the standard library and the kernel alone: no runtime, no thread of its own. A
//! [`Client`] may be cloned and used from many threads; they share one connection, and whoever
//! waits for an answer reads for all. The feature `tokio` adds the same for futures, in `aio`.
//!
//! Where no daemon runs and no systemd starts one, [`Client::connect_or_start`] does.
//!
//! # Across a restart of the daemon
//! A call that finds the connection dead connects again, and waits for a daemon that is on its way
//! back ([`ClientBuilder::reconnect_patience`]). All leases are taken again with the first
//! request to the new daemon, and one that cannot be had again tells why when it is used. A
//! request that was cut off is repeated if that changes nothing
//! ([`ClientBuilder::repeat_requests`]). Results of the old daemon stay readable.
//!
//! # Invariants
//! - What the daemon sends is checked before it is believed: a segment must be sealed, a slot
//!   must lie within it, and no slot is handed out twice.
//! - [`Embeddings`] own what they show: they stay readable after the daemon died.
//! - Dropping anything never blocks.
//! - A request that changes something is sent once. When the connection dies before its answer,
//!   that is an [`Error::Transport`].

#[cfg(feature = "tokio")]
pub mod aio;
mod answer;
mod builder;
mod care;
mod client;
mod connection;
mod elements;
mod error;
mod held;
mod incoming;
mod lease;
mod line;
mod lookup;
mod model;
mod opening;
mod outbox;
mod question;
mod reader;
mod rerank;
mod segment;
mod socket;
mod start;
mod table;
mod text;
mod view;

pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{ConnectError, Error, ProtocolError, TransportError};
pub use lease::Lease;
pub use model::EmbeddingModel;
pub use rerank::{Ranked, RerankModel, Scores};
pub use start::{StartError, StartOptions};
pub use text::{Piece, TextModel};
pub use view::Embeddings;

pub use emberd_protocol as protocol;
pub use emberd_protocol::{
    EarlyStopping, ElementType, EmbedOptions, GenerateOptions, Generated, MasksFilled, Prompt,
    QuantizationRanges, ScoreActivation,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. Nothing in this package panics while it holds a lock, and what a panicking caller left
/// is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
