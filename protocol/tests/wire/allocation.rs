//! Counts what a piece of code allocates, so that a test can compare it with what arrived.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed; below zero where it frees what
    /// others allocated.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted per thread. Growing in place is not offered: a growing list
/// counts with its old and its new place, which is the most that it can take.
struct Counting;

impl Counting {
    fn count(difference: isize) {
        let now = NOW.get() + difference;
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
    }
}

// SAFETY: both calls go to the system's allocator as they came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size().cast_signed());
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the same contract, and every pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Does the work and tells how many bytes above the start its thread held at the worst moment.
pub(crate) fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let start = NOW.get();
    PEAK.set(start);
    let result = work();
    let peak = PEAK.get() - start;
    (result, peak.cast_unsigned())
}

#[test]
fn the_count_sees_what_is_freed_again_and_both_places_of_a_list_that_grows() {
    let ((), peak) = peak_bytes(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(1000))));
    assert_eq!(peak, 1000);
    let (list, peak) = peak_bytes(|| {
        let mut list = Vec::<u8>::with_capacity(1000);
        list.reserve_exact(3000);
        std::hint::black_box(list)
    });
    assert_eq!((list.capacity(), peak), (3000, 4000));
}
