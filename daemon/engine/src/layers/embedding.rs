//! The embedding layer: the sum of the rows of a token, its position and its segment.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};

use crate::api::sequence::Sequence;
use crate::kernels::panels::Panels;
use crate::layers::norm::Norm;
use crate::layers::portable;
use crate::layers::storage::{values_mut, with_panels, with_values};

/// The embedding layer.
#[derive(Debug)]
pub(crate) struct Embedding {
    /// `[vocabulary, width]`, of f32 or on the CPU of bf16.
    pub(crate) tokens: Tensor,
    /// The factor of token rows.
    pub(crate) scale: f32,
    /// `[segments, width]`: a row for each text of a pair.
    pub(crate) segments: Option<Tensor>,
    pub(crate) positions: Option<Positions>,
    pub(crate) norm: Option<Norm>,
}

/// A table of rows by position.
#[derive(Debug)]
pub(crate) struct Positions {
    /// `[positions, width]`
    pub(crate) rows: Tensor,
    /// The id of the padding token, in models that count positions from the row behind this id. A text
    /// may contain the token: it has the row of its id, and the count goes on behind it.
    pub(crate) padding: Option<u32>,
}

impl Embedding {
    /// A layer of token rows alone.
    pub(crate) fn of_tokens(tokens: Tensor) -> Self {
        Self { tokens, scale: 1.0, segments: None, positions: None, norm: None }
    }

    /// Writes the rows of packed sequences to `hidden`.
    pub(crate) fn forward(&self, sequences: &[&Sequence], hidden: &Tensor) -> Result<()> {
        if portable::is_for(hidden.device()) {
            return self.forward_portable(sequences, hidden);
        }
        hidden.inplace_op1(&Lookup { layer: self, sequences })
    }

    /// By tensor operations. Ids are checked here, because a GPU does not check them.
    fn forward_portable(&self, sequences: &[&Sequence], hidden: &Tensor) -> Result<()> {
        let ids = sequences.iter().flat_map(|sequence| sequence.ids.iter().copied());
        let ids: Vec<u32> = ids.collect();
        let vocabulary = self.tokens.dim(0)?;
        if let Some(id) = ids.iter().find(|&&id| index(id) >= vocabulary) {
            bail!("token {id} is beyond the vocabulary of the weights");
        }
        let mut rows = portable::rows(&self.tokens, ids)?.affine(f64::from(self.scale), 0.0)?;
        if let Some(segments) = &self.segments {
            rows = rows.add(&rows_at(segments, sequences, segment_in(segments)?)?)?;
        }
        if let Some(positions) = &self.positions {
            rows = rows.add(&rows_at(&positions.rows, sequences, positions.index_of())?)?;
        }
        match &self.norm {
            Some(norm) => norm.write(&rows, hidden),
            None => portable::write(hidden, &rows),
        }
    }

    /// Adds to the row of each token the row of a table with the index that `index_of` finds.
    fn add(
        &self,
        table: &Tensor,
        sequences: &[&Sequence],
        hidden: &mut [f32],
        mut index_of: impl FnMut(&Sequence, usize) -> usize,
    ) -> Result<()> {
        let width = self.tokens.dim(1)?;
        with_values(table, |table| {
            let mut rows = hidden.chunks_exact_mut(width);
            for sequence in sequences {
                for (i, row) in (0..sequence.ids.len()).zip(&mut rows) {
                    let at = index_of(sequence, i).saturating_mul(width);
                    let Some(added) = table.get(at..at.saturating_add(width)) else {
                        let tokens = sequence.ids.len();
                        bail!("a sequence of {tokens} tokens is longer than the model reads");
                    };
                    row.iter_mut().zip(added).for_each(|(x, y)| *x += y);
                }
            }
            Ok(())
        })
    }
}

impl Positions {
    /// The row of the `i`-th token of a sequence, for tokens in their order.
    fn index_of(&self) -> impl FnMut(&Sequence, usize) -> usize {
        let padding = self.padding;
        let mut next = 0;
        move |sequence, i| {
            let Some(padding) = padding else { return i };
            if i == 0 {
                next = index(padding);
            }
            if sequence.ids[i] == padding {
                return index(padding);
            }
            next += 1;
            next
        }
    }
}

/// The layer, and the tokens to look up.
struct Lookup<'a> {
    layer: &'a Embedding,
    sequences: &'a [&'a Sequence],
}

impl InplaceOp1 for Lookup<'_> {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, hidden: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (count, width) = layout.shape().dims2()?;
        let tokens: usize = self.sequences.iter().map(|sequence| sequence.ids.len()).sum();
        if count != tokens || self.layer.tokens.dim(1)? != width {
            bail!("embedding: {count} rows of {width} for {tokens} tokens");
        }
        let hidden = values_mut(hidden, layout)?;
        let ids = self.sequences.iter().flat_map(|sequence| &sequence.ids);
        let scale = self.layer.scale;
        with_panels(&self.layer.tokens, |table| {
            for (row, &id) in hidden.chunks_exact_mut(width).zip(ids) {
                let at = index(id).saturating_mul(width);
                let span = at..at.saturating_add(width);
                let is_there = match table {
                    Panels::F32(table) => table.get(span).map(|token| {
                        row.iter_mut().zip(token).for_each(|(x, t)| *x = t * scale);
                    }),
                    Panels::Bf16(table) => table.get(span).map(|token| {
                        row.iter_mut().zip(token).for_each(|(x, t)| *x = t.to_f32() * scale);
                    }),
                };
                if is_there.is_none() {
                    bail!("token {id} is beyond the vocabulary of the weights");
                }
            }
            Ok(())
        })?;
        if let Some(segments) = &self.layer.segments {
            let segment = segment_in(segments)?;
            self.layer.add(segments, self.sequences, hidden, segment)?;
        }
        if let Some(positions) = &self.layer.positions {
            self.layer.add(&positions.rows, self.sequences, hidden, positions.index_of())?;
        }
        match &self.layer.norm {
            Some(norm) => norm.rows(hidden, None),
            None => Ok(()),
        }
    }
}

