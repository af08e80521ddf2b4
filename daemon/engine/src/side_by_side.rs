//! Two jobs at the same time.

use std::thread;

/// Runs both closures, `a` on a thread of its own, and waits for both. A panic of `a` goes on here.
pub(crate) fn side_by_side<A: Send, B>(
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B,
) -> (A, B) {
    thread::scope(|scope| {
        let a = scope.spawn(a);
        let b = b();
        match a.join() {
            Ok(a) => (a, b),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
