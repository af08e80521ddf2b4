//! The embedding cache: rows that were computed before are kept for a time, and used again bit for
//! bit.
//!
//! ```text
//! texts ──key──▶ memory ──hit──▶ copied into the result
//!                  │ ▲ miss ──▶ computed once for all requests that want it (batching)
//!                  │ └────────── insert ◀──┘
//!                  └──written later───▶ file (persist, store), read once at the start
//! ```
//!
//! An entry is the whole row of the model, before any cut or change of its elements. Its key
//! ([`RowKey`]) is a hash of everything that determines the row, and of its user: response
//! times reveal which texts were embedded before, so users share rows only if the settings say so.
//! Time is an argument; only the writer of the file has a thread.

mod clear_error;
mod clock;
mod embedding_cache;
mod key;
mod memory;
mod persist;
mod row;
mod settings;
mod store;

pub use crate::cache::clear_error::ClearError;
pub use crate::cache::embedding_cache::{CacheStats, EmbeddingCache};
pub(crate) use crate::cache::key::KeyHash;
pub use crate::cache::key::{KeySpace, RowKey};
pub use crate::cache::memory::Cleared;
pub use crate::cache::row::CachedRow;
pub use crate::cache::settings::CacheSettings;
