//! Hints to the processor about the values that are read next.

/// Prefetches `count` values of a slice, from `from` on, into the nearest cache. Values past the end of
/// the slice are left out. Never waits.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32], from: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (from..from + count).step_by(LINE / size_of::<f32>()) {
        if let Some(value) = values.get(at) {
            let line = std::ptr::from_ref(value).cast::<i8>();
            // SAFETY: the pointer is that of a value in the slice. Besides, a prefetch is a hint: it
            // does not fault at any address.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, from, count);
}

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;
