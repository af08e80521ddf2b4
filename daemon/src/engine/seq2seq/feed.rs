//! The layer between attentions: wider, with an activation, perhaps gated, and narrow again.

use std::ops::Range;

use pulp::Arch;

use super::matrix::Matrix;
use super::norm::Norm;
use crate::engine::layers::activation::{Activation, Epilogue, Gelu, GeluTanh, Relu, Silu, Tanh};
use crate::engine::layers::packed::PANEL;

/// See the module.
#[derive(Debug)]
pub(super) struct FeedForward {
    pub(super) norm: Norm,
    /// From rows to inner values. Gated: panels of what is activated and panels of what it is
    /// multiplied with take turns, so that both are computed by the same thread.
    pub(super) up: Matrix,
    pub(super) is_gated: bool,
    pub(super) activation: Activation,
    pub(super) down: Matrix,
}

impl FeedForward {
    /// Inner values.
    pub(super) fn inner(&self) -> usize {
        self.down.inputs()
    }

    /// In how many pieces the inner values can be computed.
    pub(super) fn pieces(&self) -> usize {
        self.inner().div_ceil(PANEL)
    }

    /// The inner values of some pieces.
    pub(super) fn columns(&self, pieces: &Range<usize>) -> Range<usize> {
        (pieces.start * PANEL).min(self.inner())..(pieces.end * PANEL).min(self.inner())
    }

    /// Writes the inner values of some pieces for `count` rows; `wide` is for what comes before.
    pub(super) fn widen(
        &self,
        x: &[f32],
        count: usize,
        pieces: Range<usize>,
        wide: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let columns = self.columns(&pieces).len();
        if columns == 0 {
            return;
        }
        if !self.is_gated {
            self.up.part(x, count, pieces, out);
            self.activate(out);
            return;
        }
        let panels = 2 * pieces.start..2 * pieces.end;
        let width = self.up.columns(&panels).len();
        wide.resize(count * width, 0.0);
        self.up.part(x, count, panels, wide);
        for (row, out) in wide.chunks_exact(width).zip(out.chunks_exact_mut(columns)) {
            for (pair, out) in row.chunks_exact(2 * PANEL).zip(out.chunks_mut(PANEL)) {
                out.copy_from_slice(&pair[..out.len()]);
            }
        }
        self.activate(out);
        for (row, out) in wide.chunks_exact(width).zip(out.chunks_exact_mut(columns)) {
            for (pair, out) in row.chunks_exact(2 * PANEL).zip(out.chunks_mut(PANEL)) {
                out.iter_mut().zip(&pair[PANEL..]).for_each(|(x, gate)| *x *= gate);
            }
        }
    }

    fn activate(&self, values: &mut [f32]) {
        match self.activation {
            Activation::None => {}
            Activation::Gelu => apply(Gelu, values),
            Activation::GeluTanh => apply(GeluTanh, values),
            Activation::Relu => apply(Relu, values),
            Activation::Silu => apply(Silu, values),
            Activation::Tanh => apply(Tanh, values),
        }
    }
}

fn apply<E: Epilogue>(function: E, values: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || values.iter_mut().for_each(|x| *x = function.apply(*x)),
    );
}
