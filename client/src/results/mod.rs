//! What calls return: rows, scores, pieces of texts.

mod elements;
pub(crate) mod embeddings;
pub(crate) mod piece;
pub(crate) mod scores;

pub use embeddings::Embeddings;
pub use piece::Piece;
pub use scores::{Ranked, Scores};
