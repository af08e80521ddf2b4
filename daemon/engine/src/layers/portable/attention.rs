//! Attention, several sequences of the same length at a time.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::layers::attention_shape::{Attention, Reach};
use crate::layers::relative_bias::RelativeBias;

/// The most scores in memory at once, over all heads: enough to keep a GPU busy, in 64 MiB.
pub(crate) const MAX_SCORES: usize = 16 << 20;

/// Added to the scores of keys out of reach. After the softmax their weights are 0.
const MASKED: f64 = -1e30;

/// As [`Attention::forward`]. Neighbouring sequences of the same length are computed together; batches
/// are sorted by length.
pub(crate) fn attention(
    shape: Attention,
    qkv: &Tensor,
    context: &Tensor,
    lengths: &[usize],
    bias: Option<&RelativeBias>,
) -> Result<()> {
    let mut from = 0;
    for run in lengths.chunk_by(|a, b| a == b).filter(|run| run[0] > 0) {
        let len = run[0];
        let together = (MAX_SCORES / (shape.heads * len * len)).max(1);
        for part in run.chunks(together) {
            let tokens = part.len() * len;
            let heads = Heads::of(shape, &qkv.narrow(0, from, tokens)?, part.len(), len)?;
            heads.attend(shape, context, from, bias)?;
            from += tokens;
        }
    }
    Ok(())
}

/// The operands of some sequences of one length, `[sequences, heads, len, head width]`. Keys and values
/// are repeated for each head of queries.
struct Heads {
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
}

impl Heads {
    fn of(shape: Attention, rows: &Tensor, sequences: usize, len: usize) -> Result<Self> {
        let Attention { heads, key_heads, head_width, .. } = shape;
        let rows = rows.reshape((sequences, len, heads + 2 * key_heads, head_width))?;
        let rows = rows.transpose(1, 2)?;
        let shared = |first: usize| {
            let own = rows.narrow(1, first, key_heads)?;
            let own = own.unsqueeze(2)?;
            let each = (sequences, key_heads, heads / key_heads, len, head_width);
            own.broadcast_as(each)?.contiguous()?.reshape((sequences, heads, len, head_width))
        };
        Ok(Self {
            queries: rows.narrow(1, 0, heads)?.contiguous()?,
            keys: shared(heads)?,
            values: shared(heads + key_heads)?,
        })
    }

    /// Writes the context of these sequences to the rows from `from` on.
    fn attend(
        &self,
        shape: Attention,
        context: &Tensor,
        from: usize,
        bias: Option<&RelativeBias>,
    ) -> Result<()> {
        let (sequences, heads, len, _) = self.queries.dims4()?;
        // A long sequence is computed alone, and may be computed in parts.
        let at_once = (MAX_SCORES / (heads * len)).clamp(1, len);
        let at_once = if sequences == 1 { at_once } else { len };
        let keys = self.keys.t()?;
        for first in (0..len).step_by(at_once) {
            let count = at_once.min(len - first);
            let queries = self.queries.narrow(2, first, count)?.contiguous()?;
            let mut scores = queries.matmul(&keys)?.affine(f64::from(shape.scale), 0.0)?;
            let distances = Distances { first, count, len, device: queries.device() };
            if let Some(bias) = bias {
                scores = scores.broadcast_add(&distances.bias(bias)?)?;
            }
            if let Some(mask) = distances.mask(shape.reach)? {
                scores = scores.broadcast_add(&mask)?;
            }
            let rows = softmax_last_dim(&scores)?.matmul(&self.values)?;
            let rows = rows.transpose(1, 2)?.contiguous()?;
            let rows = rows.reshape((sequences * count, shape.width()))?;
            context.slice_set(&rows, 0, from + first)?;
        }
        Ok(())
    }
}

/// The distances from some queries to all keys: the position of the key less that of the query.
struct Distances<'a> {
    first: usize,
    count: usize,
    len: usize,
    device: &'a Device,
}

impl Distances<'_> {
    /// `[count, len]`
    fn values(&self) -> Result<Tensor> {
        let positions = |from, to| {
            let positions = Tensor::arange(position(from)?, position(to)?, self.device)?;
            positions.to_dtype(DType::F32)
        };
        let queries = positions(self.first, self.first + self.count)?.unsqueeze(1)?;
        positions(0, self.len)?.unsqueeze(0)?.broadcast_sub(&queries)
    }

    /// What is added to the scores, `[count, len]`; `None` if all keys are in reach.
    fn mask(&self, reach: Reach) -> Result<Option<Tensor>> {
        let is_masked = match reach {
            Reach::All => return Ok(None),
            Reach::Before => self.values()?.gt(0f32)?,
            Reach::Near(far) if far >= self.len => return Ok(None),
            Reach::Near(far) => self.values()?.abs()?.gt(f64::from(position(far)?))?,
        };
        is_masked.to_dtype(DType::F32)?.affine(MASKED, 0.0).map(Some)
    }

    /// `[heads, count, len]`
    fn bias(&self, bias: &RelativeBias) -> Result<Tensor> {
        let (curves, reach) = bias.curves();
        let curve_len = 2 * reach + 1;
        let curves =
            Tensor::from_slice(curves, (curves.len() / curve_len, curve_len), self.device)?;
        let reach = f64::from(position(reach)?);
        let at = self.values()?.clamp(-reach, reach)?.affine(1.0, reach)?.to_dtype(DType::U32)?;
        let values = curves.index_select(&at.flatten_all()?, D::Minus1)?;
        values.reshape(((), self.count, self.len))
    }
}

/// A position in a sequence. As an f32 it is exact up to 2^24.
fn position(position: usize) -> Result<u32> {
    Ok(u32::try_from(position)?)
}
