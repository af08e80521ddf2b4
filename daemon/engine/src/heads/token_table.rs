//! The table of a static model: a row for each token, which tokens may share, and optionally a factor.

use std::borrow::Cow;
use std::fmt;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;

/// The rows of a static model by token.
#[derive(Debug)]
pub(super) struct TokenTable {
    rows: Rows,
    /// Values of a row.
    pub(super) width: usize,
    /// The row of each token; `None`: a token's id is the number of its row.
    mapping: Option<Vec<u32>>,
    /// The factor of each token's row. Multiplied into the table they would need a row of floats for each
    /// token.
    factors: Option<Vec<f32>>,
    tokens: usize,
}

impl TokenTable {
    /// Reads a table of sentence-transformers or of model2vec.
    pub(super) fn read(weights: &Weights) -> Result<Self, LoadError> {
        let is_whole = weights.contains(WHOLE_TABLE);
        let name = if is_whole { WHOLE_TABLE } else { TABLE };
        let has = |tensor| !is_whole && weights.contains(tensor);
        let &[count, width] = weights.shape(name)? else {
            return Err(LoadError::TensorShape {
                file: weights.file().to_owned(),
                tensor: name.to_owned(),
                found: weights.shape(name)?.to_vec(),
                wanted: vec![0, 0],
            });
        };
        let rows = match weights.read_i8(name)? {
            Some(values) => Rows::I8(values),
            None => {
                let mut values = Vec::new();
                weights.read(name, &[count, width], &mut values)?;
                Rows::F32(values)
            }
        };
        let mapping = match has(MAPPING) {
            true => Some(weights.read_rows_of_table(MAPPING, count)?),
            false => None,
        };
        let tokens = mapping.as_ref().map_or(count, Vec::len);
        let factors = match has(FACTORS) {
            true => {
                let mut factors = Vec::new();
                weights.read(FACTORS, &[tokens], &mut factors)?;
                Some(factors)
            }
            false => None,
        };
        Ok(Self { rows, width, mapping, factors, tokens })
    }

    /// The number of tokens with a row.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> u64 {
        let mapping = self.mapping.as_ref().map_or(0, |rows| size_of_val(&rows[..]));
        let factors = self.factors.as_ref().map_or(0, |factors| size_of_val(&factors[..]));
        (self.rows.bytes() + mapping + factors) as u64
    }

    /// Adds the row of a token, times its factor, to a row. `false`: there is no such token.
    pub(super) fn add(&self, token: u32, row: &mut [f32]) -> bool {
        let token = usize::try_from(token).unwrap_or(usize::MAX);
        let index = match &self.mapping {
            None => Some(token),
            Some(rows) => rows.get(token).and_then(|row| usize::try_from(*row).ok()),
        };
        let start = index.unwrap_or(usize::MAX).saturating_mul(row.len());
        match &self.factors {
            None => self.rows.add(start, row),
            Some(factors) => {
                factors.get(token).is_some_and(|factor| self.rows.add_times(*factor, start, row))
            }
        }
    }
}

/// Token rows one behind another, in the type of the file.
enum Rows {
    /// All rows have the same scale, which normalisation removes.
    I8(Cow<'static, [i8]>),
    F32(Vec<f32>),
}

impl Rows {
    fn bytes(&self) -> usize {
        match self {
            Self::I8(values) => values.len(),
            Self::F32(values) => 4 * values.len(),
        }
    }

    /// Adds the table's values from `start` on to a row. `false`: the table ends before.
    fn add(&self, start: usize, row: &mut [f32]) -> bool {
        let span = start..start.saturating_add(row.len());
        match self {
            // Sums of bytes are exact in f32 up to 2^17 tokens; beyond, the rounding does not matter.
            Self::I8(values) => values.get(span).map(|token| {
                row.iter_mut().zip(token).for_each(|(x, &t)| *x += f32::from(t));
            }),
            Self::F32(values) => values.get(span).map(|token| {
                row.iter_mut().zip(token).for_each(|(x, &t)| *x += t);
            }),
        }
        .is_some()
    }

    /// The same, multiplied by a factor.
    fn add_times(&self, factor: f32, start: usize, row: &mut [f32]) -> bool {
        let span = start..start.saturating_add(row.len());
        match self {
            Self::I8(values) => values.get(span).map(|token| {
                row.iter_mut().zip(token).for_each(|(x, &t)| *x += f32::from(t) * factor);
            }),
            Self::F32(values) => values.get(span).map(|token| {
                row.iter_mut().zip(token).for_each(|(x, &t)| *x += t * factor);
            }),
        }
        .is_some()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::I8(values) => write!(f, "I8({} values)", values.len()),
            Self::F32(values) => write!(f, "F32({} values)", values.len()),
        }
    }
}

/// The table's name in files of sentence-transformers: a row for each token, and nothing beside it.
const WHOLE_TABLE: &str = "embedding.weight";

/// The names of model2vec for the table, and for the mapping and the factors beside it.
const TABLE: &str = "embeddings";
const MAPPING: &str = "mapping";
const FACTORS: &str = "weights";
