//! From tensors to the packed matrices of an encoder-decoder, some rows at a time: a matrix is never
//! in memory twice.

use std::sync::Arc;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::kernels::panels::PANEL;
use crate::seq2seq::matrix::{Matrix, Table};

impl TensorReader<'_> {
    /// A matrix from several weights with the same inputs, side by side, each with this many outputs.
    pub(super) fn matrix(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: usize,
        has_bias: bool,
    ) -> Result<Matrix, LoadError> {
        for name in names {
            self.check_shape(&format!("{name}.weight"), &[outputs, inputs])?;
        }
        let mut matrix = Matrix::new(inputs, names.len() * outputs);
        for (name, first) in names.iter().zip((0..).step_by(outputs)) {
            self.for_rows(&format!("{name}.weight"), [outputs, inputs], |row, values| {
                matrix.set(first + row, values);
            })?;
            if has_bias {
                matrix.set_bias(first, &self.values(&format!("{name}.bias"), &[outputs])?);
            }
        }
        Ok(matrix)
    }

    /// The output layer. Its tensor, `name`, may also be the token table.
    pub(super) fn output(
        &mut self,
        name: &str,
        vocabulary: usize,
        width: usize,
    ) -> Result<Matrix, LoadError> {
        self.check_shape(name, &[vocabulary, width])?;
        let mut matrix = Matrix::new(width, vocabulary);
        self.for_rows(name, [vocabulary, width], |row, values| matrix.set(row, values))?;
        Ok(matrix)
    }

    /// A matrix of two weights whose panels alternate, each padded with zeros.
    pub(super) fn gated(
        &mut self,
        names: [&str; 2],
        inputs: usize,
        outputs: usize,
    ) -> Result<Matrix, LoadError> {
        for name in names {
            self.check_shape(&format!("{name}.weight"), &[outputs, inputs])?;
        }
        let mut matrix = Matrix::new(inputs, 2 * outputs.next_multiple_of(PANEL));
        for (turn, name) in names.into_iter().enumerate() {
            self.for_rows(&format!("{name}.weight"), [outputs, inputs], |row, values| {
                for (row, values) in (row..).zip(values.chunks_exact(inputs)) {
                    matrix.set((2 * (row / PANEL) + turn) * PANEL + row % PANEL, values);
                }
            })?;
        }
        Ok(matrix)
    }

    /// A table of token rows of its own, not shared with the output layer.
    pub(super) fn token_rows(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
    ) -> Result<Table, LoadError> {
        Ok(Table::Rows { values: Arc::new(self.values(name, &[rows, width])?), width })
    }
}
