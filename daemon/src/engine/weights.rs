//! Weights in safetensors form, read without mapping the file.
//!
//! The header is checked against the file's real length before anything is allocated: tensors must
//! follow each other without gap or overlap and end where the file ends. So a hostile header costs
//! at most the memory that the file's own size pays for.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::Deserialize;

use super::folder::open_file;
use super::load_error::{HeaderFault, LoadError};

/// The longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What is read at a time to be hashed: it stays in the processor's cache meanwhile.
const PIECE_BYTES: usize = 256 << 10;

/// The tensors of one weight file, not yet read.
#[derive(Debug)]
pub(super) struct Weights {
    file: PathBuf,
    bytes: Bytes,
    /// Where the header ends and offsets count from.
    base: u64,
    /// Where the file ends.
    end: u64,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Static(&'static [u8]),
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    _metadata: Option<serde_json::Value>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Weights {
    /// Opens a weight file and checks its header.
    pub(super) fn open(file: &Path) -> Result<Self, LoadError> {
        let fault = |source| LoadError::Read { file: file.to_owned(), source };
        let opened = open_file(file).map_err(fault)?;
        let len = opened.metadata().map_err(fault)?.len();
        Self::check(file.to_owned(), Bytes::File(opened), len)
    }

    /// Weights inside the program; `name` stands for the file in messages.
    pub(super) fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, LoadError> {
        let len = len_u64(bytes.len());
        Self::check(PathBuf::from(name), Bytes::Static(bytes), len)
    }

    /// The file, for messages.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// A hash over the whole file, header and names included. It is read once more for that, in
    /// pieces: from the system's memory, since its tensors are read at about the same time.
    pub(super) fn digest(&self) -> Result<[u8; 32], LoadError> {
        if let Bytes::Static(bytes) = self.bytes {
            return Ok(*blake3::hash(bytes).as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let (mut offset, end) = (0, self.end);
        while offset < end {
            let len =
                usize::try_from(end - offset).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            self.read_at(&mut piece[..len], offset)?;
            hasher.update(&piece[..len]);
            offset += len_u64(len);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Whether the file has the tensor.
    pub(super) fn contains(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// The names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What the tensors take in memory: bytes as they are, all others widened to 32 bits.
    pub(super) fn loaded_bytes(&self) -> u64 {
        let bytes = |entry: &Entry| {
            let (start, end) = entry.data_offsets;
            let stored = end.saturating_sub(start);
            match entry.dtype.as_str() {
                "F16" | "BF16" => stored.saturating_mul(2),
                _ => stored,
            }
        };
        self.tensors.values().map(bytes).fold(0, u64::saturating_add)
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, tensor: &str) -> Result<&[usize], LoadError> {
        Ok(&self.entry(tensor)?.shape)
    }

    /// Reads a tensor of the given shape into `values`, widened to `f32`. What `values` held is lost.
    pub(super) fn read(
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
    pub(super) fn read_rows(
        &self,
        tensor: &str,
        shape: &[usize],
        rows: Range<usize>,
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        let entry = self.entry_of_shape(tensor, shape)?;
        assert!(rows.start <= rows.end && rows.end <= shape.first().copied().unwrap_or(1));
        // Checked with the header: the count fits the file's length.
        let row: usize = shape.iter().skip(1).product();
        let (skipped, count) = (rows.start * row, rows.len() * row);
        values.resize(count, 0.0);
        let offset = len_u64(skipped) * element_bytes(&entry.dtype);
        match entry.dtype.as_str() {
            "F32" => {
                self.fill(entry, offset, bytemuck::cast_slice_mut(values))?;
                if cfg!(target_endian = "big") {
                    values.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits().swap_bytes()));
                }
            }
            "F16" => {
                self.words(entry, offset, count)?
                    .iter()
                    .map(|&bits| f16::from_bits(bits))
                    .collect::<Vec<_>>()
                    .convert_to_f32_slice(values);
            }
            "BF16" => {
                self.words(entry, offset, count)?
                    .iter()
                    .map(|&bits| bf16::from_bits(bits))
                    .collect::<Vec<_>>()
                    .convert_to_f32_slice(values);
            }
            other => return Err(self.element_type(tensor, other, "F32, F16, BF16")),
        }
        if values.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(LoadError::NotFinite { file: self.file.clone(), tensor: tensor.to_owned() })
    }

    /// Reads a tensor of bytes, if it is one. `None`: it has other elements.
    pub(super) fn read_i8(
        &self,
        tensor: &str,
    ) -> Result<Option<std::borrow::Cow<'static, [i8]>>, LoadError> {
        let entry = self.entry(tensor)?;
        if entry.dtype != "I8" {
            return Ok(None);
        }
        let (start, end) = entry.data_offsets;
        if let Bytes::Static(bytes) = self.bytes {
            let bytes: &'static [u8] = slice_of(bytes, self.base + start, end - start);
            return Ok(Some(bytemuck::cast_slice(bytes).into()));
        }
        let mut values = vec![0i8; entry.shape.iter().product()];
        self.fill(entry, 0, bytemuck::cast_slice_mut(&mut values))?;
        Ok(Some(values.into()))
    }

    fn check(file: PathBuf, bytes: Bytes, len: u64) -> Result<Self, LoadError> {
        let mut weights = Self { file, bytes, base: 8, end: len, tensors: BTreeMap::new() };
        let header =
            |weights: &Self, source| LoadError::Header { file: weights.file.clone(), source };
        let mut prefix = [0; 8];
        if len < 8 {
            return Err(header(&weights, HeaderFault::Length { claimed: 8, available: len }));
        }
        weights.read_at(&mut prefix, 0)?;
        let claimed = u64::from_le_bytes(prefix);
        let available = (len - 8).min(MAX_HEADER_BYTES);
        let Some(size) = usize::try_from(claimed).ok().filter(|_| claimed <= available) else {
            return Err(header(&weights, HeaderFault::Length { claimed, available }));
        };
        let mut json = vec![0; size];
        weights.read_at(&mut json, 8)?;
        let parsed: Header = serde_json::from_slice(&json)
            .map_err(|source| header(&weights, HeaderFault::Json(source)))?;
        let end = check_spans(&parsed.tensors).map_err(|fault| header(&weights, fault))?;
        weights.base = 8 + claimed;
        weights.tensors = parsed.tensors;
        let expected = weights.base.saturating_add(end);
        let file = weights.file.clone();
        match len.cmp(&expected) {
            std::cmp::Ordering::Less => Err(LoadError::Truncated { file, expected, found: len }),
            std::cmp::Ordering::Greater => Err(LoadError::Excess { file, expected, found: len }),
            std::cmp::Ordering::Equal => Ok(weights),
        }
    }

    fn entry(&self, tensor: &str) -> Result<&Entry, LoadError> {
        self.tensors.get(tensor).ok_or_else(|| LoadError::MissingTensor {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
        })
    }

    fn entry_of_shape(&self, tensor: &str, wanted: &[usize]) -> Result<&Entry, LoadError> {
        let entry = self.entry(tensor)?;
        if entry.shape != wanted {
            return Err(LoadError::TensorShape {
                file: self.file.clone(),
                tensor: tensor.to_owned(),
                found: entry.shape.clone(),
                wanted: wanted.to_vec(),
            });
        }
        Ok(entry)
    }

    /// The error for a tensor whose elements are of no use.
    pub(super) fn element_type(
        &self,
        tensor: &str,
        found: &str,
        supported: &'static str,
    ) -> LoadError {
        LoadError::ElementType {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
            found: found.to_owned(),
            supported,
        }
    }

    /// Some values of a tensor of 16-bit elements, from a byte of it on.
    fn words(&self, entry: &Entry, offset: u64, count: usize) -> Result<Vec<u16>, LoadError> {
        let mut words = vec![0u16; count];
        self.fill(entry, offset, bytemuck::cast_slice_mut(&mut words))?;
        words.iter_mut().for_each(|word| *word = u16::from_le(*word));
        Ok(words)
    }

    /// Reads bytes of a tensor, from its byte `offset` on.
    fn fill(&self, entry: &Entry, offset: u64, target: &mut [u8]) -> Result<(), LoadError> {
        self.read_at(target, self.base + entry.data_offsets.0 + offset)
    }

    fn read_at(&self, target: &mut [u8], offset: u64) -> Result<(), LoadError> {
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
}

/// Checks that tensors follow each other and fill what they claim; answers where the last one ends.
fn check_spans(tensors: &BTreeMap<String, Entry>) -> Result<u64, HeaderFault> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end_before = 0;
    for (name, entry) in by_place {
        let (start, end) = entry.data_offsets;
        if start != end_before {
            return Err(HeaderFault::Gap { tensor: name.clone(), start, end_before });
        }
        let bytes = entry
            .shape
            .iter()
            .try_fold(element_bytes(&entry.dtype), |product, &n| product.checked_mul(len_u64(n)));
        // An unknown element type has size 0 here: only its place is checked, and reading it fails.
        let fits = element_bytes(&entry.dtype) == 0 || bytes == end.checked_sub(start);
        if !fits || end < start {
            let shape = entry.shape.clone();
            return Err(HeaderFault::Span { tensor: name.clone(), start, end, shape });
        }
        end_before = end;
    }
    Ok(end_before)
}

fn element_bytes(dtype: &str) -> u64 {
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

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
