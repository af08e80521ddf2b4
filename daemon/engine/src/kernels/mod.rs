//! Arithmetic over slices: products, vectors, and the threads that share them.

pub(crate) mod math;
pub(crate) mod packed;
pub(crate) mod prefetch;
pub(crate) mod team;
pub(crate) mod vectorize;
