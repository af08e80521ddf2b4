//! A segment: memory that this process writes and another one reads.

use crate::ground::headroom::Headroom;
use crate::segment::{SegmentError, posix};
use emberd_protocol::SegmentHandle;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// Lengths of segments are multiples of this many bytes: of the pages of any Linux.
pub(super) const GRANULE_BYTES: u64 = 64 << 10;

/// The smallest page of any Linux: touching at this distance touches every page.
const TOUCH_DISTANCE: usize = 4096;

/// A segment. Its memory goes with it (unless a client still maps it), and so does its name.
pub struct Segment {
    home: Home,
}

enum Home {
    Memfd { descriptor: OwnedFd, mapping: Mapping },
    Posix(posix::Named),
}

impl Segment {
    pub(super) fn memfd(descriptor: OwnedFd, mapping: Mapping) -> Self {
        Self { home: Home::Memfd { descriptor, mapping } }
    }

    pub(super) fn posix(named: posix::Named) -> Self {
        Self { home: Home::Posix(named) }
    }

    /// Its size, as announced.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        match &self.home {
            Home::Memfd { mapping, .. } => mapping.bytes.len() as u64,
            Home::Posix(named) => named.len_bytes(),
        }
    }

    /// How a client reaches it.
    #[must_use]
    pub fn handle(&self) -> SegmentHandle {
        match &self.home {
            Home::Memfd { .. } => SegmentHandle::Descriptor,
            Home::Posix(named) => SegmentHandle::Name(named.name().to_owned()),
        }
    }

    /// The descriptor to send, where the handle is [`SegmentHandle::Descriptor`].
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.home {
            Home::Memfd { descriptor, .. } => Some(descriptor.as_fd()),
            Home::Posix(_) => None,
        }
    }

    /// All of its memory where that may be written in place: initialised, valid while `self` lives,
    /// at an address that is a multiple of a page. Who writes where is the pool's to say. `None`
    /// where nothing keeps the memory behind the addresses: see [`Segment::write`].
    pub(super) fn mapped(&self) -> Option<NonNull<[u8]>> {
        match &self.home {
            Home::Memfd { mapping, .. } => Some(mapping.bytes),
            Home::Posix(_) => None,
        }
    }

    /// Writes to a segment that is not mapped; nothing to do for one that is.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentError> {
        match &self.home {
            Home::Memfd { .. } => Ok(()),
            Home::Posix(named) => named.write(offset, bytes),
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

/// A shared mapping of our own, writable.
pub(super) struct Mapping {
    bytes: NonNull<[u8]>,
}

// SAFETY: a mapping belongs to the process, not to a thread; `munmap` may be called from any.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` only the address and the length can be read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole of `descriptor`, which is `len_bytes` long.
    pub(super) fn new(descriptor: &OwnedFd, len_bytes: u64) -> Result<Self, SegmentError> {
        let len = usize::try_from(len_bytes)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or(SegmentError::NoMemory { len_bytes })?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so the kernel picks one that nothing else uses, and
        // no memory of this process changes.
        let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, descriptor, 0) }
            .map_err(SegmentError::from_step("map a memfd", len_bytes))?;
        Ok(Self { bytes: NonNull::slice_from_raw_parts(start.cast(), len.get()) })
    }

    /// Asks for huge pages (most systems have them off for shared memory; then nothing changes)
    /// and puts every page into this process, so that writing later never waits for one.
    pub(super) fn populate(&self) -> Result<(), SegmentError> {
        populate(self.bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `mmap` gave in `new`; unmapped once, here; every pointer into it
        // is held together with an `Arc` of the segment that owns `self`, so none is left.
        let unmapped = unsafe { munmap(self.bytes.cast(), self.bytes.len()) };
        if let Err(errno) = unmapped {
            tracing::error!(%errno, "cannot unmap a segment");
        }
    }
}

/// See [`Mapping::populate`]. `bytes` is a whole mapping, shared and writable, not yet in use,
/// with memory allocated behind all of it.
fn populate(bytes: NonNull<[u8]>) -> Result<(), SegmentError> {
    let start: NonNull<c_void> = bytes.cast();
    // SAFETY: a mapping of ours; this advice changes no content.
    let _ = unsafe { madvise(start, bytes.len(), MmapAdvise::MADV_HUGEPAGE) };
    // SAFETY: a mapping of ours; this advice changes no content.
    let populated = unsafe { madvise(start, bytes.len(), MmapAdvise::MADV_POPULATE_WRITE) };
    match populated {
        Ok(()) => Ok(()),
        // Linux before 5.14 does not know this advice.
        Err(Errno::EINVAL) => {
            touch(bytes);
            Ok(())
        }
        // No page could be had: said here, where a store would be a fatal signal.
        Err(Errno::EFAULT) => Err(SegmentError::NoMemory { len_bytes: bytes.len() as u64 }),
        Err(errno) => Err(SegmentError::from_step("touch the pages", bytes.len() as u64)(errno)),
    }
}

/// Writes one zero to each page of new memory, which is zero anyway.
fn touch(bytes: NonNull<[u8]>) {
    for offset in (0..bytes.len()).step_by(TOUCH_DISTANCE) {
        // SAFETY: `offset` is less than the length of the mapping.
        let byte = unsafe { bytes.cast::<u8>().add(offset) };
        // SAFETY: in a writable mapping that nobody else uses yet (see `populate`).
        unsafe { byte.write_volatile(0) };
    }
}

/// The length to make for a wanted one, or why there is no use in trying.
///
/// Behind a memfd there is no mount with a limit: `fallocate` goes on until somebody is killed for
/// lack of memory. So what is there is asked first.
pub(super) fn admit(len_bytes: u64) -> Result<u64, SegmentError> {
    len_bytes
        .max(1)
        .checked_next_multiple_of(GRANULE_BYTES)
        .filter(|rounded| *rounded <= Headroom::now().free_bytes)
        .ok_or(SegmentError::NoMemory { len_bytes })
}

/// A signal to the thread interrupts an allocation; what was allocated stays.
pub(super) fn retry_interrupted(mut step: impl FnMut() -> nix::Result<()>) -> nix::Result<()> {
    loop {
        match step() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Backend, MemfdBackend};

    #[test]
    fn touching_page_by_page_leaves_zeros() {
        let segment = MemfdBackend.create(GRANULE_BYTES).unwrap();
        let memory = segment.mapped().unwrap();
        touch(memory);
        // SAFETY: the segment lives, and nobody writes to it.
        let bytes = unsafe { memory.as_ref() };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
