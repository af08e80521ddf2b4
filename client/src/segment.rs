//! Shared memory, read-only and checked.
//!
//! A memfd is accepted only if its seals make the kernel guarantee that it neither shrinks nor gets
//! another writer. A POSIX segment has no such guarantee: any process that may open it may truncate
//! it, which would kill a process that reads it through a mapping (`SIGBUS`). So it is never
//! mapped: its rows are read like a file's the moment they arrive.

use crate::error::ProtocolError;
use emberd_protocol::{SLOT_ALIGNMENT, SegmentId, SlotRef};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap, shm_open};
use nix::sys::stat::{Mode, fstat};
use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Linux's `F_SEAL_FUTURE_WRITE`: no new writers, while the daemon's own mapping stays writable.
const FUTURE_WRITE: SealFlag = SealFlag::from_bits_retain(0x10);

/// A segment that the daemon announced.
#[derive(Debug)]
pub(crate) enum Segment {
    Sealed(Arc<Mapping>),
    Named(NamedSegment),
}

/// Rows read from a segment.
#[derive(Debug)]
pub(crate) enum Rows {
    /// In the segment; the slot must stay until they are dropped.
    Mapped(MappedRows),
    /// In a copy; the slot can be freed.
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
            .map_err(|_| refused("it is not a file that can be sealed"))?;
        let seals = SealFlag::from_bits_retain(seals);
        if !seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW) {
            return Err(refused("its size is not sealed"));
        }
        if !seals.intersects(FUTURE_WRITE | SealFlag::F_SEAL_WRITE) {
            return Err(refused("it is not sealed against writers"));
        }
        // Only now, with the seals checked, the size cannot change any more.
        let size = fstat(descriptor).map_err(|_| refused("its size cannot be read"))?.st_size;
        if u64::try_from(size).ok().is_none_or(|size| size < len_bytes) {
            return Err(refused("it is smaller than announced"));
        }
        let len = usize::try_from(len_bytes).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or(refused("its length cannot be mapped"))?;
        // SAFETY: a new mapping, placed by the kernel over no existing one; the descriptor is
        // open, and the file is sealed against shrinking, so that no access within `len` faults.
        let start =
            unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, descriptor, 0) }
                .map_err(|_| refused("the system refuses to map it"))?;
        Ok(Self::Sealed(Arc::new(Mapping { start, len })))
    }

    /// Opens a POSIX segment by its name.
    pub(crate) fn named(
        segment: SegmentId,
        name: &str,
        len_bytes: u64,
    ) -> Result<Self, ProtocolError> {
        let refused = |why| ProtocolError::Segment { segment, why };
        // Non-blocking: the name may be that of a pipe.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = shm_open(name, flags, Mode::empty()).map(File::from);
        let file = file.map_err(|_| refused("it cannot be opened"))?;
        let found = file.metadata().map_err(|_| refused("its size cannot be read"))?;
        if !found.is_file() {
            return Err(refused("it is not a file"));
        }
        if found.len() < len_bytes {
            return Err(refused("it is smaller than announced"));
        }
        let len = usize::try_from(len_bytes)
            .map_err(|_| refused("its length exceeds this machine's memory"))?;
        Ok(Self::Named(NamedSegment { file, len }))
    }

    /// The rows of a slot that lies within the segment.
    pub(crate) fn rows(&self, slot: &SlotRef) -> Result<Rows, ProtocolError> {
        let len = match self {
            Self::Sealed(mapping) => mapping.len.get(),
            Self::Named(named) => named.len,
        };
        let (offset, len) = checked_range(slot, len)?;
        Ok(match self {
            Self::Sealed(mapping) => {
                Rows::Mapped(MappedRows { mapping: Arc::clone(mapping), offset, len })
            }
            Self::Named(named) => Rows::Copied(named.read(slot.offset, len)?),
        })
    }
}

/// Rows in a mapped segment.
#[derive(Debug)]
pub(crate) struct MappedRows {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
}

impl MappedRows {
    /// The bytes in the mapping. They start at a multiple of [`SLOT_ALIGNMENT`].
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `checked_range` has checked that `offset` lies within the mapping.
        let start = unsafe { self.mapping.start.byte_add(self.offset) }.cast::<u8>();
        // SAFETY: `checked_range` has checked that `len` bytes from `start` lie within the mapping. The
        // mapping lives as long as `self`. The seals keep every other process from writing; the
        // daemon itself does not write to a slot before it is freed, which happens when `self` is
        // dropped.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len) }
    }
}

/// A POSIX segment, open for reading.
#[derive(Debug)]
pub(crate) struct NamedSegment {
    file: File,
    /// The announced length. The file may be shorter by now.
    len: usize,
}

impl NamedSegment {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|_| ProtocolError::Slot("the segment was truncated"))?;
        Ok(bytes)
    }
}

/// A sealed segment, mapped for reading. Rows in it keep it alive.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the memory behind `start` is mapped until `drop` and only ever read through `&self`;
// nothing in it is bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; several threads may read at once.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `mmap` returned, unmapped once: all rows in it hold the
        // `Arc` around it.
        let unmapped = unsafe { munmap(self.start, self.len.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own is unmapped");
    }
}

/// Offset and length of a slot that lies within `len` bytes.
fn checked_range(slot: &SlotRef, len: usize) -> Result<(usize, usize), ProtocolError> {
    // Two empty slots at one offset could not be told apart.
    if slot.len_bytes == 0 {
        return Err(ProtocolError::Slot("the slot is empty"));
    }
    if !slot.offset.is_multiple_of(SLOT_ALIGNMENT) {
        return Err(ProtocolError::Slot("the slot is not aligned"));
    }
    let end = slot.offset.checked_add(slot.len_bytes);
    if end.is_none_or(|end| end > len as u64) {
        return Err(ProtocolError::Slot("the slot ends beyond its segment"));
    }
    let fits = |_| ProtocolError::Slot("the slot exceeds this machine's memory");
    let offset = usize::try_from(slot.offset).map_err(fits)?;
    Ok((offset, usize::try_from(slot.len_bytes).map_err(fits)?))
}
