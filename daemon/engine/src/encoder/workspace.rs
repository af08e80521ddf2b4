//! The activations of one worker, kept from batch to batch.

use candle_core::{DType, Device, Result, Tensor};

use crate::layers::attention::AttentionScratch;

/// The buffers that a network computes in. They grow to the largest batch seen.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Rows that the buffers have memory for.
    rows: usize,
    /// One-dimensional, so that rows may have any width.
    buffers: Vec<Tensor>,
    pub(crate) attention: AttentionScratch,
}

impl Workspace {
    /// One buffer for `rows` rows of each width. Every call must pass the same widths and device.
    pub(crate) fn buffers<const N: usize>(
        &mut self,
        rows: usize,
        widths: [usize; N],
        device: &Device,
    ) -> Result<[Tensor; N]> {
        if rows > self.rows || self.buffers.len() != N {
            // Freed first, so that the old and the new ones are never in memory together.
            self.buffers.clear();
            self.rows = 0;
            for width in widths {
                self.buffers.push(Tensor::zeros(rows * width, DType::F32, device)?);
            }
            self.rows = rows;
        }
        Ok(std::array::from_fn(|i| self.buffers[i].clone()))
    }
}

/// The first `rows * width` values of a buffer, as `[rows, width]`.
pub(crate) fn view(buffer: &Tensor, rows: usize, width: usize) -> Result<Tensor> {
    buffer.narrow(0, 0, rows * width)?.reshape((rows, width))
}
