//! The layers that architectures are written with, one a file.
//!
//! Activations are candle tensors that the caller owns, and a layer is a candle in-place operation
//! over them. An architecture therefore reads as a list of layer calls and names no device: where the
//! tensors are on a GPU, a layer computes by [`portable`] operations instead, and a faster CPU kernel
//! comes in by changing what stands below [`packed`]. Layers have no state of their own besides
//! weights.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod attention_shape;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod in_place;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod portable;
pub(crate) mod relative_bias;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod spans;
pub(crate) mod storage;
pub(crate) mod table_product;

pub(crate) use crate::layers::storage::{narrowed, read_values};
