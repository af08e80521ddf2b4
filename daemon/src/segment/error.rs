//! Why a result gets no shared memory.

use std::io;

/// Why a result gets no shared memory.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The client holds too many results, and did not free enough of them in time.
    #[error(
        "a result of {len_bytes} bytes does not fit beside the {held_bytes} bytes that this \
         connection holds of its {credit_bytes}: read and drop earlier results, or ask for less at \
         once"
    )]
    Credit {
        /// Bytes of the result.
        len_bytes: u64,
        /// Bytes that the connection holds.
        held_bytes: u64,
        /// Bytes that it may hold.
        credit_bytes: u64,
    },
    /// All connections together hold as much as the daemon may give, and did not free enough of it
    /// in time.
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
        /// Bytes that they may take together.
        limit_bytes: u64,
    },
    /// It exceeds a limit even if everything else is freed.
    #[error(
        "a result of {len_bytes} bytes is larger than the {limit_bytes} bytes of results that a \
         connection may hold: send fewer texts at once"
    )]
    NeverFits {
        /// Bytes of the result.
        len_bytes: u64,
        /// The limit that it exceeds.
        limit_bytes: u64,
    },
    /// The machine has too little memory.
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
        /// What was attempted.
        step: &'static str,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The kernel accepted the seals and did not keep them.
    #[error(
        "this kernel does not keep the seals of a memfd (Linux 5.1 and later do): set \
         segments.backend = \"posix\""
    )]
    Unsealed,
    /// Another process has truncated a segment.
    #[error(
        "another process has truncated the shared memory of this result: try again, and find out \
         which process does that"
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
    /// Segment numbers are never used twice on a connection, and all of them have been used.
    #[error("this connection has used up its segment numbers: connect again")]
    NumbersUsedUp,
    /// The task that made a segment ended without a result, as when the daemon stops.
    #[error("the making of a segment was interrupted: try again")]
    Interrupted,
}

impl SegmentError {
    /// For use with `map_err`: the error of a step in making a segment of `len_bytes`.
    pub(super) fn from_step(
        step: &'static str,
        len_bytes: u64,
    ) -> impl Fn(nix::errno::Errno) -> Self {
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
    fn full_memory_is_distinguished_from_other_refusals() {
        for errno in [Errno::ENOMEM, Errno::ENOSPC, Errno::EFBIG] {
            let error = SegmentError::from_step("size a memfd", 9)(errno);
            assert!(matches!(error, SegmentError::NoMemory { len_bytes: 9 }), "{error:?}");
        }
        let error = SegmentError::from_step("size a memfd", 9)(Errno::EMFILE);
        assert_eq!(error.to_string(), "cannot size a memfd for shared memory");
        assert!(matches!(error, SegmentError::System { .. }), "{error:?}");
    }
}
