//! Activations of one worker, kept from batch to batch.

use candle_core::{DType, Device, Result, Tensor};

use crate::layers::attention::AttentionScratch;

/// What a network computes in. It grows to the largest batch seen.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// For how many rows there is room.
    rows: usize,
    /// Flat, so that rows of any width fit.
    buffers: Vec<Tensor>,
    pub(crate) attention: AttentionScratch,
}

impl Workspace {
    /// Buffers for so many rows of these widths, which are the same at each call, and so
    /// is the device.
    pub(crate) fn buffers<const N: usize>(
        &mut self,
        rows: usize,
        widths: [usize; N],
        device: &Device,
    ) -> Result<[Tensor; N]> {
        if rows > self.rows || self.buffers.len() != N {
            // Given up first, so that old and new never stand side by side.
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

/// The front of a buffer as rows.
pub(crate) fn view(buffer: &Tensor, rows: usize, width: usize) -> Result<Tensor> {
    buffer.narrow(0, 0, rows * width)?.reshape((rows, width))
}
