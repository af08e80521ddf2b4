//! Reads the elements of tensors and converts them to the types that the engine computes with.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::entry::{TensorEntry, element_bytes, len_u64};
use crate::checkpoint::weights::file::{PIECE_BYTES, TensorFile};
use crate::checkpoint::weights::strides::Strides;

/// Element types that can be read as `f32`.
const FLOATS: &str = "F32, F16, BF16, F64";

impl TensorFile {
    /// Reads a tensor of the given shape into `values`, as `f32`, and overwrites what they held.
    pub(super) fn read(
        &self,
        tensor: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        self.read_rows(tensor, shape, 0..shape.first().copied().unwrap_or(1), values)
    }

    /// Reads some rows (steps of the first dimension) of a tensor, as [`read`](Self::read) reads all of
    /// them: so a large tensor is never in memory as a whole.
    ///
    /// # Panics
    /// When the tensor has no such rows.
    pub(super) fn read_rows(
        &self,
        tensor: &str,
        shape: &[usize],
        rows: Range<usize>,
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        let entry = self.entry_of_shape(tensor, shape)?;
        assert!(rows.start <= rows.end && rows.end <= shape.first().copied().unwrap_or(1));
        // No overflow: the entry's shape was checked against the file's length.
        let row: usize = shape.iter().skip(1).product();
        values.resize(rows.len() * row, 0.0);
        match &entry.strides {
            None => self.read_dense(tensor, entry, rows.start * row, values)?,
            Some(strides) => self.read_strided(tensor, entry, strides, rows, values)?,
        }
        if values.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(LoadError::NotFinite { file: self.file().to_owned(), tensor: tensor.to_owned() })
    }

