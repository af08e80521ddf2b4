//! Segments with a name: POSIX shared memory through the `shared_memory` package.
//!
//! For systems without memfd, and for peers that cannot receive a descriptor. They are weaker than
//! [`MemfdBackend`](crate::segment::MemfdBackend), which is the default:
//! - Every process of the same user can open such a segment by its name, write to it, and truncate
//!   it. A write to memory that is gone would kill the daemon (`SIGBUS`), so the mapping that the
//!   package makes is never touched: rows are computed on the heap and written as to a file, which
//!   fails with an error instead. Other users cannot open it, since its mode is 0600; their results
//!   go inline.
//! - The name outlives a daemon that is killed. [`sweep_leftovers`] removes such names.

use crate::segment::allocation::{admit, retry_interrupted};
use crate::segment::backend::Backend;
use crate::segment::error::SegmentError;
use crate::segment::memory::Segment;
use crate::segment::posix_segment::{PosixSegment, open};
use emberd_protocol::SegmentBackend;
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::mman::shm_unlink;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use shared_memory::{ShmemConf, ShmemError};
use std::fmt;
use std::fs::{self, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The folder in which Linux shows the names.
const SHM_FOLDER: &str = "/dev/shm";

/// Longer than a daemon takes to lock a segment that it has made.
const UNLOCKED_FOR: Duration = Duration::from_secs(60);

/// Makes POSIX segments under names of its own.
#[derive(Debug)]
pub struct PosixBackend {
    random: u32,
    next: AtomicU32,
}

impl PosixBackend {
    /// A backend whose names have a random part of their own.
    #[must_use]
    pub fn new() -> Self {
        let [a, b, c, d, ..] = RandomState::new().hash_one(std::process::id()).to_ne_bytes();
        Self { random: u32::from_ne_bytes([a, b, c, d]), next: AtomicU32::new(0) }
    }

    fn next_name(&self) -> Name {
        Name {
            pid: std::process::id(),
            random: self.random,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Default for PosixBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for PosixBackend {
    fn kind(&self) -> SegmentBackend {
        SegmentBackend::Posix
    }

    fn create(&self, len_bytes: u64) -> Result<Segment, SegmentError> {
        let len_bytes = admit(len_bytes)?;
        let too_long = |_| SegmentError::NoMemory { len_bytes };
        let size = usize::try_from(len_bytes).map_err(too_long)?;
        let len = i64::try_from(len_bytes).map_err(|_| SegmentError::NoMemory { len_bytes })?;
        let memory = loop {
            let name = self.next_name().to_string();
            match ShmemConf::new().os_id(name).size(size).create() {
                Err(ShmemError::MappingIdExists) => {}
                Err(error) => return Err(refused(error, len_bytes)),
                Ok(memory) => break memory,
            }
        };
        // `memory` owns the name from here on: an early return unlinks it.
        let file = open(memory.get_os_id())?;
        retry_interrupted(|| posix_fallocate(&file, 0, len))
            .map_err(SegmentError::from_step("allocate a POSIX segment", len_bytes))?;
        Ok(Segment::posix(PosixSegment::new(memory, file)?))
    }
}

/// Removes the names that killed daemons of this user left behind, and returns how many. To be called
/// when a daemon starts.
///
/// A name is removed only if it has our format, this user owns the segment, no process holds its
/// lock (a daemon holds it while it lives), and it is not about to be locked: either no running
/// process has the id in the name, or the segment is a minute old. (Process ids are reused, and
/// differ between containers that share `/dev/shm`.)
#[must_use]
pub fn sweep_leftovers() -> u32 {
    let Ok(entries) = fs::read_dir(SHM_FOLDER) else { return 0 };
    let mut swept = 0;
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().map(|name| format!("/{name}")) else {
            continue;
        };
        if is_leftover(&name) && shm_unlink(name.as_str()).is_ok() {
            tracing::info!(name, "removed a segment of a daemon that is gone");
            swept += 1;
        }
    }
    swept
}

/// Whether a segment with this name exists.
#[cfg(test)]
pub(super) fn exists(name: &str) -> bool {
    std::path::Path::new(SHM_FOLDER).join(name.trim_start_matches('/')).exists()
}

fn is_leftover(name: &str) -> bool {
    let Ok(Name { pid, .. }) = name.parse() else { return false };
    let Ok(file) = open(name) else { return false };
    let Ok(metadata) = file.metadata() else { return false };
    let is_own = metadata.uid() == geteuid().as_raw();
    let is_old =
        metadata.modified().is_ok_and(|then| then.elapsed().is_ok_and(|age| age > UNLOCKED_FOR));
    is_own && (is_old || !runs(pid)) && !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether a process is running, and is not a zombie.
fn runs(pid: u32) -> bool {
    let Ok(raw) = i32::try_from(pid) else { return false };
    if kill(Pid::from_raw(raw), None) == Err(Errno::ESRCH) {
        return false;
    }
    // The state follows the program's name, which is in parentheses and may contain parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X'))
}

fn refused(error: ShmemError, len_bytes: u64) -> SegmentError {
    let step = "create a POSIX segment";
    match error {
        ShmemError::MapCreateFailed(errno) | ShmemError::UnknownOsError(errno) => {
            let errno = i32::try_from(errno).map_or(Errno::UnknownErrno, Errno::from_raw);
            SegmentError::from_step(step, len_bytes)(errno)
        }
        other => SegmentError::System { step, source: io::Error::other(other) },
    }
}

/// The name of a segment: `/emberd-<pid>-<random>-<number>`. It has at most 31 characters (the limit
/// of macOS) for the first 65 536 segments of a process. Only this file makes and parses names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    pid: u32,
    random: u32,
    number: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/emberd-{}-{:08x}-{:x}", self.pid, self.random, self.number)
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix("/emberd-").ok_or(())?.split('-');
        let mut part = || parts.next().ok_or(());
        let name = Self {
            pid: part()?.parse().map_err(drop)?,
            random: u32::from_str_radix(part()?, 16).map_err(drop)?,
            number: u32::from_str_radix(part()?, 16).map_err(drop)?,
        };
        // Only the exact text that this file writes is a name: no signs, leading zeros or suffixes.
        if name.to_string() == text { Ok(name) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn names_survive_both_ways_and_nothing_else_is_one() {
        let name = Name { pid: 4_194_304, random: 0xab, number: 0xffff };
        assert_eq!(name.to_string(), "/emberd-4194304-000000ab-ffff");
        assert!(name.to_string().len() <= 31);
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in [
            "emberd-1-000000ab-0",
            "/emberd-1-ab-0",
            "/emberd-+1-000000ab-0",
            "/emberd-1-000000ab-0-1",
            "/emberd-1-000000ab",
            "/emberd-1-000000ab-0/../x",
            "/other-1-000000ab-0",
            "",
        ] {
            assert_eq!(text.parse::<Name>(), Err(()), "{text}");
        }
    }

    /// The id of a process that has ended just now.
    fn dead_pid() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    /// A process that has ended and was not waited for until this is dropped.
    struct Zombie(std::process::Child);

    impl Zombie {
        fn new() -> Self {
            let child = Command::new("true").spawn().unwrap();
            while runs(child.id()) {
                std::thread::yield_now();
            }
            Self(child)
        }
    }

    impl Drop for Zombie {
        fn drop(&mut self) {
            self.0.wait().unwrap();
        }
    }

    fn leave_behind(name: &str) {
        let mut memory = ShmemConf::new().os_id(name).size(4096).create().unwrap();
        memory.set_owner(false);
    }

    #[test]
    fn sweeping_takes_names_of_dead_daemons_only() {
        let random = PosixBackend::new().random;
        let dead = Name { pid: dead_pid(), random, number: 0 }.to_string();
        let locked = Name { pid: dead_pid(), random, number: 1 }.to_string();
        let alive = Name { pid: std::process::id(), random, number: 2 }.to_string();
        let old = Name { pid: std::process::id(), random, number: 3 }.to_string();
        let zombie = Zombie::new();
        let half_dead = Name { pid: zombie.0.id(), random, number: 4 }.to_string();
        let foreign = format!("/not-emberd-{random}");
        for name in [&dead, &locked, &alive, &old, &half_dead, &foreign] {
            leave_behind(name);
        }
        let then = std::time::SystemTime::now() - 2 * UNLOCKED_FOR;
        open(&old).unwrap().set_modified(then).unwrap();
        let lock = open(&locked).unwrap();
        lock.try_lock().unwrap();

        assert!(sweep_leftovers() >= 1);
        let left = [&dead, &locked, &alive, &old, &half_dead, &foreign].map(|name| exists(name));
        drop(lock);
        for name in [&locked, &alive, &foreign] {
            shm_unlink(name.as_str()).unwrap();
        }
        assert_eq!(left, [false, true, true, false, false, true]);
    }
}
