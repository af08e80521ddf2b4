//! A file of tensors, read without mapping it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::checkpoint::folder::open_file;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::strided::Strides;

/// What is read at a time to be hashed or widened: it stays in the processor's cache meanwhile.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What can be read as `f32`.
const FLOATS: &str = "F32, F16, BF16, F64";

/// The tensors of one file, not yet read.
#[derive(Debug)]
pub(crate) struct TensorFile {
    file: PathBuf,
    bytes: Bytes,
    len: u64,
    tensors: BTreeMap<String, Entry>,
}

/// Where a file's bytes are.
#[derive(Debug)]
enum Bytes {
    File(File),
    Static(&'static [u8]),
}

/// Where a tensor lies, checked against the file's length and its own shape.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// As safetensors spells it.
    pub(crate) dtype: Cow<'static, str>,
    pub(crate) shape: Vec<usize>,
    /// `None`: row-major.
    pub(crate) strides: Option<Strides>,
    /// The first byte, from the file's beginning.
    pub(crate) start: u64,
    /// Bytes of its elements.
    pub(crate) len_bytes: u64,
}

impl TensorFile {
    /// Opens a file of which nothing is known yet.
    pub(crate) fn open(file: &Path) -> Result<Self, LoadError> {
        let fault = |source| LoadError::Read { file: file.to_owned(), source };
        let opened = open_file(file).map_err(fault)?;
        let len = opened.metadata().map_err(fault)?.len();
        let bytes = Bytes::File(opened);
        Ok(Self { file: file.to_owned(), bytes, len, tensors: BTreeMap::new() })
    }

    /// A file inside the program; `name` stands for it in messages.
    pub(crate) fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        let len = len_u64(bytes.len());
        let bytes = Bytes::Static(bytes);
        Self { file: PathBuf::from(name), bytes, len, tensors: BTreeMap::new() }
    }

    /// Tells of its tensors, whose places the caller has checked.
    pub(crate) fn with_tensors(mut self, tensors: BTreeMap<String, Entry>) -> Self {
        self.tensors = tensors;
        self
    }

    /// The file, for messages.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The names of its tensors, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A hash over the whole file. It is read once more for that, in pieces: from the system's
    /// memory, since its tensors are read at about the same time.
    pub(crate) fn digest(&self) -> Result<[u8; 32], LoadError> {
        if let Bytes::Static(bytes) = self.bytes {
            return Ok(*blake3::hash(bytes).as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < self.len {
            let left = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
            let piece = &mut piece[..left.min(PIECE_BYTES)];
            self.read_at(piece, offset)?;
            hasher.update(piece);
            offset += len_u64(piece.len());
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// What its tensors take in memory: bytes as they are, all others as 32 bits.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        let bytes = |entry: &Entry| match element_bytes(&entry.dtype) {
            2 => entry.len_bytes.saturating_mul(2),
            8 => entry.len_bytes / 2,
            _ => entry.len_bytes,
        };
        self.tensors.values().map(bytes).fold(0, u64::saturating_add)
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, tensor: &str) -> Result<&[usize], LoadError> {
        Ok(&self.entry(tensor)?.shape)
    }

    /// Reads a tensor of the given shape into `values`, as `f32`. What `values` held is lost.
    pub(crate) fn read(
        &self,
        tensor: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        self.read_rows(tensor, shape, 0..shape.first().copied().unwrap_or(1), values)
    }

    /// Reads some rows (steps of the first dimension) of a tensor of the given shape, as
    /// [`read`](Self::read) reads all: a large tensor can go its way in pieces.
    ///
    /// # Panics
    /// When the tensor has no such rows.
    pub(crate) fn read_rows(
        &self,
        tensor: &str,
        shape: &[usize],
        rows: Range<usize>,
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        let entry = self.entry_of_shape(tensor, shape)?;
        assert!(rows.start <= rows.end && rows.end <= shape.first().copied().unwrap_or(1));
        // Checked with the entry: the count fits the file's length.
        let row: usize = shape.iter().skip(1).product();
        values.resize(rows.len() * row, 0.0);
        match &entry.strides {
            None => self.read_dense(tensor, entry, rows.start * row, values)?,
            Some(strides) => self.read_strided(tensor, entry, strides, rows, values)?,
        }
        if values.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(LoadError::NotFinite { file: self.file.clone(), tensor: tensor.to_owned() })
    }

    /// Reads elements that lie one after the other, from the one of this number on.
    fn read_dense(
        &self,
        tensor: &str,
        entry: &Entry,
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

    /// Reads rows whose elements do not.
    fn read_strided(
        &self,
        tensor: &str,
        entry: &Entry,
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

    /// Reads a tensor of bytes, if it is one. `None`: it has other elements.
    pub(crate) fn read_i8(&self, tensor: &str) -> Result<Option<Cow<'static, [i8]>>, LoadError> {
        let entry = self.entry(tensor)?;
        if entry.dtype != "I8" {
            return Ok(None);
        }
        if let (Bytes::Static(bytes), None) = (&self.bytes, &entry.strides) {
            let bytes: &'static [u8] = slice_of(bytes, entry.start, entry.len_bytes);
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

    /// Reads a list of numbers, each of which is that of a row of a table with so many.
    pub(crate) fn read_rows_of_table(
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
                file: self.file.clone(),
                tensor: tensor.to_owned(),
                row,
                rows: table_rows,
            }),
        }
    }

    /// Fills `target` with what begins at `offset`.
    pub(crate) fn read_at(&self, target: &mut [u8], offset: u64) -> Result<(), LoadError> {
        match &self.bytes {
            Bytes::File(file) => file
                .read_exact_at(target, offset)
                .map_err(|source| LoadError::Read { file: self.file.clone(), source }),
            Bytes::Static(bytes) => {
                target.copy_from_slice(slice_of(bytes, offset, len_u64(target.len())));
                Ok(())
            }
        }
    }

    /// Reads elements of another size piece by piece, so that they never stand beside their values
    /// as a whole.
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

    fn entry(&self, tensor: &str) -> Result<&Entry, LoadError> {
        self.tensors.get(tensor).ok_or_else(|| LoadError::MissingTensor {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
        })
    }

    fn entry_of_shape(&self, tensor: &str, wanted: &[usize]) -> Result<&Entry, LoadError> {
        let entry = self.entry(tensor)?;
        if entry.shape == wanted { Ok(entry) } else { Err(self.other_shape(tensor, entry, wanted)) }
    }

    fn other_shape(&self, tensor: &str, entry: &Entry, wanted: &[usize]) -> LoadError {
        LoadError::TensorShape {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
            found: entry.shape.clone(),
            wanted: wanted.to_vec(),
        }
    }

    /// The error for a tensor whose elements are of no use.
    fn element_type(&self, tensor: &str, found: &str, supported: &'static str) -> LoadError {
        LoadError::ElementType {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
            found: found.to_owned(),
            supported,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "more digits than the engine computes with")]
fn narrowed(value: f64) -> f32 {
    value as f32
}

/// Bytes of an element; 0 for a type that is not known.
pub(crate) fn element_bytes(dtype: &str) -> u64 {
    match dtype {
        "BOOL" | "U8" | "I8" => 1,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "F32" | "I32" | "U32" => 4,
        "F64" | "I64" | "U64" => 8,
        _ => 0,
    }
}

/// A part of bytes in memory whose bounds were checked with the header.
fn slice_of(bytes: &[u8], offset: u64, len: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    &bytes[index(offset)..index(offset + len)]
}

pub(crate) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
