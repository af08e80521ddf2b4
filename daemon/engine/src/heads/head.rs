//! What makes the row of a text of the rows of its tokens: pooling, and the modules behind it.

use candle_core::Tensor;

use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::checkpoint::layout::HeadLayout;
use crate::checkpoint::load_error::LoadError;
use crate::heads::pooling::Pooling;
use crate::heads::post_pooling::{Tail, TailScratch};
use crate::layers::{portable, read_values};

/// Pooling and what follows it, with weights.
#[derive(Debug)]
pub(crate) struct Head {
    pooling: Pooling,
    tail: Tail,
    /// Values of a token row.
    width: usize,
}

impl Head {
    /// Reads the weights of what follows a network with token rows of `width` values.
    pub(crate) fn load(layout: &HeadLayout, width: usize) -> Result<Self, LoadError> {
        let pooling = layout.pooling.clone();
        let tail = Tail::load(&layout.tail, pooling.outputs(width))?;
        Ok(Self { pooling, tail, width })
    }

    /// Values of a row.
    pub(crate) fn outputs(&self) -> usize {
        self.tail.outputs()
    }

    /// Whether rows come out with length 1.
    pub(crate) fn normalizes(&self) -> bool {
        self.tail.normalizes()
    }

    /// Bytes that its weights hold.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.tail.weight_bytes()
    }

    /// What it does, for a fingerprint.
    pub(crate) fn identity(&self) -> Vec<u8> {
        [format!("{:?}", self.pooling).as_bytes(), self.tail.digest()].concat()
    }

    /// As [`write`](Self::write), from a tensor. Where that is on a GPU texts are pooled there, and
    /// one row of each is brought here, unless a way to pool is no sum.
    pub(crate) fn write_from(
        &self,
        hidden: &Tensor,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
        scratch: &mut TailScratch,
    ) -> Result<(), ComputeError> {
        let is_elsewhere = portable::is_for(hidden.device());
        let ways = if is_elsewhere { self.pooling.shares(batch) } else { None };
        let Some(ways) = ways else {
            let write = |hidden: &[f32]| Ok(self.write(hidden, batch, rows, scratch));
            return read_values(hidden, write)?;
        };
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.ids.len()).collect();
        self.tail.write(rows, scratch, |rows| {
            for (at, shares) in (0..).step_by(self.width).zip(ways) {
                let pooled = portable::pool(hidden, &lengths, shares)?;
                let pooled = pooled.flatten_all()?.to_vec1::<f32>()?;
                for (row, pooled) in rows.iter_mut().zip(pooled.chunks_exact(self.width)) {
                    row[at..at + self.width].copy_from_slice(pooled);
                }
            }
            Ok(())
        })
    }

    /// Writes `rows[i]` from the token rows of `batch[i]`, its share of `hidden`.
    pub(crate) fn write(
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