/// The row of the `i`-th token's segment, in a table of one or two rows.
fn segment_in(segments: &Tensor) -> Result<impl FnMut(&Sequence, usize) -> usize + use<>> {
    let last = segments.dim(0)?.saturating_sub(1);
    Ok(move |sequence: &Sequence, i| {
        let is_second = sequence.first_len > 0 && i >= sequence.first_len;
        usize::from(is_second).min(last)
    })
}

/// For each token the row of a table with the index that `index_of` finds.
fn rows_at(
    table: &Tensor,
    sequences: &[&Sequence],
    mut index_of: impl FnMut(&Sequence, usize) -> usize,
) -> Result<Tensor> {
    let count = table.dim(0)?;
    let mut indices = Vec::new();
    for sequence in sequences {
        for i in 0..sequence.ids.len() {
            let at = index_of(sequence, i);
            if at >= count {
                let tokens = sequence.ids.len();
                bail!("a sequence of {tokens} tokens is longer than the model reads");
            }
            indices.push(u32::try_from(at)?);
        }
    }
    portable::rows(table, indices)
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{Embedding, Positions};
    use crate::api::sequence::Sequence;
    use crate::layers::norm::{LayerNorm, Norm};

    fn layer(padding: Option<u32>) -> Embedding {
        let device = &Device::Cpu;
        Embedding {
            tokens: Tensor::new(&[[0f32, 0.0], [1.0, 0.0]], device).unwrap(),
            scale: 1.0,
            segments: None,
            positions: Some(Positions {
                rows: Tensor::new(&[[0f32, 3.0], [3.0, 0.0]], device).unwrap(),
                padding,
            }),
            norm: None,
        }
    }

    fn run(layer: &Embedding, sequences: &[Sequence]) -> candle_core::Result<Vec<Vec<f32>>> {
        let rows = sequences.iter().map(|sequence| sequence.ids.len()).sum::<usize>();
        let hidden = Tensor::zeros((rows, 2), DType::F32, &Device::Cpu)?;
        layer.forward(&sequences.iter().collect::<Vec<_>>(), &hidden)?;
        hidden.to_vec2()
    }

    fn sequence(ids: &[u32]) -> Sequence {
        Sequence { ids: ids.to_vec(), ..Sequence::default() }
    }

    #[test]
    fn positions_start_anew_with_each_sequence_and_rows_are_normalised() {
        let mut layer = layer(None);
        let sequences = [sequence(&[0, 1]), sequence(&[]), sequence(&[1])];
        assert_eq!(run(&layer, &sequences).unwrap(), [[0.0, 3.0], [4.0, 0.0], [1.0, 3.0]]);
        layer.norm = Some(Norm::Layer(LayerNorm {
            weight: Tensor::ones(2, DType::F32, &Device::Cpu).unwrap(),
            bias: Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap(),
            epsilon: 0.0,
        }));
        assert_eq!(run(&layer, &sequences).unwrap(), [[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]);
    }

    #[test]
    fn the_padding_token_takes_no_position() {
        let mut layer = layer(Some(1));
        let rows = Tensor::new(&[[9f32, 9.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], &Device::Cpu);
        layer.positions.as_mut().unwrap().rows = rows.unwrap();
        let rows = run(&layer, &[sequence(&[0, 1, 0]), sequence(&[0])]).unwrap();
        assert_eq!(rows, [[0.0, 2.0], [1.0, 1.0], [0.0, 3.0], [0.0, 2.0]]);
    }

    #[test]
    fn the_second_text_of_a_pair_is_of_another_segment() {
        let mut layer = layer(None);
        layer.positions = None;
        layer.scale = 2.0;
        layer.segments = Some(Tensor::new(&[[10f32, 0.0], [20.0, 0.0]], &Device::Cpu).unwrap());
        let pair = Sequence { first_len: 1, ..sequence(&[1, 1]) };
        let rows = run(&layer, &[pair, sequence(&[1, 0])]).unwrap();
        assert_eq!(rows, [[12.0, 0.0], [22.0, 0.0], [12.0, 0.0], [10.0, 0.0]]);
        // A model with one kind of segment has no other for the second text.
        layer.segments = Some(Tensor::new(&[[10f32, 0.0]], &Device::Cpu).unwrap());
        let pair = Sequence { first_len: 1, ..sequence(&[1, 1]) };
        assert_eq!(run(&layer, &[pair]).unwrap(), [[12.0, 0.0], [12.0, 0.0]]);
    }

    #[test]
    fn ids_and_lengths_beyond_the_tables_are_errors() {
        for (ids, word) in
            [(&[2][..], "vocabulary"), (&[u32::MAX], "vocabulary"), (&[0, 0, 0], "longer")]
        {
            let error = run(&layer(None), &[sequence(ids)]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let hidden = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let error = layer(None).forward(&[&sequence(&[0])], &hidden).unwrap_err().to_string();
        assert!(error.contains("rows"), "{error}");
    }
}
