//! Shared memory, read-only and checked.
//!
//! A memfd is believed only when the kernel itself guarantees that it neither shrinks nor gets
//! another writer (its seals). A POSIX segment has no such guarantee: whoever may open it may cut
//! it short, which would end a process that reads it through a mapping (`SIGBUS`). So it is never
//! mapped: its rows are read as from a file the moment they arrive.

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
        // Not blocking: what stands under the name may be a pipe.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = shm_open(name, flags, Mode::empty()).map(File::from);
        let file = file.map_err(|_| refused("it cannot be opened"))?;
        let found = file.metadata().map_err(|_| refused("its size cannot be asked"))?;
        if !found.is_file() {
            return Err(refused("it is no file"));
        }
        if found.len() < len_bytes {
            return Err(refused("it is smaller than announced"));
        }
        let len = usize::try_from(len_bytes).map_err(|_| refused("its length cannot be used"))?;
        Ok(Self::Named(NamedSegment { file, len }))
    }

    /// The rows of a slot, after every check of its place.
    pub(crate) fn rows(&self, slot: &SlotRef) -> Result<Rows, ProtocolError> {
        let len = match self {
            Self::Sealed(mapping) => mapping.len.get(),
            Self::Named(named) => named.len,
        };
        let (offset, len) = place(slot, len)?;
        Ok(match self {
            Self::Sealed(mapping) => {
                Rows::Mapped(MappedRows { mapping: Arc::clone(mapping), offset, len })
            }
            Self::Named(named) => Rows::Copied(named.read(slot.offset, len)?),
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

/// A POSIX segment, open for reading.
#[derive(Debug)]
pub(crate) struct NamedSegment {
    file: File,
    /// As announced. The file may be shorter by now.
    len: usize,
}

impl NamedSegment {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|_| ProtocolError::Slot("the segment was cut short"))?;
        Ok(bytes)
    }
}
