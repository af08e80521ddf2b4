//! Shared memory for large results.
//!
//! ```text
//!                    one per connection                          one per daemon
//!  request ──────▶ SegmentPool::reserve ──grows──▶ Backend       TotalCredit (bytes of all segments)
//!                    │  Slot                        (memfd,      Spares (made ahead, never shown)
//!                    ▼                               posix)
//!                  Output::slot ──take_rows──▶ Row, Row, … to the workers, each written once
//!                    │  finish
//!                    ▼
//!                  SlotRef ──▶ the client reads it ──Free──▶ SegmentPool::free
//! ```
//!
//! Invariants:
//! - A segment belongs to one connection and is never given to another, not even afterwards.
//! - A range of a segment belongs to one [`Slot`] at a time: from `reserve` until either the slot
//!   is dropped with all of its [`Row`]s, or the client frees the slot that [`Output::finish`]
//!   handed over. A client cannot free a slot before that.
//! - A mapping lives as long as anything points into it, even if its pool is gone.
//! - Mapped memory is written in place. Rows for a segment that other processes could truncate
//!   (posix) are computed on the heap, and written to it as to a file when the result is finished.
//! - Unsafe code is in `mapping.rs`, `posix_segment.rs`, `slot.rs` and `rows.rs` only.

mod allocation;
mod backend;
mod credit;
mod error;
mod growth;
mod inline;
mod ledger;
mod mapping;
mod memfd;
mod memory;
mod pool;
mod posix;
mod posix_segment;
mod result;
mod rows;
mod sizes;
mod slot;
mod slots;
mod spares;
#[cfg(test)]
mod tests;

pub use crate::segment::backend::Backend;
pub use crate::segment::credit::TotalCredit;
pub use crate::segment::error::SegmentError;
pub use crate::segment::inline::{InlineCredit, InlineShare};
pub use crate::segment::memfd::MemfdBackend;
pub use crate::segment::memory::Segment;
pub use crate::segment::pool::{Announcement, SegmentPool};
pub use crate::segment::posix::{PosixBackend, sweep_leftovers};
pub use crate::segment::result::{Finished, FinishedSlot};
pub use crate::segment::rows::{Output, Row};
pub use crate::segment::slot::Slot;
pub use crate::segment::spares::{DEFAULT_SPARES, SPARE_LEN_BYTES, Spares};

use emberd_protocol::SegmentBackend;
use std::sync::Arc;

/// The backend of a kind.
#[must_use]
pub fn backend(kind: SegmentBackend) -> Arc<dyn Backend> {
    match kind {
        SegmentBackend::Memfd => Arc::new(MemfdBackend),
        SegmentBackend::Posix => Arc::new(PosixBackend::new()),
    }
}
