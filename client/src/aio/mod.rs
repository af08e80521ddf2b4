//! The same client for futures, on tokio: the same names, and the same code for all but waiting.
//!
//! ```no_run
//! # async fn example() -> Result<(), emberd_client::Error> {
//! let client = emberd_client::aio::Client::connect().await?;
//! let model = client.embedding_model("embedding").await?;
//! let vectors = model.embed(&["text to embed", "another"]).await?; // rows over shared memory
//! let first: &[f32] = vectors.row(0);
//! # let _ = first;
//! # Ok(())
//! # }
//! ```
//!
//! # What runs where
//! - Each connection has one task, spawned on the runtime that connected. It reads for all futures,
//!   takes in what belongs to nobody any more, and writes what the socket does not take at once.
//!   It ends with the connection. Any runtime of tokio will do whose I/O is enabled
//!   (`enable_io`), with one thread or many.
//! - Connecting, which is rare, runs on the runtime's threads for blocking work, at most one at a
//!   time for each client. So does the wait for a daemon that restarts or is started.
//! - When the runtime ends, its connections die. The next call, on another runtime, connects again.
//!
//! # Cancelling
//! A future that is dropped cancels its request, wherever it was. What comes for it nevertheless
//! goes back to the daemon at once: a lease is released, a result's memory is freed. Until the
//! daemon has answered, the request counts as one of those that may be under way at the same time.
//!
//! Dropping a lease, a model or [`crate::Embeddings`] never blocks, needs no runtime, and may
//! happen on any thread.

mod call;
mod care;
mod client;
mod driver;
mod lease;
mod model;
mod rerank;
mod text;

pub use client::Client;
pub use lease::Lease;
pub use model::EmbeddingModel;
pub use rerank::RerankModel;
pub use text::{TextModel, TextStream};
