//! What a static model knows of each token: a row, perhaps shared with other tokens, and perhaps a
//! factor.

use std::borrow::Cow;
use std::fmt;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;

/// Token rows, one after the other, as they were stored.
enum Rows {
    /// On a scale that all rows share and that normalising removes.
    I8(Cow<'static, [i8]>),
    F32(Vec<f32>),
}

/// The rows of a static model by token.
#[derive(Debug)]
pub(crate) struct TokenTable {
    rows: Rows,
    /// Values of a row.
    pub(crate) width: usize,
    /// Which row a token has; `None`: that of its own number.
    mapping: Option<Vec<u32>>,
    /// What a token's row is multiplied by. Beside the table, which would have to be one of floats,
    /// with a row for each token, to have them in it.
    factors: Option<Vec<f32>>,
    tokens: usize,
}

/// What sentence-transformers calls the table: a row for each token, whatever else is in the file.
const WHOLE_TABLE: &str = "embedding.weight";

/// What model2vec calls it, and what it has beside it.
const TABLE: &str = "embeddings";
const MAPPING: &str = "mapping";
const FACTORS: &str = "weights";

impl TokenTable {
    pub(crate) fn read(weights: &Weights) -> Result<Self, LoadError> {
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

    /// How many tokens have a row.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let mapping = self.mapping.as_ref().map_or(0, |rows| size_of_val(&rows[..]));
        let factors = self.factors.as_ref().map_or(0, |factors| size_of_val(&factors[..]));
        (self.rows.bytes() + mapping + factors) as u64
    }

    /// Adds what a token stands for to a row. `false`: there is no such token.
    pub(crate) fn add(&self, token: u32, row: &mut [f32]) -> bool {
        let token = usize::try_from(token).unwrap_or(usize::MAX);
        let place = match &self.mapping {
            None => Some(token),
            Some(rows) => rows.get(token).and_then(|row| usize::try_from(*row).ok()),
        };
        let start = place.unwrap_or(usize::MAX).saturating_mul(row.len());
        match &self.factors {
            None => self.rows.add(start, row),
            Some(factors) => {
                factors.get(token).is_some_and(|factor| self.rows.add_times(*factor, start, row))
            }
        }
    }
}

impl Rows {
    fn bytes(&self) -> usize {
        match self {
            Self::I8(values) => values.len(),
            Self::F32(values) => 4 * values.len(),
        }
    }

    /// Adds the table's values from `start` on to a row. `false`: there are not as many.
    fn add(&self, start: usize, row: &mut [f32]) -> bool {
        let span = start..start.saturating_add(row.len());
        match self {
            // Sums of bytes stay exact in f32 up to 2^17 tokens, and nobody sees a step beyond.
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
