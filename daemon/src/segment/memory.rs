//! A segment: memory that this process writes and another one reads.

use crate::segment::error::SegmentError;
use crate::segment::mapping::Mapping;
use crate::segment::posix_segment::PosixSegment;
use emberd_protocol::SegmentHandle;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// A segment. Dropping it frees its memory, unless a client still maps it, and removes its name.
pub struct Segment {
    memory: SegmentMemory,
}

impl Segment {
    pub(super) fn memfd(descriptor: OwnedFd, mapping: Mapping) -> Self {
        Self { memory: SegmentMemory::Memfd { descriptor, mapping } }
    }

    pub(super) fn posix(named: PosixSegment) -> Self {
        Self { memory: SegmentMemory::Posix(named) }
    }

    /// Its size, as announced.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        match &self.memory {
            SegmentMemory::Memfd { mapping, .. } => mapping.bytes().len() as u64,
            SegmentMemory::Posix(named) => named.len_bytes(),
        }
    }

    /// How a client opens it.
    #[must_use]
    pub fn handle(&self) -> SegmentHandle {
        match &self.memory {
            SegmentMemory::Memfd { .. } => SegmentHandle::Descriptor,
            SegmentMemory::Posix(named) => SegmentHandle::Name(named.name().to_owned()),
        }
    }

    /// The descriptor to send, if the handle is [`SegmentHandle::Descriptor`].
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.memory {
            SegmentMemory::Memfd { descriptor, .. } => Some(descriptor.as_fd()),
            SegmentMemory::Posix(_) => None,
        }
    }

    /// Its whole memory, if it may be written in place: initialised, valid while `self` lives, and
    /// aligned to a page. The pool decides who writes where. `None` if another process could take
    /// the memory away: see [`Segment::write`].
    pub(super) fn mapped(&self) -> Option<NonNull<[u8]>> {
        match &self.memory {
            SegmentMemory::Memfd { mapping, .. } => Some(mapping.bytes()),
            SegmentMemory::Posix(_) => None,
        }
    }

    /// Writes to a segment that is not mapped. Does nothing for a mapped one.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentError> {
        match &self.memory {
            SegmentMemory::Memfd { .. } => Ok(()),
            SegmentMemory::Posix(named) => named.write(offset, bytes),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("handle", &self.handle())
            .field("len_bytes", &self.len_bytes())
            .finish_non_exhaustive()
    }
}

enum SegmentMemory {
    Memfd { descriptor: OwnedFd, mapping: Mapping },
    Posix(PosixSegment),
}
