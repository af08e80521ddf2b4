//! Shared memory for large results.
//!
//! ```text
//!                    one per connection                          one per daemon
//!  request ──────▶ SegmentPool::reserve ──grows──▶ Backend       TotalCredit (bytes of all segments)
//!                    │  Slot                        (memfd,      Spares (made ahead, never seen)
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
//!   is dropped with all of its [`Row`]s, or the client frees what [`Output::finish`] gave it.
//!   A client cannot free a slot that it was not yet given.
//! - A mapping lives as long as anything points into it, whatever becomes of its pool.
//! - What is mapped is written in place; rows for a segment that others could cut short (posix) are
//!   computed on the heap, and written to it as to a file when the result is finished.
//! - Unsafe code is in `mapping.rs`, `posix.rs`, `slot.rs` and `rows.rs`, nowhere else.

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod credit;
#[cfg(test)]
pub(crate) mod growth;
pub(crate) mod inline;
pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod pool;
pub(crate) mod posix;
pub(crate) mod rows;
pub(crate) mod sizes;
pub(crate) mod slot;
pub(crate) mod slots;
pub(crate) mod spares;

pub use crate::segment::credit::TotalCredit;
pub use crate::segment::inline::{InlineCredit, InlineShare};
pub use crate::segment::mapping::Segment;
pub use crate::segment::memfd::MemfdBackend;
pub use crate::segment::pool::{Announcement, SegmentPool};
pub use crate::segment::posix::{PosixBackend, sweep_leftovers};
pub use crate::segment::rows::{Finished, Output, Row};
pub use crate::segment::slot::Slot;
pub use crate::segment::spares::{DEFAULT_SPARES, SPARE_LEN_BYTES, Spares};

use emberd_protocol::SegmentBackend;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// Makes segments of one kind.
pub trait Backend: Debug + Send + Sync {
    /// Which kind.
    fn kind(&self) -> SegmentBackend;

    /// Makes a segment of at least `len_bytes`, its memory allocated and touched. Blocks for
    /// about a millisecond per MiB.
    ///
    /// # Errors
    /// [`SegmentError::NoMemory`] where the machine, the control group or `/dev/shm` has not that
    /// much, and [`SegmentError::System`] for whatever else the kernel refuses.
    fn create(&self, len_bytes: u64) -> Result<Segment, SegmentError>;
}

/// The backend of a kind.
#[must_use]
pub fn backend(kind: SegmentBackend) -> Arc<dyn Backend> {
    match kind {
        SegmentBackend::Memfd => Arc::new(MemfdBackend),
        SegmentBackend::Posix => Arc::new(PosixBackend::new()),
    }
}

/// Why there is no shared memory for a result.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The client keeps too much of what it was given, and freed too little of it in time.
    #[error(
        "a result of {len_bytes} bytes does not fit beside the {held_bytes} bytes that this \
         connection holds of its {credit_bytes}: read and drop earlier results, or ask for less at \
         once"
    )]
    Credit {
        /// Bytes of the result.
        len_bytes: u64,
        /// Bytes of slots that are not free.
        held_bytes: u64,
        /// What the connection may hold.
        credit_bytes: u64,
    },
    /// All connections together hold what the daemon may give, and gave too little back in time.
    #[error(
        "there is no room for a result of {len_bytes} bytes: the results of all connections \
         together take {used_bytes} of {limit_bytes} bytes: try again later, or raise \
         segments.total_mib"
    )]
    Total {
        /// Bytes of the result.
        len_bytes: u64,
        /// Bytes of all segments, or of all inline results.
        used_bytes: u64,
        /// What they may have together.
        limit_bytes: u64,
    },
    /// No freeing will ever make room for it.
    #[error(
        "a result of {len_bytes} bytes is larger than the {limit_bytes} bytes of results that a \
         connection may hold: send fewer texts at once"
    )]
    NeverFits {
        /// Bytes of the result.
        len_bytes: u64,
        /// The bound in its way.
        limit_bytes: u64,
    },
    /// The machine has not that much memory to share.
    #[error(
        "no memory for a shared segment of {len_bytes} bytes: free memory, or enlarge the \
         memory limit or /dev/shm"
    )]
    NoMemory {
        /// Bytes of the segment.
        len_bytes: u64,
    },
    /// The kernel refused a step.
    #[error("cannot {step} for shared memory")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel took the seals and did not keep them.
    #[error(
        "this kernel does not keep the seals of a memfd (Linux 5.1 and later do): set \
         segments.backend = \"posix\""
    )]
    Unsealed,
    /// A segment that others can open is not as it was made.
    #[error(
        "the shared memory of this result was cut short by another process: ask again, and find \
         out who does that"
    )]
    CutShort,
    /// An output and its slot do not match.
    #[error(
        "{rows} rows of {dimension} values do not fill a slot of {slot_bytes} bytes: reserve \
         what the rows need"
    )]
    Shape {
        /// Rows of the output.
        rows: usize,
        /// Values of a row.
        dimension: usize,
        /// Bytes of the slot.
        slot_bytes: u64,
    },
    /// Segment numbers are never used twice on a connection, and all of them are used.
    #[error("this connection has used up its segment numbers: connect again")]
    NumbersUsedUp,
    /// The task that made a segment ended without a result, as when the daemon stops.
    #[error("the making of a segment was interrupted: try again")]
    Interrupted,
}

impl SegmentError {
    /// For use with `map_err`: what the kernel said to a step in making `len_bytes`.
    fn from_step(step: &'static str, len_bytes: u64) -> impl Fn(nix::errno::Errno) -> Self {
        use nix::errno::Errno;
        move |errno| match errno {
            Errno::ENOMEM | Errno::ENOSPC | Errno::EFBIG | Errno::EOVERFLOW => {
                Self::NoMemory { len_bytes }
            }
            other => Self::System { step, source: other.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn a_full_memory_is_told_from_other_refusals() {
        for errno in [Errno::ENOMEM, Errno::ENOSPC, Errno::EFBIG] {
            let error = SegmentError::from_step("size a memfd", 9)(errno);
            assert!(matches!(error, SegmentError::NoMemory { len_bytes: 9 }), "{error:?}");
        }
        let error = SegmentError::from_step("size a memfd", 9)(Errno::EMFILE);
        assert_eq!(error.to_string(), "cannot size a memfd for shared memory");
        assert!(matches!(error, SegmentError::System { .. }), "{error:?}");
    }
}
