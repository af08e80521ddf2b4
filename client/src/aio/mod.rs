//! The client for futures, on tokio. Names and code are those of the blocking client; only the waiting
//! differs.
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
//!   gives back what arrives for dropped futures, and writes what the socket does not take at once.
//!   It ends with the connection. Any tokio runtime with I/O enabled (`enable_io`) works, with one
//!   thread or many.
//! - Connecting, which is rare, runs on the runtime's threads for blocking work, at most once at a
//!   time for each client. So does the wait for a daemon that restarts or is started.
//! - When the runtime ends, its connections die. The next call, on another runtime, connects again.
//!
//! # Cancelling
//! Dropping a future cancels its request at any point. What still arrives for it goes back to the
//! daemon at once: a lease is released, a result's memory is freed. Until the daemon has answered,
//! the request counts against the number that may be in flight at the same time.
//!
//! Dropping a lease, a model or [`crate::Embeddings`] never blocks, needs no runtime, and may
//! happen on any thread.

mod admin;
mod call;
mod client;
mod driver;
mod embedding;
mod face;
mod lease;
mod rerank;
mod text;
mod text_stream;

pub use client::AsyncClient as Client;
pub use embedding::AsyncEmbeddingModel as EmbeddingModel;
pub use lease::AsyncLease as Lease;
pub use rerank::AsyncRerankModel as RerankModel;
pub use text::AsyncTextModel as TextModel;
pub use text_stream::TextStream;
