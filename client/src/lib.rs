//! The thin client of emberd: leases on models that a daemon holds for the whole machine, and
//! embeddings that are read from shared memory, where the daemon wrote them.
//!
//! ```no_run
//! # fn main() -> Result<(), emberd_client::Error> {
//! let client = emberd_client::Client::connect()?;
//! let model = client.embedding_model("embedding")?; // a lease: loaded once, shared by all
//! let vectors = model.embed(&["text to embed", "another"])?; // rows over shared memory
//! let first: &[f32] = vectors.row(0);
//! # let _ = first;
//! drop(model); // releases the lease; so does the end of the process
//! # Ok(())
//! # }
//! ```
//!
//! The client blocks. It needs the standard library and the kernel alone: no runtime, no thread of
//! its own. A [`Client`] may be cloned and used from many threads. They share one connection: one
//! of the threads that wait for a response reads for all of them. The feature `tokio` adds the same
//! API for futures, in `aio`.
//!
//! On a machine where neither systemd nor anybody else starts a daemon,
//! [`Client::connect_or_start`] does.
//!
//! # Across a restart of the daemon
//! A call that finds the connection dead connects again, and waits for a daemon that is restarting
//! ([`ClientBuilder::reconnect_patience`]). The first request to the new daemon renews all leases.
//! A lease that cannot be renewed reports the reason when it is used. A request that was
//! interrupted is repeated if repeating it changes nothing ([`ClientBuilder::repeat_requests`]).
//! Results of the old daemon stay readable.
//!
//! # Invariants
//! - The client checks everything that the daemon sends: a segment must be sealed, a slot must lie
//!   within its segment, and no slot may be handed out twice.
//! - [`Embeddings`] own their rows: they stay readable after the daemon died.
//! - Dropping a value never blocks.
//! - A request that changes something is sent once. When the connection dies before its response,
//!   the call fails with [`Error::Transport`].

#[cfg(feature = "tokio")]
pub mod aio;
mod blocking;
mod builder;
mod calls;
mod environment;
mod error;
mod options;
mod results;
mod segment;
mod sync;
mod transport;
mod wire;

pub use blocking::{Client, EmbeddingModel, Lease, RerankModel, TextModel};
pub use builder::ClientBuilder;
pub use error::{ConnectError, Error, ProtocolError, StartError, TransportError};
pub use results::{Embeddings, Piece, Ranked, Scores};
pub use transport::StartOptions;

pub use emberd_protocol as protocol;
pub use emberd_protocol::{
    EarlyStopping, ElementType, EmbedOptions, GenerateOptions, Generated, MasksFilled, Prompt,
    QuantizationRanges, ScoreActivation,
};
