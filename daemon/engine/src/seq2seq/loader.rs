//! Tensors on their way into a network, in pieces: nothing is in memory twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::kernels::packed::PANEL;
use crate::seq2seq::matrix::{Matrix, Table};

/// Values that are read at a time.
const PIECE: usize = 1 << 18;

/// Reads the tensors of one model.
pub(crate) struct Loader<'a> {
    weights: &'a Weights,
    buffer: Vec<f32>,
    values_read: u64,
    names_read: BTreeSet<String>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(weights: &'a Weights) -> Self {
        Self { weights, buffer: Vec::new(), values_read: 0, names_read: BTreeSet::new() }
    }

    /// Bytes that what was read holds in memory.
    pub(crate) fn bytes(&self) -> u64 {
        4 * self.values_read
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    /// The first of these names that there is; the first of all, to be missed, where none is.
    pub(crate) fn one_of<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().find(|name| self.has(name)).unwrap_or(&names[0])
    }

    /// A vector of this length.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.values(name, &[len])
    }

    /// All values of a tensor.
    pub(crate) fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::new();
        self.weights.read(name, shape, &mut values)?;
        self.note(name, values.len());
        Ok(values)
    }

    /// A matrix from several weights over the same inputs, side by side, each with so many outputs.
    pub(crate) fn matrix(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: usize,
        has_bias: bool,
    ) -> Result<Matrix, LoadError> {
        for name in names {
            self.check(&format!("{name}.weight"), &[outputs, inputs])?;
        }
        let mut matrix = Matrix::new(inputs, names.len() * outputs);
        for (name, first) in names.iter().zip((0..).step_by(outputs)) {
            self.rows(&format!("{name}.weight"), [outputs, inputs], |row, values| {
                matrix.set(first + row, values);
            })?;
            if has_bias {
                matrix.set_bias(first, &self.vector(&format!("{name}.bias"), outputs)?);
            }
        }
        Ok(matrix)
    }

    /// The output layer, whose weights may be the token table: `name` is that of the tensor.
    pub(crate) fn output(
        &mut self,
        name: &str,
        vocabulary: usize,
        width: usize,
    ) -> Result<Matrix, LoadError> {
        self.check(name, &[vocabulary, width])?;
        let mut matrix = Matrix::new(width, vocabulary);
        self.rows(name, [vocabulary, width], |row, values| matrix.set(row, values))?;
        Ok(matrix)
    }

    /// A matrix of two weights whose panels take turns, each filled up with zeros.
    pub(crate) fn gated(
        &mut self,
        names: [&str; 2],
        inputs: usize,
        outputs: usize,
    ) -> Result<Matrix, LoadError> {
        for name in names {
            self.check(&format!("{name}.weight"), &[outputs, inputs])?;
        }
        let mut matrix = Matrix::new(inputs, 2 * outputs.next_multiple_of(PANEL));
        for (turn, name) in names.into_iter().enumerate() {
            self.rows(&format!("{name}.weight"), [outputs, inputs], |row, values| {
                for (row, values) in (row..).zip(values.chunks_exact(inputs)) {
                    matrix.set((2 * (row / PANEL) + turn) * PANEL + row % PANEL, values);
                }
            })?;
        }
        Ok(matrix)
    }

    /// A table of token rows.
    pub(crate) fn table(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
    ) -> Result<Table, LoadError> {
        Ok(Table::Rows { values: Arc::new(self.values(name, &[rows, width])?), width })
    }

    /// Refuses a file that has more of a network than was read: its configuration is another
    /// model's. `is_part` says of a name whether it is one of the network's.
    pub(crate) fn check_extra(&self, is_part: impl Fn(&str) -> bool) -> Result<(), LoadError> {
        let is_unread = |name: &&str| !self.names_read.contains(*name);
        match self.weights.names().filter(is_unread).find(|name| is_part(name)) {
            None => Ok(()),
            Some(tensor) => Err(LoadError::ExtraTensor {
                file: self.weights.file().to_owned(),
                tensor: tensor.to_owned(),
            }),
        }
    }

    /// Before memory is set aside for it: a configuration may say anything.
    fn check(&self, name: &str, wanted: &[usize]) -> Result<(), LoadError> {
        let found = self.weights.shape(name)?;
        if found == wanted {
            return Ok(());
        }
        Err(LoadError::TensorShape {
            file: self.weights.file().to_owned(),
            tensor: name.to_owned(),
            found: found.to_vec(),
            wanted: wanted.to_vec(),
        })
    }

    /// Reads a tensor some rows at a time.
    fn rows(
        &mut self,
        name: &str,
        [rows, width]: [usize; 2],
        mut take: impl FnMut(usize, &[f32]),
    ) -> Result<(), LoadError> {
        let at_once = (PIECE / width).max(1);
        for first in (0..rows).step_by(at_once) {
            let piece = first..rows.min(first + at_once);
            self.weights.read_rows(name, &[rows, width], piece, &mut self.buffer)?;
            take(first, &self.buffer);
        }
        self.note(name, rows * width);
        Ok(())
    }

    fn note(&mut self, name: &str, values: usize) {
        self.names_read.insert(name.to_owned());
        self.values_read += u64::try_from(values).unwrap_or(u64::MAX);
    }
}
