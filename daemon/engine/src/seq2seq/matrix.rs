//! Packed weight matrices, and tables of token rows.

use std::ops::Range;
use std::sync::Arc;

use crate::kernels::epilogue::Plain;
use crate::kernels::panels::{PANEL, Panels, pack_transposed, packed_len};
use crate::kernels::product::Product;

/// The packed weights of a linear layer. Outputs can be computed panel by panel.
#[derive(Debug)]
pub(super) struct Matrix {
    panels: Vec<f32>,
    /// One value for each output, or empty.
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    /// A matrix of zeros.
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        let panels = vec![0.0; packed_len(inputs, outputs)];
        Self { panels, bias: Vec::new(), inputs, outputs }
    }

    /// Sets the weights of some outputs: `rows` has a row for each of them, row-major.
    pub(super) fn set(&mut self, first_output: usize, rows: &[f32]) {
        pack_transposed(rows, self.inputs, self.inputs, first_output, &mut self.panels);
    }

    /// Sets the bias of some outputs.
    pub(super) fn set_bias(&mut self, first_output: usize, values: &[f32]) {
        self.bias.resize(self.outputs, 0.0);
        self.bias[first_output..][..values.len()].copy_from_slice(values);
    }

    /// How many inputs it has.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many outputs it has.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// How many panels its outputs have.
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// The outputs of some panels.
    pub(super) fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        (panels.start * PANEL).min(self.outputs)..(panels.end * PANEL).min(self.outputs)
    }

    /// Writes all outputs of `count` rows.
    pub(super) fn rows(&self, x: &[f32], count: usize, out: &mut [f32]) {
        self.part(x, count, 0..self.panels(), out);
    }

    /// Writes the outputs of some panels for `count` rows, row-major. A result does not depend on which
    /// other panels are computed with it.
    pub(super) fn part(&self, x: &[f32], count: usize, panels: Range<usize>, out: &mut [f32]) {
        let columns = self.columns(&panels);
        if count == 0 || columns.is_empty() {
            return;
        }
        Product {
            rows: x,
            row_stride: self.inputs,
            count,
            depth: self.inputs,
            panels: Panels::F32(&self.panels[panels.start * PANEL * self.inputs..]),
            columns: columns.len(),
            bias: (!self.bias.is_empty()).then(|| &self.bias[columns.clone()]),
        }
        .write(out, columns.len(), Plain);
    }

    /// Writes the weights of one output; if the matrix is also a token table, they are a token's row.
    fn weights_of(&self, output: usize, row: &mut [f32]) {
        let panel = &self.panels[output / PANEL * PANEL * self.inputs..][..PANEL * self.inputs];
        for (x, line) in row.iter_mut().zip(panel.chunks_exact(PANEL)) {
            *x = line[output % PANEL];
        }
    }
}

/// A table with a row for each token.
#[derive(Debug, Clone)]
pub(super) enum Table {
    /// Row by row.
    Rows { values: Arc<Vec<f32>>, width: usize },
    /// The panels of the output layer, which shares its weights: they are in memory once.
    Tied(Arc<Matrix>),
}

impl Table {
    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rows { values, width } => values.len() / width,
            Self::Tied(matrix) => matrix.outputs(),
        }
    }

    /// Copies the row of a token, which must be in the table.
    pub(super) fn copy(&self, token: usize, row: &mut [f32]) {
        match self {
            Self::Rows { values, width } => row.copy_from_slice(&values[token * width..][..*width]),
            Self::Tied(matrix) => matrix.weights_of(token, row),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Matrix, Table};

    fn matrix() -> (Matrix, Vec<f32>) {
        let (inputs, outputs) = (5_u16, 75_u16);
        let values: Vec<f32> = (0..inputs * outputs).map(|i| f32::from(i % 37) - 18.0).collect();
        let mut matrix = Matrix::new(inputs.into(), outputs.into());
        matrix.set(0, &values[..40 * 5]);
        matrix.set(40, &values[40 * 5..]);
        (matrix, values)
    }

    #[test]
    fn parts_are_the_columns_of_the_whole() {
        let (mut matrix, _) = matrix();
        matrix.set_bias(2, &[0.5, 0.25]);
        let x: Vec<f32> = (0..15_u8).map(f32::from).collect();
        let mut whole = vec![0.0; 3 * 75];
        matrix.rows(&x, 3, &mut whole);
        for panels in [0..1, 1..3, 2..3, 1..1] {
            let columns = matrix.columns(&panels);
            let mut part = vec![0.0; 3 * columns.len()];
            matrix.part(&x, 3, panels, &mut part);
            for r in 0..3 {
                let want = &whole[r * 75..][columns.clone()];
                assert_eq!(&part[r * columns.len()..][..columns.len()], want);
            }
        }
    }

    #[test]
    fn a_tied_table_gives_the_rows_that_were_packed() {
        let (matrix, values) = matrix();
        let table = Table::Tied(Arc::new(matrix));
        assert_eq!(table.len(), 75);
        for token in [0, 31, 32, 74] {
            let mut row = [0.0; 5];
            table.copy(token, &mut row);
            assert_eq!(row, values[token * 5..][..5]);
        }
    }
}
