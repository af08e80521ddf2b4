//! Pooling, several texts of the same length at a time.

use candle_core::{DType, Result, Tensor};

/// The weighted sum of the rows of each packed sequence. `weights` has a weight for each row of `hidden`.
pub(crate) fn pool(hidden: &Tensor, lengths: &[usize], weights: Vec<f32>) -> Result<Tensor> {
    let (tokens, width) = hidden.dims2()?;
    let weights = Tensor::from_vec(weights, tokens, hidden.device())?;
    let mut from = 0;
    let mut pooled = Vec::new();
    for run in lengths.chunk_by(|a, b| a == b) {
        let (count, len) = (run.len(), run[0]);
        pooled.push(if len == 0 {
            Tensor::zeros((count, width), DType::F32, hidden.device())?
        } else {
            let rows = hidden.narrow(0, from, count * len)?.reshape((count, len, width))?;
            let weights = weights.narrow(0, from, count * len)?.reshape((count, 1, len))?;
            weights.matmul(&rows)?.reshape((count, width))?
        });
        from += count * len;
    }
    Tensor::cat(&pooled, 0)
}
