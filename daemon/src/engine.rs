//! Models on candle: loading, layers, architectures.

pub mod model;
