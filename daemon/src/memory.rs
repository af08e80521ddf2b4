//! The process's own memory.

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
