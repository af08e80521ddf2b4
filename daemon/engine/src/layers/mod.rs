//! The layers that networks consist of, one a file.
//!
//! Activations are candle tensors that the caller owns, and a layer is an in-place operation of candle
//! on them. A network therefore reads as a list of layer calls and names no device: a layer computes by
//! [`kernels`](crate::kernels) on the CPU, and by [`portable`] operations on a GPU. Layers have no state
//! besides their weights.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod attention_shape;
pub(crate) mod elementwise;
pub(crate) mod embedding;
mod in_place;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod portable;
pub(crate) mod relative_bias;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod spans;
mod storage;
pub(crate) mod table_product;

pub(crate) use crate::layers::storage::{narrowed, read_values};
