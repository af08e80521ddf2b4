//! Why a computation failed.

use candle_core::Device;

use crate::device_memory::{DeviceMemory, is_out_of_memory};

/// Why a computation failed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The tensor library refused an operation.
    #[error("the computation failed")]
    Tensor(#[from] candle_core::Error),
    /// The device has too little memory for the batch. A smaller batch may succeed.
    #[error("the device has too little memory for {tokens} tokens at once ({memory})")]
    OutOfMemory {
        /// Tokens of the batch.
        tokens: usize,
        /// Memory of the device.
        memory: DeviceMemory,
        /// The error of the tensor library.
        source: Box<candle_core::Error>,
    },
    /// A model for single texts was given a pair.
    #[error("this model takes no pairs of texts")]
    NoPairs,
    /// A decoder was called in a way that its contract rules out.
    #[error("cannot generate: {0}")]
    Generation(&'static str),
    /// The tokenizer refused a text.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller did not pass one row for each sequence.
    #[error("{sequences} sequences cannot be written to {rows} rows")]
    RowCount {
        /// Sequences of the call.
        sequences: usize,
        /// Rows of the call.
        rows: usize,
    },
    /// The caller passed a row of another length than the model's dimension.
    #[error("a row has {found} values, the model writes {wanted}")]
    RowLength {
        /// Values of the row.
        found: usize,
        /// The dimension of the model.
        wanted: usize,
    },
}

impl ComputeError {
    /// The same error of a computation over `tokens` tokens on a device; with figures, if the device
    /// ran out of memory.
    pub(crate) fn or_out_of_memory(self, device: &Device, tokens: usize) -> Self {
        match self {
            Self::Tensor(source) if is_out_of_memory(&source) => {
                let memory = DeviceMemory::of(device);
                Self::OutOfMemory { tokens, memory, source: source.into() }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Error};

    use super::ComputeError;

    #[test]
    fn an_out_of_memory_error_names_the_size_of_the_batch() {
        let error = ComputeError::from(Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".into()));
        let error = error.or_out_of_memory(&Device::Cpu, 4096);
        assert!(matches!(error, ComputeError::OutOfMemory { tokens: 4096, .. }), "{error}");
        assert!(error.to_string().contains("4096 tokens"), "{error}");
        let other = ComputeError::from(Error::Msg("a shape".into()));
        let other = other.or_out_of_memory(&Device::Cpu, 4096);
        assert!(matches!(other, ComputeError::Tensor(_)), "{other}");
    }
}