    /// Reads a tensor of 8-bit integers; `None` if it has other elements.
    pub(super) fn read_i8(&self, tensor: &str) -> Result<Option<Cow<'static, [i8]>>, LoadError> {
        let entry = self.entry(tensor)?;
        if entry.dtype != "I8" {
            return Ok(None);
        }
        if let (Some(bytes), None) = (self.static_bytes(entry), &entry.strides) {
            return Ok(Some(bytemuck::cast_slice(bytes).into()));
        }
        let mut values = vec![0i8; entry.shape.iter().product()];
        match &entry.strides {
            None => self.read_at(bytemuck::cast_slice_mut(&mut values), entry.start)?,
            Some(strides) => {
                let rows = 0..entry.shape.first().copied().unwrap_or(1);
                self.gather(entry, strides, rows, &mut values, |value: i8| value)?;
            }
        }
        Ok(Some(values.into()))
    }

    /// Reads a list of row numbers, each below `table_rows`.
    pub(super) fn read_rows_of_table(
        &self,
        tensor: &str,
        table_rows: usize,
    ) -> Result<Vec<u32>, LoadError> {
        let entry = self.entry(tensor)?;
        let &[len] = &entry.shape[..] else {
            return Err(self.other_shape(tensor, entry, &[table_rows]));
        };
        let row_by_row = Strides::of(&entry.shape, &[1]);
        let Some(strides) = entry.strides.as_ref().or(row_by_row.as_ref()) else {
            return Err(self.other_shape(tensor, entry, &[table_rows]));
        };
        let mut beyond = None;
        let mut row_of = |number: i64| {
            let row = u32::try_from(number).ok();
            row.filter(|row| u64::from(*row) < len_u64(table_rows)).unwrap_or_else(|| {
                beyond.get_or_insert(number);
                0
            })
        };
        let mut rows = vec![0; len];
        match &*entry.dtype {
            "I32" => self.gather(entry, strides, 0..len, &mut rows, |number| {
                row_of(i32::from_le(number).into())
            })?,
            "I64" => self
                .gather(entry, strides, 0..len, &mut rows, |number| row_of(i64::from_le(number)))?,
            other => return Err(self.element_type(tensor, other, "I32, I64")),
        }
        match beyond {
            None => Ok(rows),
            Some(row) => Err(LoadError::NoSuchRow {
                file: self.file().to_owned(),
                tensor: tensor.to_owned(),
                row,
                rows: table_rows,
            }),
        }
    }

    /// Reads contiguous elements, starting with element `first`.
    fn read_dense(
        &self,
        tensor: &str,
        entry: &TensorEntry,
        first: usize,
        values: &mut [f32],
    ) -> Result<(), LoadError> {
        let start = entry.start + len_u64(first) * element_bytes(&entry.dtype);
        match &*entry.dtype {
            "F32" => {
                self.read_at(bytemuck::cast_slice_mut(values), start)?;
                if cfg!(target_endian = "big") {
                    values.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits().swap_bytes()));
                }
            }
            "F16" => self.widen(start, values, |words: &mut [u16], values| {
                words.iter_mut().for_each(|word| *word = u16::from_le(*word));
                words.reinterpret_cast::<f16>().convert_to_f32_slice(values);
            })?,
            "BF16" => self.widen(start, values, |words: &mut [u16], values| {
                words.iter_mut().for_each(|word| *word = u16::from_le(*word));
                words.reinterpret_cast::<bf16>().convert_to_f32_slice(values);
            })?,
            "F64" => self.widen(start, values, |words: &mut [u64], values| {
                for (value, word) in values.iter_mut().zip(words) {
                    *value = narrowed(f64::from_bits(u64::from_le(*word)));
                }
            })?,
            other => return Err(self.element_type(tensor, other, FLOATS)),
        }
        Ok(())
    }

    /// Reads rows whose elements are not contiguous.
    fn read_strided(
        &self,
        tensor: &str,
        entry: &TensorEntry,
        strides: &Strides,
        rows: Range<usize>,
        values: &mut [f32],
    ) -> Result<(), LoadError> {
        match &*entry.dtype {
            "F32" => {
                self.gather(entry, strides, rows, values, |word| f32::from_bits(u32::from_le(word)))
            }
            "F16" => self.gather(entry, strides, rows, values, |word| {
                f16::from_bits(u16::from_le(word)).to_f32()
            }),
            "BF16" => self.gather(entry, strides, rows, values, |word| {
                bf16::from_bits(u16::from_le(word)).to_f32()
            }),
            "F64" => self.gather(entry, strides, rows, values, |word| {
                narrowed(f64::from_bits(u64::from_le(word)))
            }),
            other => Err(self.element_type(tensor, other, FLOATS)),
        }
    }

    /// Reads and converts elements of another size piece by piece: they are never in memory as a
    /// whole.
    fn widen<T: bytemuck::Pod>(
        &self,
        mut start: u64,
        values: &mut [f32],
        convert: impl Fn(&mut [T], &mut [f32]),
    ) -> Result<(), LoadError> {
        let at_once = PIECE_BYTES / size_of::<T>();
        let mut piece = vec![T::zeroed(); at_once.min(values.len())];
        for values in values.chunks_mut(at_once) {
            let piece = &mut piece[..values.len()];
            self.read_at(bytemuck::cast_slice_mut(piece), start)?;
            convert(piece, values);
            start += len_u64(size_of_val(piece));
        }
        Ok(())
    }

    fn entry_of_shape(&self, tensor: &str, wanted: &[usize]) -> Result<&TensorEntry, LoadError> {
        let entry = self.entry(tensor)?;
        if entry.shape == wanted { Ok(entry) } else { Err(self.other_shape(tensor, entry, wanted)) }
    }

    fn other_shape(&self, tensor: &str, entry: &TensorEntry, wanted: &[usize]) -> LoadError {
        LoadError::TensorShape {
            file: self.file().to_owned(),
            tensor: tensor.to_owned(),
            found: entry.shape.clone(),
            wanted: wanted.to_vec(),
        }
    }

    /// The error for a tensor with elements of an unsupported type.
    fn element_type(&self, tensor: &str, found: &str, supported: &'static str) -> LoadError {
        LoadError::ElementType {
            file: self.file().to_owned(),
            tensor: tensor.to_owned(),
            found: found.to_owned(),
            supported,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the engine computes in f32")]
fn narrowed(value: f64) -> f32 {
    value as f32
}
