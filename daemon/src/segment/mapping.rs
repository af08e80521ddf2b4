//! A mapping of shared memory.

use crate::segment::error::SegmentError;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// The smallest page of any Linux: a write every this many bytes touches every page.
const TOUCH_DISTANCE: usize = 4096;

/// A writable shared mapping of this process.
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

    /// The mapped memory: valid while `self` lives.
    pub(super) fn bytes(&self) -> NonNull<[u8]> {
        self.bytes
    }

    /// Asks for huge pages (most systems have them off for shared memory; then nothing changes)
    /// and maps every page into this process, so that later writes never wait for one.
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
        // No page was available: an error here, where a later write would be a fatal signal.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::allocation::GRANULE_BYTES;
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
