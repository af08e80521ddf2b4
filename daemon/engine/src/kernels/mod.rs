//! Arithmetic over slices, on the CPU. Nothing here knows tensors, layers or models.
//!
//! - [`panels`]: the layout of the right-hand matrix of a product.
//! - [`product`]: the product itself; [`epilogue`]: what is applied to its values before they are
//!   stored; [`prefetch`]: tells the processor which values come next.
//! - [`math`]: scalar functions and row reductions in a form that compiles to vector code;
//!   [`vectorize`]: runs a loop with the widest registers of the machine.
//! - [`team`]: threads that compute together, in step by a barrier ([`barrier`]); [`sync`]: locks.
//!
//! Invariant: everything but [`team`] runs on the calling thread.

pub(crate) mod barrier;
pub(crate) mod epilogue;
pub(crate) mod math;
pub(crate) mod panels;
mod prefetch;
pub(crate) mod product;
pub(crate) mod sync;
pub(crate) mod team;
pub(crate) mod vectorize;

#[cfg(test)]
mod tests;
