//! NVIDIA GPUs, through their driver.
//!
//! `cuMemAllocAsync` allocates tensors in the device's pool. The pool keeps freed memory (its release
//! threshold is unlimited): otherwise each batch, which ends in a synchronisation, would give its
//! memory back to the driver and allocate it again. So memory goes back when the pool is trimmed,
//! after a model was unloaded.
//!
//! All models on a GPU share one candle device: the driver reads its kernels once, cuBLAS has one
//! workspace, and one stream orders the work of all threads.

use crate::models::devices::gpu::{Found, Gpu, GpuError, GpuMemory};
use candle_core::cuda::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda::cudarc::driver::sys::{CUmemPool_attribute as Attribute, CUmemoryPool};
use candle_core::cuda::cudarc::driver::{CudaContext, DriverError};
use candle_core::{CudaDevice, Device, Tensor};
use std::ffi::c_void;
use std::sync::Arc;

/// All GPUs that the driver shows; the driver itself reads `CUDA_VISIBLE_DEVICES`.
pub(super) fn find() -> Found {
    let mut found = Found::default();
    let count = match CudaContext::device_count() {
        Ok(count) => u32::try_from(count).unwrap_or(0),
        Err(error) => {
            found.missing.push(format!("no GPU driver is installed, or it fails: {error}"));
            return found;
        }
    };
    if count == 0 {
        found.missing.push("the driver shows no GPU".into());
    }
    for number in 0..count {
        match CudaGpu::open(number) {
            Ok(gpu) => found.gpus.push((number, Box::new(gpu))),
            Err(error) => found.missing.push(format!("cuda:{number} cannot be used: {error}")),
        }
    }
    found
}

#[derive(Debug)]
struct CudaGpu {
    name: String,
    device: CudaDevice,
}

impl CudaGpu {
    fn open(number: u32) -> Result<Self, GpuError> {
        let ordinal = usize::try_from(number).map_err(message)?;
        let device = CudaDevice::new_with_stream(ordinal).map_err(message)?;
        let name = device.cuda_stream().context().name().map_err(message)?;
        let gpu = Self { name, device };
        gpu.check().map_err(message)?;
        gpu.keep_freed().map_err(message)?;
        Ok(gpu)
    }

    /// Runs a kernel and a matrix product. They fail if this program was built for other GPUs or a
    /// library is missing, which must be known before a model is placed.
    fn check(&self) -> candle_core::Result<()> {
        let device = Device::Cuda(self.device.clone());
        let ones = Tensor::ones((2, 2), candle_core::DType::F32, &device)?;
        let twos = ones.matmul(&ones)?.affine(2.0, -2.0)?.to_vec2::<f32>()?;
        if twos != [[2.0; 2]; 2] {
            candle_core::bail!("it computed {twos:?} instead of 2");
        }
        Ok(())
    }

    fn context(&self) -> Arc<CudaContext> {
        Arc::clone(self.device.cuda_stream().context())
    }

    /// `None` if the device has no pools: then memory goes back as soon as it is freed.
    fn pool(&self) -> Result<Option<CUmemoryPool>, DriverError> {
        let context = self.context();
        if !context.has_async_alloc() {
            return Ok(None);
        }
        // SAFETY: the device comes from the driver, by a context that lives as long as `self`.
        unsafe { device::get_mem_pool(context.cu_device()) }.map(Some)
    }

    fn keep_freed(&self) -> Result<(), DriverError> {
        let Some(pool) = self.pool()? else { return Ok(()) };
        let mut bytes = u64::MAX;
        let value: *mut c_void = (&raw mut bytes).cast();
        let threshold = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is the device's current one; this attribute is of type `u64`, and `bytes`
        // outlives the call.
        unsafe { mem_pool::set_attribute(pool, threshold, value) }
    }

    /// The memory that the pool holds, used or not.
    fn pool_bytes(&self) -> Result<u64, DriverError> {
        let Some(pool) = self.pool()? else { return Ok(0) };
        let mut bytes = 0u64;
        let value: *mut c_void = (&raw mut bytes).cast();
        let reserved = Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        // SAFETY: the pool is the device's current one; this attribute is of type `u64`, and `bytes`
        // outlives the call.
        unsafe { mem_pool::get_attribute(pool, reserved, value) }?;
        Ok(bytes)
    }
}

impl Gpu for CudaGpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn memory(&self) -> Result<GpuMemory, GpuError> {
        let (free, total) = self.context().mem_get_info().map_err(message)?;
        Ok(GpuMemory {
            total_bytes: total as u64,
            free_bytes: free as u64,
            own_bytes: self.pool_bytes().map_err(message)?,
        })
    }

    fn trim(&self, keep_bytes: u64) -> Result<(), GpuError> {
        self.context().synchronize().map_err(message)?;
        let Some(pool) = self.pool().map_err(message)? else { return Ok(()) };
        let keep = usize::try_from(keep_bytes).unwrap_or(usize::MAX);
        // SAFETY: the pool is the device's current one. It gives back only what no allocation uses.
        unsafe { mem_pool::trim_to(pool, keep) }.map_err(message)
    }

    /// Allocates the memory and frees it at once: the pool keeps freed memory.
    fn reserve(&self, bytes: u64) -> Result<(), GpuError> {
        let stream = self.device.cuda_stream();
        let len = usize::try_from(bytes).map_err(message)?;
        drop(stream.alloc_zeros::<u8>(len).map_err(message)?);
        stream.synchronize().map_err(message)
    }

    fn tensors(&self) -> Device {
        Device::Cuda(self.device.clone())
    }
}

/// The first line of an error: a backtrace may follow.
fn message(error: impl std::fmt::Display) -> GpuError {
    GpuError(error.to_string().lines().next().unwrap_or_default().to_owned())
}
