//! Former names, for architectures.

pub(crate) use crate::checkpoint::layer_reader::Bias;
pub(crate) use crate::checkpoint::tensor_reader::TensorReader as Reader;
