//! Shared memory, read-only and checked.
//!
//! A memfd is believed only when the kernel itself guarantees that it neither shrinks nor gets
//! another writer (its seals). A POSIX segment has no such guarantee: whoever may open it may cut
//! it short, so its rows are copied out the moment they arrive.

use crate::error::ProtocolError;
use emberd_protocol::{SLOT_ALIGNMENT, SegmentId, SlotRef};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use shared_memory::{Shmem, ShmemConf};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// Linux's `F_SEAL_FUTURE_WRITE`: no new writer, while the daemon's own mapping goes on.
const FUTURE_WRITE: SealFlag = SealFlag::from_bits_retain(0x10);

/// A sealed segment, mapped for reading. Lives as long as any view into it.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the memory behind `start` is mapped until `drop` and only ever read through `&self`;
// nothing in it belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; several threads may read at once.
unsafe impl Sync for Mapping {}

/// Rows in a mapping.
#[derive(Debug)]
pub(crate) struct MappedRows {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
}

/// A segment that the daemon announced.
#[derive(Debug)]
pub(crate) enum Segment {
    Sealed(Arc<Mapping>),
    Named(NamedSegment),
}

/// Rows as they came out of a segment.
#[derive(Debug)]
pub(crate) enum Rows {
    /// In place; the slot is freed when the view ends.
    Mapped(MappedRows),
    /// Copied; the slot can be freed now.
    Copied(Vec<u8>),
}

impl Segment {
    /// Maps a memfd that came with its announcement.
    pub(crate) fn sealed(
        segment: SegmentId,
        descriptor: &OwnedFd,
        len_bytes: u64,
    ) -> Result<Self, ProtocolError> {
        let refused = |why| ProtocolError::Segment { segment, why };
        let seals = fcntl(descriptor, FcntlArg::F_GET_SEALS)
            .map_err(|_| refused("it is no file that can be sealed"))?;
        let seals = SealFlag::from_bits_retain(seals);
        if !seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW) {
            return Err(refused("its size is not sealed"));
        }
        if !seals.intersects(FUTURE_WRITE | SealFlag::F_SEAL_WRITE) {
            return Err(refused("it is not sealed against writers"));
        }
        // Behind the seals: only now is the size one that stays.
        let size = fstat(descriptor).map_err(|_| refused("its size cannot be asked"))?.st_size;
        if u64::try_from(size).ok().is_none_or(|size| size < len_bytes) {
            return Err(refused("it is smaller than announced"));
        }
        let len = usize::try_from(len_bytes).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or(refused("its length cannot be mapped"))?;
        // SAFETY: a new mapping, placed by the kernel over no existing one; the descriptor is
        // open, and the file is sealed against shrinking, so that no access within `len` faults.
        let start =
            unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, descriptor, 0) }
                .map_err(|_| refused("the system does not map it"))?;
        Ok(Self::Sealed(Arc::new(Mapping { start, len })))
    }

    /// Opens a POSIX segment by its name.
    pub(crate) fn named(
        segment: SegmentId,
        name: &str,
        len_bytes: u64,
    ) -> Result<Self, ProtocolError> {
        let refused = |why| ProtocolError::Segment { segment, why };
        let memory =
            ShmemConf::new().os_id(name).open().map_err(|_| refused("it cannot be opened"))?;
        if (memory.len() as u64) < len_bytes {
            return Err(refused("it is smaller than announced"));
        }
        Ok(Self::Named(NamedSegment(memory)))
    }

    /// The rows of a slot, after every check of its place.
    pub(crate) fn rows(&self, slot: &SlotRef) -> Result<Rows, ProtocolError> {
        let len = match self {
            Self::Sealed(mapping) => mapping.len.get(),
            Self::Named(memory) => memory.0.len(),
        };
        let (offset, len) = place(slot, len)?;
        Ok(match self {
            Self::Sealed(mapping) => {
                Rows::Mapped(MappedRows { mapping: Arc::clone(mapping), offset, len })
            }
            Self::Named(memory) => Rows::Copied(memory.copy(offset, len)),
        })
    }
}

/// Offset and length of a slot that lies within `len` bytes.
fn place(slot: &SlotRef, len: usize) -> Result<(usize, usize), ProtocolError> {
    // Two views of nothing at one place would be taken for one.
    if slot.len_bytes == 0 {
        return Err(ProtocolError::Slot("the slot is empty"));
    }
    if !slot.offset.is_multiple_of(SLOT_ALIGNMENT) {
        return Err(ProtocolError::Slot("the slot is not aligned"));
    }
    let end = slot.offset.checked_add(slot.len_bytes);
    if end.is_none_or(|end| end > len as u64) {
        return Err(ProtocolError::Slot("the slot reaches beyond its segment"));
    }
    let fits = |_| ProtocolError::Slot("the slot is larger than this machine's memory");
    let offset = usize::try_from(slot.offset).map_err(fits)?;
    Ok((offset, usize::try_from(slot.len_bytes).map_err(fits)?))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `mmap` gave, unmapped once; every view holds the `Arc` around it.
        let unmapped = unsafe { munmap(self.start, self.len.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own is unmapped");
    }
}

impl MappedRows {
    /// The bytes, in place. They begin at a multiple of [`SLOT_ALIGNMENT`].
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `place` has checked that `offset` lies within the mapping.
        let start = unsafe { self.mapping.start.byte_add(self.offset) }.cast::<u8>();
        // SAFETY: `place` has checked that `len` bytes from `start` lie within the mapping. The
        // mapping lives as long as `self`. The seals keep every other process from writing; the
        // daemon itself does not write to a slot before it is freed, which happens when `self` is
        // dropped.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len) }
    }
}

/// A POSIX segment. Its rows are only ever copied out.
pub(crate) struct NamedSegment(Shmem);

// SAFETY: `Shmem` is not `Send` only because it holds a pointer to its mapping; the mapping
// belongs to the process, and unmapping it from another thread is as good as from this one.
unsafe impl Send for NamedSegment {}

impl NamedSegment {
    fn copy(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut copy = vec![0; len];
        // SAFETY: `place` has checked that the slot lies within the mapping.
        let start = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: `len` bytes from `start` lie within the mapping (`place`), `copy` has as many,
        // and they do not overlap. The daemon writes nothing to the slot before it is freed.
        unsafe {
            std::ptr::copy_nonoverlapping(start.cast_const(), copy.as_mut_ptr(), len);
        }
        copy
    }
}

impl std::fmt::Debug for NamedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NamedSegment({}, {} bytes)", self.0.get_os_id(), self.0.len())
    }
}
