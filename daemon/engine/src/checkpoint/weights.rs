//! The weights of a model: tensors by name, wherever in its folder they lie.
//!
//! Nothing is mapped, and nothing that a file says of itself is believed before it was compared with
//! the file's real length: a hostile file costs at most the memory that its own size pays for.

pub(crate) mod file;
pub(crate) mod index;
pub(crate) mod pickle;
pub(crate) mod safetensors;
pub(crate) mod strided;
pub(crate) mod torch;
pub(crate) mod zip;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::checkpoint::folder::refuse_adapter;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::file::TensorFile;

/// The tensors of a model, not yet read.
#[derive(Debug)]
pub(crate) struct Weights {
    /// The one file, or the index of several.
    file: PathBuf,
    parts: Vec<TensorFile>,
    /// Which part has a tensor.
    places: BTreeMap<String, usize>,
}

/// What weights are called, in the order in which they are looked for, and whether the file is an
/// index of others.
const NAMES: [(&str, IsIndex, Format); 4] = [
    ("model.safetensors", IsIndex::No, Format::Safetensors),
    ("model.safetensors.index.json", IsIndex::Yes, Format::Safetensors),
    ("pytorch_model.bin", IsIndex::No, Format::Torch),
    ("pytorch_model.bin.index.json", IsIndex::Yes, Format::Torch),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsIndex {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Safetensors,
    Torch,
}

impl Format {
    fn open(self, file: &Path) -> Result<TensorFile, LoadError> {
        match self {
            Self::Safetensors => safetensors::open(file),
            Self::Torch => torch::open(file),
        }
    }
}

impl Weights {
    /// Opens the weights of a folder and checks what they say of themselves: safetensors if there
    /// are any, else what torch wrote.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, LoadError> {
        refuse_adapter(folder)?;
        for (name, is_index, format) in NAMES {
            let file = folder.join(name);
            if !file.exists() {
                continue;
            }
            return match is_index {
                IsIndex::No => Ok(Self::of_part(format.open(&file)?)),
                IsIndex::Yes => index::open(&file, format),
            };
        }
        Err(LoadError::NoWeights { folder: folder.to_owned() })
    }

    /// Weights inside the program, as safetensors; `name` stands for the file in messages.
    pub(crate) fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, LoadError> {
        safetensors::embedded(name, bytes).map(Self::of_part)
    }

    fn of_part(part: TensorFile) -> Self {
        let places = part.names().map(|name| (name.to_owned(), 0)).collect();
        Self { file: part.file().to_owned(), parts: vec![part], places }
    }

    /// The file, or the index of several, for messages.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// A hash over all files, headers and names included.
    pub(crate) fn digest(&self) -> Result<[u8; 32], LoadError> {
        if let [part] = &self.parts[..] {
            return part.digest();
        }
        let mut hasher = blake3::Hasher::new();
        for part in &self.parts {
            hasher.update(&part.digest()?);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Whether there is such a tensor.
    pub(crate) fn contains(&self, tensor: &str) -> bool {
        self.places.contains_key(tensor)
    }

    /// The names of all tensors, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// What the tensors take in memory: bytes as they are, all others as 32 bits.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        self.parts.iter().map(TensorFile::loaded_bytes).fold(0, u64::saturating_add)
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, tensor: &str) -> Result<&[usize], LoadError> {
        self.part(tensor)?.shape(tensor)
    }

    /// Reads a tensor of the given shape into `values`, as `f32`. What `values` held is lost.
    pub(crate) fn read(
        &self,
        tensor: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        self.part(tensor)?.read(tensor, shape, values)
    }

    /// Reads some rows of a tensor of the given shape, as [`read`](Self::read) reads all.
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
        self.part(tensor)?.read_rows(tensor, shape, rows, values)
    }

    /// Reads a tensor of bytes, if it is one. `None`: it has other elements.
    pub(crate) fn read_i8(&self, tensor: &str) -> Result<Option<Cow<'static, [i8]>>, LoadError> {
        self.part(tensor)?.read_i8(tensor)
    }

    /// Reads a list of numbers, each of which is that of a row of a table with so many.
    pub(crate) fn read_rows_of_table(
        &self,
        tensor: &str,
        table_rows: usize,
    ) -> Result<Vec<u32>, LoadError> {
        self.part(tensor)?.read_rows_of_table(tensor, table_rows)
    }

    fn part(&self, tensor: &str) -> Result<&TensorFile, LoadError> {
        let place = self.places.get(tensor).and_then(|&place| self.parts.get(place));
        place.ok_or_else(|| LoadError::MissingTensor {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
        })
    }
}
