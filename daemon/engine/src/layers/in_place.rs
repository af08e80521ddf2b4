//! Layers as candle's in-place operations, each a closure over slices.
//!
//! The closure is called once and inlined, so that an operation costs no more than a handwritten one.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};

use crate::layers::storage::{values, values_mut};

/// Lets `compute` change the values of a tensor on the CPU. The caller has checked its shape.
pub(crate) fn in_place(
    name: &'static str,
    x: &Tensor,
    compute: impl FnOnce(&mut [f32]) -> Result<()>,
) -> Result<()> {
    x.inplace_op1(&Operation { name, compute: Cell::new(Some(compute)) })
}

/// Lets `compute` change the values of `out` given those of another tensor; both are on the CPU. The
/// caller has checked their shapes.
pub(crate) fn in_place_from(
    name: &'static str,
    out: &Tensor,
    x: &Tensor,
    compute: impl FnOnce(&mut [f32], &[f32]) -> Result<()>,
) -> Result<()> {
    out.inplace_op2(x, &Operation { name, compute: Cell::new(Some(compute)) })
}

/// An operation that candle calls once.
struct Operation<F> {
    name: &'static str,
    compute: Cell<Option<F>>,
}

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Operation<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some(compute) = self.compute.take() else { bail!("{} was run twice", self.name) };
        compute(values_mut(x, layout)?)
    }
}

impl<F: FnOnce(&mut [f32], &[f32]) -> Result<()>> InplaceOp2 for Operation<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        to: &Layout,
        x: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        let Some(compute) = self.compute.take() else { bail!("{} was run twice", self.name) };
        compute(values_mut(out, to)?, values(x, from)?)
    }
}
