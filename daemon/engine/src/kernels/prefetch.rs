//! Telling the processor what will be read soon.

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Asks for the values of a slice, from `from` on, to be brought near: as many as `count`, and none
/// behind its end. Nothing is read, and nothing waits.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32], from: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (from..from + count).step_by(LINE / size_of::<f32>()) {
        if let Some(value) = values.get(at) {
            let line = std::ptr::from_ref(value).cast::<i8>();
            // SAFETY: the address is that of a value that is there; and a prefetch reads nothing, and
            // faults at no address.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, from, count);
}
