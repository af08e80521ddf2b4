//! The process's own memory.

/// An allocation of at least this size returns to the system as soon as it is freed. If the size is
/// not fixed, the allocator raises it after the first large allocation, and then keeps weights too.
#[cfg(target_env = "gnu")]
const RETURNED_FROM_BYTES: libc::c_int = 256 << 10;

/// Configures the allocator for models that are loaded and unloaded: with fewer arenas (one for each
/// core, not eight) less freed memory is kept in them.
pub(crate) fn set_up() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let arenas = libc::c_int::try_from(cores).unwrap_or(libc::c_int::MAX);
        let set = |option, value| {
            // SAFETY: the function takes two numbers and no pointer, and takes the allocator's locks.
            unsafe { libc::mallopt(option, value) == 1 }
        };
        let is_done = set(libc::M_ARENA_MAX, arenas)
            && set(libc::M_MMAP_THRESHOLD, RETURNED_FROM_BYTES)
            // Without the lists for small allocations: a tokenizer's words would stay in them, and
            // memory that is merged out of them at the end of an arena is never returned.
            && set(libc::M_MXFAST, 0);
        tracing::debug!(is_done, "the allocator was set up");
    }
}

/// Returns freed memory to the system.
///
/// Weights are large and return by themselves. The many small allocations of a tokenizer stay in the
/// allocator, which would keep them for the next one.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes a number and no pointer, may be called from any thread at any
    // time (it takes the allocator's own locks), and frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process; 0 if the kernel does not report it.
pub(crate) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page_bytes = page_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    pages.zip(page_bytes).map_or(0, |(pages, bytes)| pages * bytes)
}
