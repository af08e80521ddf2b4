//! One row of many, for several texts of the same length at a time.

use candle_core::{DType, Result, Tensor};

/// For each of the packed sequences the sum of its rows, each row as often as its share says. There is
/// a share for each row.
pub(crate) fn pool(hidden: &Tensor, lengths: &[usize], shares: Vec<f32>) -> Result<Tensor> {
    let (tokens, width) = hidden.dims2()?;
    let shares = Tensor::from_vec(shares, tokens, hidden.device())?;
    let mut from = 0;
    let mut pooled = Vec::new();
    for run in lengths.chunk_by(|a, b| a == b) {
        let (count, len) = (run.len(), run[0]);
        pooled.push(if len == 0 {
            Tensor::zeros((count, width), DType::F32, hidden.device())?
        } else {
            let rows = hidden.narrow(0, from, count * len)?.reshape((count, len, width))?;
            let shares = shares.narrow(0, from, count * len)?.reshape((count, 1, len))?;
            shares.matmul(&rows)?.reshape((count, width))?
        });
        from += count * len;
    }
    Tensor::cat(&pooled, 0)
}
