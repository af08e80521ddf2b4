use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, poisoned or not: no code of this package panics while it holds a lock, so what
/// the lock guards is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
