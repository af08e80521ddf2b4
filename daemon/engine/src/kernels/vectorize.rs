//! Loops over plain numbers, compiled for the widest registers that the processor has.

use pulp::{Arch, Simd, WithSimd};

/// Runs `work` with the vector instructions of this machine. Only what is inlined into it is
/// compiled with them: the closure and what it calls say `#[inline(always)]`.
pub(crate) fn vectorize<R>(work: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Work(work))
}

struct Work<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> R {
        // Called as `FnMut`, which is the closure's own code. `FnOnce` of a closure that could be
        // called again is a function around it that the compiler makes and need not inline: the
        // loop would be compiled for any processor, four numbers at a time.
        let Self(mut work) = self;
        work()
    }
}
