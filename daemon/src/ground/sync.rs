//! Locks that a panicking holder does not take along.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A panic while the lock was held is caught where the work was done and told as
/// `INTERNAL`; what the lock protects is kept whole by its owner, so the poison mark says
/// nothing more.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
