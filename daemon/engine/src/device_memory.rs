//! The memory of a device, and errors that are caused by a lack of it.

use std::fmt;

use candle_core::{Device, Error};

/// The memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceMemory {
    /// The device does not report it.
    Unknown,
    /// As reported by the device.
    Known {
        /// Bytes that no process uses.
        free_bytes: u64,
        /// Bytes in total.
        total_bytes: u64,
    },
}

impl DeviceMemory {
    /// The current memory of a device.
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
            Self::Unknown => f.write_str("its memory is unknown"),
            Self::Known { free_bytes, total_bytes } => {
                write!(f, "{} of {} are free", shown(*free_bytes), shown(*total_bytes))
            }
        }
    }
}

/// Whether an operation failed because the device had too little memory. The device stays usable: its
/// tensors are intact, and a smaller batch may succeed.
#[must_use]
pub fn is_out_of_memory(error: &Error) -> bool {
    match error {
        Error::WithBacktrace { inner, .. }
        | Error::Context { inner, .. }
        | Error::WithPath { inner, .. } => is_out_of_memory(inner),
        Error::Cuda(source) => is_of_cuda(&**source) || is_named(&source.to_string()),
        Error::WrappedContext { wrapped, .. } => is_named(&wrapped.to_string()),
        Error::Wrapped(source) => is_named(&source.to_string()),
        Error::Msg(text) => is_named(text),
        _ => false,
    }
}

/// The names of the errors of CUDA's driver and of cuBLAS. Their errors may arrive as text.
const NAMES: [&str; 2] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];

fn is_named(text: &str) -> bool {
    NAMES.iter().any(|name| text.contains(name))
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

/// Bytes in a readable unit.
fn shown(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use candle_core::Error;

    use super::{DeviceMemory, is_out_of_memory};

    #[test]
    fn out_of_memory_is_recognised_however_it_is_wrapped() {
        let cuda = |text: &str| Error::Cuda(text.into());
        let text = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        let backtrace = |inner| Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(std::backtrace::Backtrace::disabled()),
        };
        for error in [
            cuda(text),
            cuda("CublasError(CUBLAS_STATUS_ALLOC_FAILED)"),
            cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\") when loading binary"),
            backtrace(cuda(text)),
            backtrace(cuda(text).context("a layer")).with_path("model.safetensors"),
            Error::wrap(text),
            Error::Msg(text.into()),
            Error::WrappedContext { wrapped: text.into(), context: "a layer".into() },
        ] {
            assert!(is_out_of_memory(&error), "{error}");
        }
        for error in [
            cuda("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal access\")"),
            backtrace(cuda("CublasError(CUBLAS_STATUS_EXECUTION_FAILED)")),
            Error::Msg("no memory of this model".into()),
            // The context is not the error.
            Error::Msg("a shape".into()).context("CUDA_ERROR_OUT_OF_MEMORY"),
            Error::UnwrapNone,
        ] {
            assert!(!is_out_of_memory(&error), "{error}");
        }
    }

    #[test]
    fn figures_are_shown_in_readable_units() {
        let memory = DeviceMemory::Known { free_bytes: 512 << 20, total_bytes: 80 << 30 };
        assert_eq!(memory.to_string(), "512.0 MiB of 80.0 GiB are free");
    }
}
