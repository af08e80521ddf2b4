//! The feed-forward part of a layer: a wide product with an activation, perhaps gated, and a narrow
//! product.

use std::ops::Range;

use crate::kernels::epilogue::{Epilogue, Plain};
use crate::kernels::panels::PANEL;
use crate::kernels::vectorize::vectorize;
use crate::layers::activation::{Activation, Gelu, GeluTanh, Relu, Silu, Tanh};
use crate::seq2seq::matrix::Matrix;
use crate::seq2seq::norm::RowNorm;

/// The weights of a feed-forward.
#[derive(Debug)]
pub(super) struct FeedForwardWeights {
    pub(super) norm: RowNorm,
    /// From rows to inner values. If it is gated, panels of activated values and panels of their gates
    /// alternate, so that the same thread computes both.
    pub(super) up: Matrix,
    pub(super) is_gated: bool,
    pub(super) activation: Activation,
    pub(super) down: Matrix,
}

impl FeedForwardWeights {
    /// How many inner values a row has.
    pub(super) fn inner(&self) -> usize {
        self.down.inputs()
    }

    /// Panels of inner values; each can be computed by itself.
    pub(super) fn panels(&self) -> usize {
        self.inner().div_ceil(PANEL)
    }

    /// The inner values of some panels.
    pub(super) fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        (panels.start * PANEL).min(self.inner())..(panels.end * PANEL).min(self.inner())
    }

    /// Writes the inner values of some panels for `count` rows. `wide` is a buffer for values and their
    /// gates, of which a few panels are computed at a time so that they stay in the cache.
    pub(super) fn widen(
        &self,
        x: &[f32],
        count: usize,
        panels: Range<usize>,
        wide: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let columns = self.columns(&panels).len();
        if columns == 0 || count == 0 {
            return;
        }
        if !self.is_gated {
            self.up.part(x, count, panels, out);
            self.activate(Values::Plain(out));
            return;
        }
        let at_once = (WIDE_LEN / (count * 2 * PANEL)).max(1);
        for start in panels.clone().step_by(at_once) {
            let end = panels.end.min(start + at_once);
            let up_panels = 2 * start..2 * end;
            let width = self.up.columns(&up_panels).len();
            wide.resize(count * width, 0.0);
            self.up.part(x, count, up_panels, wide);
            let first = self.columns(&(panels.start..start)).len();
            let len = self.columns(&(start..end)).len();
            let rows = out.chunks_exact_mut(columns).map(|row| &mut row[first..first + len]);
            for (wide, out) in wide.chunks_exact(width).zip(rows) {
                self.activate(Values::Gated { wide, out });
            }
        }
    }

    fn activate(&self, values: Values<'_>) {
        match self.activation {
            Activation::None => values.apply(Plain),
            Activation::Gelu => values.apply(Gelu),
            Activation::GeluTanh => values.apply(GeluTanh),
            Activation::Relu => values.apply(Relu),
            Activation::Silu => values.apply(Silu),
            Activation::Tanh => values.apply(Tanh),
        }
    }
}

/// The values that an activation is applied to.
enum Values<'a> {
    /// In place.
    Plain(&'a mut [f32]),
    /// One row of `wide`, in which panels of values and panels of their gates alternate.
    Gated { wide: &'a [f32], out: &'a mut [f32] },
}

impl Values<'_> {
    fn apply<E: Epilogue>(self, function: E) {
        match self {
            Self::Plain(values) => vectorize(
                #[inline(always)]
                || values.iter_mut().for_each(|x| *x = function.apply(*x)),
            ),
            Self::Gated { wide, out } => vectorize(
                #[inline(always)]
                || {
                    for (pair, out) in wide.chunks_exact(2 * PANEL).zip(out.chunks_mut(PANEL)) {
                        for ((x, gate), out) in pair.iter().zip(&pair[PANEL..]).zip(out) {
                            *out = function.apply(*x) * gate;
                        }
                    }
                },
            ),
        }
    }
}

/// Values of a product that wait for their gate: few enough to stay in the second-level cache.
const WIDE_LEN: usize = 32 << 10;
