//! One POSIX segment: its name, its length, and writing to it.

use crate::segment::error::SegmentError;
use nix::fcntl::OFlag;
use nix::sys::mman::shm_open;
use nix::sys::stat::Mode;
use shared_memory::Shmem;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;

/// A named segment of this process. Dropping it removes the name.
pub(super) struct PosixSegment {
    memory: Shmem,
    /// Locked while this process lives, which its process id alone does not prove to other
    /// containers.
    file: File,
}

// SAFETY: the mapping and the descriptor in `Shmem` belong to the process, not to a thread; it is
// not `Send` only because of the raw pointer that it holds.
unsafe impl Send for PosixSegment {}
// SAFETY: through `&PosixSegment` only the name, the length and the file are reached; the first two do not
// change after `new`, and the file is one that threads may share.
unsafe impl Sync for PosixSegment {}

impl PosixSegment {
    /// Locks the segment for this process.
    pub(super) fn new(memory: Shmem, file: File) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::System { step: "lock a POSIX segment", source };
        match file.try_lock() {
            Ok(()) => {}
            // Not every system can lock shared memory; then only the process id is left.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => return Err(failed(io::ErrorKind::WouldBlock.into())),
        }
        Ok(Self { memory, file })
    }

    /// Its name, with the slash in front.
    pub(super) fn name(&self) -> &str {
        self.memory.get_os_id()
    }

    /// Its length when it was made.
    pub(super) fn len_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Writes at an offset.
    ///
    /// # Errors
    /// [`SegmentError::CutShort`] if another process has truncated it, or its memory is gone.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentError> {
        // Writing beyond the end of a truncated file would extend it again, with holes for the rows
        // of other results.
        let is_whole = self.file.metadata().is_ok_and(|file| file.len() >= self.len_bytes());
        if !is_whole || self.file.write_all_at(bytes, offset).is_err() {
            return Err(SegmentError::CutShort);
        }
        Ok(())
    }
}

/// Opens an existing segment by its name.
pub(super) fn open(name: &str) -> Result<File, SegmentError> {
    shm_open(name, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
        .map(File::from)
        .map_err(SegmentError::from_step("open a POSIX segment", 0))
}
