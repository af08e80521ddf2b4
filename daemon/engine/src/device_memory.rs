//! The memory of the device that tensors are on: what it has, and whether it was the cause.

use std::fmt;

use candle_core::{Device, Error};

use crate::api::embedding::ComputeError;

/// What CUDA's driver and cuBLAS call it. Errors of theirs may come as text alone.
const NAMES: [&str; 2] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];

/// Whether an operation failed since the device had no memory for it. The device can be used further:
/// what was there is there, and less at a time may do.
#[must_use]
pub fn is_out_of_memory(error: &Error) -> bool {
    match error {
        Error::WithBacktrace { inner, .. }
        | Error::Context { inner, .. }
        | Error::WithPath { inner, .. } => is_out_of_memory(inner),
        Error::Cuda(source) => is_of_cuda(&**source) || is_named(&source.to_string()),
        Error::WrappedContext { wrapped, .. } => is_named(&wrapped.to_string()),
        Error::Wrapped(said) => is_named(&said.to_string()),
        Error::Msg(said) => is_named(said),
        _ => false,
    }
}

fn is_named(said: &str) -> bool {
    NAMES.iter().any(|name| said.contains(name))
}

#[cfg(feature = "cuda")]
fn is_of_cuda(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    use candle_core::cuda::CudaError;
    use candle_core::cuda::cudarc::cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED;
    use candle_core::cuda::cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    match source.downcast_ref::<CudaError>() {
        Some(CudaError::Cuda(error) | CudaError::Load { cuda: error, .. }) => {
            error.0 == CUDA_ERROR_OUT_OF_MEMORY
        }
        Some(CudaError::Cublas(error)) => error.0 == CUBLAS_STATUS_ALLOC_FAILED,
        _ => false,
    }
}

#[cfg(not(feature = "cuda"))]
fn is_of_cuda(_: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    false
}

/// What a device says of its memory, where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceMemory {
    /// It does not say.
    Unknown,
    /// It does.
    Known {
        /// What nobody has, in bytes.
        free_bytes: u64,
        /// All of it.
        total_bytes: u64,
    },
}

impl DeviceMemory {
    /// Asks the device.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(cuda) = device
            && let Ok((free, total)) = cuda.cuda_stream().context().mem_get_info()
        {
            return Self::Known { free_bytes: free as u64, total_bytes: total as u64 };
        }
        let _ = device;
        Self::Unknown
    }
}

impl fmt::Display for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it does not tell what it has"),
            Self::Known { free_bytes, total_bytes } => {
                write!(f, "{} of {} are free", shown(*free_bytes), shown(*total_bytes))
            }
        }
    }
}

/// The error of a computation over so many tokens on a device, with figures where it was a matter of
/// memory.
pub(crate) fn of_memory(error: ComputeError, device: &Device, tokens: usize) -> ComputeError {
    match error {
        ComputeError::Tensor(source) if is_out_of_memory(&source) => {
            let memory = DeviceMemory::of(device);
            ComputeError::OutOfMemory { tokens, memory, source: source.into() }
        }
        other => other,
    }
}

/// Bytes as people read them.
#[must_use]
fn shown(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::{DeviceMemory, is_out_of_memory, of_memory};
    use crate::api::embedding::ComputeError;
    use candle_core::{Device, Error};

    #[test]
    fn out_of_memory_is_told_apart_however_it_is_wrapped() {
        let cuda = |said: &str| Error::Cuda(said.into());
        let said = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        let backtrace = |inner| Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(std::backtrace::Backtrace::disabled()),
        };
        for error in [
            cuda(said),
            cuda("CublasError(CUBLAS_STATUS_ALLOC_FAILED)"),
            cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\") when loading binary"),
            backtrace(cuda(said)),
            backtrace(cuda(said).context("a layer")).with_path("model.safetensors"),
            Error::wrap(said),
            Error::Msg(said.into()),
            Error::WrappedContext { wrapped: said.into(), context: "a layer".into() },
        ] {
            assert!(is_out_of_memory(&error), "{error}");
        }
        for error in [
            cuda("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal access\")"),
            backtrace(cuda("CublasError(CUBLAS_STATUS_EXECUTION_FAILED)")),
            Error::Msg("no memory of this model".into()),
            // What was done meanwhile is not what failed.
            Error::Msg("a shape".into()).context("CUDA_ERROR_OUT_OF_MEMORY"),
            Error::UnwrapNone,
        ] {
            assert!(!is_out_of_memory(&error), "{error}");
        }
    }

    #[test]
    fn the_error_of_a_computation_tells_what_there_was_to_compute() {
        let error = Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".into());
        let error = of_memory(error.into(), &Device::Cpu, 4096);
        assert!(matches!(error, ComputeError::OutOfMemory { tokens: 4096, .. }), "{error}");
        assert!(error.to_string().contains("4096 tokens"), "{error}");
        let other = of_memory(Error::Msg("a shape".into()).into(), &Device::Cpu, 4096);
        assert!(matches!(other, ComputeError::Tensor(_)), "{other}");
        let memory = DeviceMemory::Known { free_bytes: 512 << 20, total_bytes: 80 << 30 };
        assert_eq!(memory.to_string(), "512.0 MiB of 80.0 GiB are free");
    }
}
