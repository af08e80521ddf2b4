//! The blocking face: no runtime, no thread.

mod admin;
mod client;
mod embedding;
mod face;
mod lease;
mod rerank;
mod text;

pub use client::Client;
pub use embedding::EmbeddingModel;
pub use lease::Lease;
pub use rerank::RerankModel;
pub use text::TextModel;
