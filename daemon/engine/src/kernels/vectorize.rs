//! Loops over plain numbers, compiled for the widest registers of the processor.

use pulp::{Arch, Simd, WithSimd};

/// Runs `work` with the vector instructions of this machine. Only inlined code is compiled for them:
/// mark the closure, and every function that it calls, `#[inline(always)]`.
pub(crate) fn vectorize<R>(work: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Loop(work))
}

struct Loop<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Loop<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> R {
        // Called through `FnMut`, which is the closure's own code. Through `FnOnce` it would be a shim
        // that the compiler generates and need not inline; the loop would then be compiled for the
        // baseline processor, four numbers at a time.
        let Self(mut work) = self;
        work()
    }
}
