//! The layer between attentions: wider, with an activation, perhaps gated, and narrow again.

use std::ops::Range;

use crate::kernels::packed::PANEL;
use crate::kernels::vectorize::vectorize;
use crate::layers::activation::{Activation, Epilogue, Gelu, GeluTanh, Plain, Relu, Silu, Tanh};
use crate::seq2seq::matrix::Matrix;
use crate::seq2seq::norm::Norm;

/// Values between a product and its gate that stay in the second-level cache.
const WIDE_LEN: usize = 32 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) norm: Norm,
    /// From rows to inner values. Gated: panels of what is activated and panels of what it is
    /// multiplied with take turns, so that both are computed by the same thread.
    pub(crate) up: Matrix,
    pub(crate) is_gated: bool,
    pub(crate) activation: Activation,
    pub(crate) down: Matrix,
}

impl FeedForward {
    /// Inner values.
    pub(crate) fn inner(&self) -> usize {
        self.down.inputs()
    }

    /// In how many pieces the inner values can be computed.
    pub(crate) fn pieces(&self) -> usize {
        self.inner().div_ceil(PANEL)
    }

    /// The inner values of some pieces.
    pub(crate) fn columns(&self, pieces: &Range<usize>) -> Range<usize> {
        (pieces.start * PANEL).min(self.inner())..(pieces.end * PANEL).min(self.inner())
    }

    /// Writes the inner values of some pieces for `count` rows; `wide` is for what comes before, which
    /// is made and used a few pieces at a time, so that it stays near.
    pub(crate) fn widen(
        &self,
        x: &[f32],
        count: usize,
        pieces: Range<usize>,
        wide: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let columns = self.columns(&pieces).len();
        if columns == 0 || count == 0 {
            return;
        }
        if !self.is_gated {
            self.up.part(x, count, pieces, out);
            self.activate(Values::Plain(out));
            return;
        }
        let at_once = (WIDE_LEN / (count * 2 * PANEL)).max(1);
        for start in pieces.clone().step_by(at_once) {
            let end = pieces.end.min(start + at_once);
            let panels = 2 * start..2 * end;
            let width = self.up.columns(&panels).len();
            wide.resize(count * width, 0.0);
            self.up.part(x, count, panels, wide);
            let first = self.columns(&(pieces.start..start)).len();
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

/// What an activation is applied to.
enum Values<'a> {
    /// Where they lie.
    Plain(&'a mut [f32]),
    /// One row: a panel of what is activated, a panel of what it is multiplied with, and so on.
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
