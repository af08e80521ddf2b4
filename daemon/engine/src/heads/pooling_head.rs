//! From the rows of tokens to the row of a text: pooling, and the modules behind it.

use candle_core::Tensor;

use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::checkpoint::layout::PoolingHeadSpec;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::pooling::Pooling;
use crate::heads::post_pooling::{PostPooling, PostPoolingScratch};
use crate::layers::{portable, read_values};

/// Pooling and the modules behind it, with their weights.
#[derive(Debug)]
pub(crate) struct PoolingHead {
    pooling: Pooling,
    post_pooling: PostPooling,
    /// Values of a token row.
    width: usize,
}

impl PoolingHead {
    /// Reads the weights of the head of a network with token rows of `width` values.
    pub(crate) fn load(spec: &PoolingHeadSpec, width: usize) -> Result<Self, LoadError> {
        let pooling = spec.pooling.clone();
        let post_pooling = PostPooling::load(&spec.modules, pooling.outputs(width))?;
        Ok(Self { pooling, post_pooling, width })
    }

    /// Values of a row.
    pub(crate) fn outputs(&self) -> usize {
        self.post_pooling.outputs()
    }

    /// Whether rows have unit length.
    pub(crate) fn normalizes(&self) -> bool {
        self.post_pooling.normalizes()
    }

    /// Bytes of its weights.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.post_pooling.weight_bytes()
    }

    /// Its settings and a hash of its weights, for a fingerprint.
    pub(crate) fn identity(&self) -> Vec<u8> {
        [format!("{:?}", self.pooling).as_bytes(), self.post_pooling.digest()].concat()
    }

    /// As [`write`](Self::write), from a tensor. On a GPU the texts are pooled there, so that one row a
    /// text is copied to the CPU, unless a way to pool is no weighted sum.
    pub(super) fn write_from(
        &self,
        hidden: &Tensor,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
        scratch: &mut PostPoolingScratch,
    ) -> Result<(), ComputeError> {
        let is_elsewhere = portable::is_for(hidden.device());
        let weights = if is_elsewhere { self.pooling.token_weights(batch) } else { None };
        let Some(weights) = weights else {
            let write = |hidden: &[f32]| Ok(self.write(hidden, batch, rows, scratch));
            return read_values(hidden, write)?;
        };
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.ids.len()).collect();
        self.post_pooling.write(rows, scratch, |rows| {
            for (at, weights) in (0..).step_by(self.width).zip(weights) {
                let pooled = portable::pool(hidden, &lengths, weights)?;
                let pooled = pooled.flatten_all()?.to_vec1::<f32>()?;
                for (row, pooled) in rows.iter_mut().zip(pooled.chunks_exact(self.width)) {
                    row[at..at + self.width].copy_from_slice(pooled);
                }
            }
            Ok(())
        })
    }

    /// Writes `rows[i]` from the token rows of `batch[i]`, which lie one text behind another in
    /// `hidden`.
    pub(super) fn write(
        &self,
        hidden: &[f32],
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
        scratch: &mut PostPoolingScratch,
    ) -> Result<(), ComputeError> {
        self.post_pooling.write(rows, scratch, |rows| {
            self.pooling.write(hidden, self.width, batch, rows);
            Ok(())
        })
    }
}
