//! The layout of the right-hand matrix of a product: panels.
//!
//! A panel holds [`PANEL`] columns of the matrix, row after row, so that the inner loop of a product
//! ([`crate::kernels::product`]) reads it sequentially. The last panel is padded with zeros.

use half::bf16;

/// A packed matrix, by the type of its values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Panels<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl Panels<'_> {
    /// The number of values.
    pub(super) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// The number of values of a packed matrix.
pub(crate) fn packed_len(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(PANEL) * depth
}

/// Packs the transpose of a row-major matrix: its row `r` becomes column `first_column + r`.
///
/// A row starts every `stride` values and has `depth` of them. This is how a linear layer's weights
/// are stored (`[outputs, inputs]`), and how keys are multiplied with queries.
pub(crate) fn pack_transposed(
    matrix: &[f32],
    stride: usize,
    depth: usize,
    first_column: usize,
    panels: &mut [f32],
) {
    for (column, row) in (first_column..).zip(matrix.chunks(stride)) {
        let panel = &mut panels[column / PANEL * PANEL * depth..][..PANEL * depth];
        for (slot, &value) in panel[column % PANEL..].iter_mut().step_by(PANEL).zip(&row[..depth]) {
            *slot = value;
        }
    }
}

/// The reverse of [`pack_transposed`]: the packed rows, one after the other.
pub(crate) fn unpack_transposed(panels: &[f32], depth: usize, columns: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(columns * depth);
    for column in 0..columns {
        let panel = &panels[column / PANEL * PANEL * depth..][..PANEL * depth];
        rows.extend(panel[column % PANEL..].iter().step_by(PANEL));
    }
    rows
}

/// Packs a row-major matrix without transposing it: its row `r` becomes row `r` of each panel.
pub(crate) fn pack_rows(matrix: &[f32], stride: usize, columns: usize, panels: &mut [f32]) {
    let depth = matrix.len().div_ceil(stride);
    for (p, first) in (0..columns).step_by(PANEL).enumerate() {
        let width = PANEL.min(columns - first);
        let panel = &mut panels[p * PANEL * depth..][..PANEL * depth];
        for (slots, row) in panel.chunks_exact_mut(PANEL).zip(matrix.chunks(stride)) {
            slots[..width].copy_from_slice(&row[first..first + width]);
            slots[width..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{pack_rows, pack_transposed, packed_len, unpack_transposed};
    use crate::kernels::tests::noise;

    #[test]
    fn packing_rows_is_packing_the_transpose_the_other_way() {
        let (depth, columns, stride) = (5, 45, 50);
        let matrix = noise((depth - 1) * stride + columns, 4);
        let transposed: Vec<f32> = (0..columns)
            .flat_map(|c| (0..depth).map(move |k| (c, k)))
            .map(|(c, k)| matrix[k * stride + c])
            .collect();
        let mut by_rows = vec![7.0; packed_len(depth, columns)];
        pack_rows(&matrix, stride, columns, &mut by_rows);
        let mut by_columns = vec![0.0; packed_len(depth, columns)];
        pack_transposed(&transposed, depth, depth, 0, &mut by_columns);
        assert_eq!(by_rows, by_columns);
        assert_eq!(unpack_transposed(&by_columns, depth, columns), transposed);
    }
}
