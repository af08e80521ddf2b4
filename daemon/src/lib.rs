//! The daemon of emberd as a library.

pub mod engine;
pub mod segment;
