//! Where a tensor lies in its file.

use std::borrow::Cow;

use crate::checkpoint::weights::strides::Strides;

/// Where a tensor lies in its file, checked against the file's length and the tensor's shape.
#[derive(Debug, Clone)]
pub(super) struct TensorEntry {
    /// As safetensors spells it.
    pub(super) dtype: Cow<'static, str>,
    pub(super) shape: Vec<usize>,
    /// `None`: row-major.
    pub(super) strides: Option<Strides>,
    /// Its first byte, from the start of the file.
    pub(super) start: u64,
    /// Bytes of its elements.
    pub(super) len_bytes: u64,
}

/// Bytes of an element; 0 for an unknown type.
pub(super) fn element_bytes(dtype: &str) -> u64 {
    match dtype {
        "BOOL" | "U8" | "I8" => 1,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "F32" | "I32" | "U32" => 4,
        "F64" | "I64" | "U64" => 8,
        _ => 0,
    }
}

pub(super) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
