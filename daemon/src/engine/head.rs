//! What makes the row of a text of the rows of its tokens: pooling, and the modules behind it.

use super::load_error::LoadError;
use super::model::{ComputeError, Sequence};
use super::modules::HeadLayout;
use super::pooling::Pooling;
use super::tail::{Tail, TailScratch};

/// Pooling and what follows it, with weights.
#[derive(Debug)]
pub(super) struct Head {
    pooling: Pooling,
    tail: Tail,
    /// Values of a token row.
    width: usize,
}

impl Head {
    /// Reads the weights of what follows a network with token rows of `width` values.
    pub(super) fn load(layout: &HeadLayout, width: usize) -> Result<Self, LoadError> {
        let pooling = layout.pooling.clone();
        let tail = Tail::load(&layout.tail, pooling.outputs(width))?;
        Ok(Self { pooling, tail, width })
    }

    /// Values of a row.
    pub(super) fn outputs(&self) -> usize {
        self.tail.outputs()
    }

    /// Whether rows come out with length 1.
    pub(super) fn normalizes(&self) -> bool {
        self.tail.normalizes()
    }

    /// Bytes that its weights hold.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.tail.weight_bytes()
    }

    /// What it does, for a fingerprint.
    pub(super) fn identity(&self) -> Vec<u8> {
        [format!("{:?}", self.pooling).as_bytes(), self.tail.digest()].concat()
    }

    /// Writes `rows[i]` from the token rows of `batch[i]`, its share of `hidden`.
    pub(super) fn write(
        &self,
        hidden: &[f32],
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
        scratch: &mut TailScratch,
    ) -> Result<(), ComputeError> {
        self.tail.write(rows, scratch, |rows| {
            self.pooling.write(hidden, self.width, batch, rows);
            Ok(())
        })
    }
}
