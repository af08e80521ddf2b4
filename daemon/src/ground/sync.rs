//! Locks that a panic of their holder does not disable.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, and ignores that an earlier holder panicked.
///
/// A panic is caught where the work runs and reported as `INTERNAL`, and each owner keeps the data
/// behind its lock consistent, so the poison flag adds nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
