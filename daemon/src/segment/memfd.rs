//! Segments without a name: memfds, sealed so that a client can trust them and cannot write to them.

use crate::segment::allocation::{admit, retry_interrupted};
use crate::segment::backend::Backend;
use crate::segment::error::SegmentError;
use crate::segment::mapping::Mapping;
use crate::segment::memory::Segment;
use emberd_protocol::SegmentBackend;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use std::os::fd::OwnedFd;

/// Makes sealed memfds. The default.
///
/// No process can truncate one, so no reader is killed by it. No process can map it writable or
/// write to it later, so the mapping made here stays the only writable one. Nothing is left after a
/// crash: the kernel frees the memory with the last descriptor and mapping.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemfdBackend;

impl Backend for MemfdBackend {
    fn kind(&self) -> SegmentBackend {
        SegmentBackend::Memfd
    }

    fn create(&self, len_bytes: u64) -> Result<Segment, SegmentError> {
        let len_bytes = admit(len_bytes)?;
        let len = i64::try_from(len_bytes).map_err(|_| SegmentError::NoMemory { len_bytes })?;
        let descriptor = open()?;
        ftruncate(&descriptor, len).map_err(SegmentError::from_step("size a memfd", len_bytes))?;
        retry_interrupted(|| fallocate(&descriptor, FallocateFlags::empty(), 0, len))
            .map_err(SegmentError::from_step("allocate a memfd", len_bytes))?;
        let mapping = Mapping::new(&descriptor, len_bytes)?;
        mapping.populate()?;
        // Last: a mapping made after `F_SEAL_FUTURE_WRITE` could not be written.
        seal(&descriptor)?;
        Ok(Segment::memfd(descriptor, mapping))
    }
}

/// Closed on exec, open to seals, never executable where the kernel knows how to say so (6.3; a
/// hardened one refuses memfds without it).
fn open() -> Result<OwnedFd, SegmentError> {
    const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(8);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(c"emberd-segment", flags | NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create(c"emberd-segment", flags),
        other => other,
    }
    .map_err(SegmentError::from_step("create a memfd", 0))
}

fn seal(descriptor: &OwnedFd) -> Result<(), SegmentError> {
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_FUTURE_WRITE
        | SealFlag::F_SEAL_SEAL;
    match fcntl(descriptor, FcntlArg::F_ADD_SEALS(seals)) {
        Ok(_) => {}
        Err(Errno::EINVAL) => return Err(SegmentError::Unsealed),
        Err(errno) => return Err(SegmentError::from_step("seal a memfd", 0)(errno)),
    }
    let kept = fcntl(descriptor, FcntlArg::F_GET_SEALS)
        .map_err(SegmentError::from_step("read the seals of a memfd", 0))?;
    if SealFlag::from_bits_retain(kept).contains(seals) {
        Ok(())
    } else {
        Err(SegmentError::Unsealed)
    }
}
