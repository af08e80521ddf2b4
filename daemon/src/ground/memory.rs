//! The process's own memory.

/// From this size on a piece of memory is the system's as soon as it is freed. Without a fixed
/// size the allocator raises it after the first large piece, and from then on keeps weights too.
#[cfg(target_env = "gnu")]
const RETURNED_FROM_BYTES: libc::c_int = 256 << 10;

/// Makes the allocator fit for models that come and go: with fewer arenas (one for each core, not
/// eight) less stays behind in each.
pub(crate) fn set_up() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let arenas = libc::c_int::try_from(cores).unwrap_or(libc::c_int::MAX);
        let set = |option, value| {
            // SAFETY: the function takes two numbers and no pointer, and the allocator's locks.
            unsafe { libc::mallopt(option, value) == 1 }
        };
        let is_done = set(libc::M_ARENA_MAX, arenas)
            && set(libc::M_MMAP_THRESHOLD, RETURNED_FROM_BYTES)
            // A tokenizer's words would be kept in lists for quick use, and what becomes whole
            // from these at the end of an arena is never returned.
            && set(libc::M_MXFAST, 0);
        tracing::debug!(is_done, "the allocator was set up");
    }
}

/// Gives memory that was freed back to the system.
///
/// Weights are large and go back by themselves; a tokenizer's many small pieces stay with the
/// allocator, which would keep them for the next one.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes a number and no pointer, may be called from any thread at any
    // time (it takes the allocator's own locks), and frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process, from the kernel; 0 where it does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page_bytes = page_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    pages.zip(page_bytes).map_or(0, |(pages, bytes)| pages * bytes)
}
