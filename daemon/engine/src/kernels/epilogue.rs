//! What is applied to the values of a product while they are in registers.

/// A function that is applied to each value of a product before it is stored.
pub(crate) trait Epilogue: Copy {
    /// The value to store in place of `x`.
    fn apply(self, x: f32) -> f32;
}

/// Stores the value as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

impl Epilogue for Plain {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        x
    }
}
