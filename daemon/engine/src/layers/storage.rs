//! Tensors in CPU memory as slices.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::kernels::panels::Panels;

/// The values of an operand. Layers take row-major `f32` only.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = span(layout)?;
    match storage.as_slice::<f32>()?.get(start..end) {
        Some(values) => Ok(values),
        None => bail!("a tensor extends beyond its storage"),
    }
}

/// The values of the tensor that an operation writes.
pub(crate) fn values_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<&'a mut [f32]> {
    let (start, end) = span(layout)?;
    let CpuStorage::F32(values) = storage else {
        bail!("a layer writes f32 tensors only");
    };
    match values.get_mut(start..end) {
        Some(values) => Ok(values),
        None => bail!("a tensor extends beyond its storage"),
    }
}

/// Calls `read` with the values of a tensor in CPU memory.
pub(crate) fn with_values<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("the weights of a layer on the CPU are on another device");
    };
    read(values(storage, layout)?)
}

/// Calls `read` with the values of weights in CPU memory, of either type.
pub(crate) fn with_panels<T>(
    tensor: &Tensor,
    read: impl FnOnce(Panels<'_>) -> Result<T>,
) -> Result<T> {
    if tensor.dtype() == DType::F32 {
        return with_values(tensor, |values| read(Panels::F32(values)));
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("the weights of a layer on the CPU are on another device");
    };
    let (start, end) = span(layout)?;
    match storage.as_slice::<bf16>()?.get(start..end) {
        Some(values) => read(Panels::Bf16(values)),
        None => bail!("a tensor extends beyond its storage"),
    }
}

/// Numbers rounded to 16 bits.
pub(crate) fn narrowed(values: &[f32]) -> Vec<bf16> {
    let mut narrow = vec![bf16::ZERO; values.len()];
    narrow.convert_from_f32_slice(values);
    narrow
}

/// As [`with_values`], for results: they are copied from a GPU.
pub(crate) fn read_values<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    if tensor.device().is_cpu() {
        return with_values(tensor, read);
    }
    read(&tensor.flatten_all()?.to_vec1()?)
}

fn span(layout: &Layout) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(span) => Ok(span),
        None => bail!("a layer needs row-major tensors"),
    }
}
