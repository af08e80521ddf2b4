//! The number type of weights in memory.

/// The type in which the matrices and tables of a model are held in memory. Sums are computed in f32 in
/// any case, and on a GPU everything is f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WeightType {
    /// 32 bits: the values of the file, exactly.
    #[default]
    F32,
    /// 16 bits, the upper half of an f32. Exact for files of this type, in half the memory; values of
    /// other files are rounded to 8 bits of precision.
    Bf16,
}

impl WeightType {
    /// Bytes of a number.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}
