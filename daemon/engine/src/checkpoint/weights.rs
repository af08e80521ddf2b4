//! The weights of a model: tensors by name, from one file or several.
//!
//! Files are read, never mapped. Whatever a header claims is checked against the file's real length
//! before memory is allocated: a hostile file costs at most as much memory as its own size.

mod elements;
mod entry;
mod file;
mod gather;
mod index;
mod pickle;
mod pickle_values;
mod safetensors;
mod strides;
mod torch;
mod zip;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::checkpoint::folder::refuse_adapter;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::file::TensorFile;
use crate::checkpoint::weights::index::IndexedFiles;

/// The tensors of a model, of which only the headers were read.
#[derive(Debug)]
pub(crate) struct Weights {
    /// The one file, or the index of several.
    file: PathBuf,
    files: Vec<TensorFile>,
    /// For each tensor, which of `files` has it.
    file_of: BTreeMap<String, usize>,
}

impl Weights {
    /// Opens the weights of a folder and checks their headers: safetensors if there are any, else what
    /// torch wrote.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, LoadError> {
        refuse_adapter(folder)?;
        for (name, is_index, format) in NAMES {
            let file = folder.join(name);
            if !file.exists() {
                continue;
            }
            return match is_index {
                IsIndex::No => Ok(Self::of_file(format.open(&file)?)),
                IsIndex::Yes => {
                    let IndexedFiles { files, file_of } =
                        index::open(&file, |file| format.open(file))?;
                    Ok(Self { file, files, file_of })
                }
            };
        }
        Err(LoadError::NoWeights { folder: folder.to_owned() })
    }

    /// Weights inside the program, as safetensors; `name` is for messages.
    pub(crate) fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, LoadError> {
        safetensors::embedded(name, bytes).map(Self::of_file)
    }

    /// The file, or the index of several, for messages.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// A hash over all files, headers and names included.
    pub(crate) fn digest(&self) -> Result<[u8; 32], LoadError> {
        if let [file] = &self.files[..] {
            return file.digest();
        }
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(&file.digest()?);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Whether there is such a tensor.
    pub(crate) fn contains(&self, tensor: &str) -> bool {
        self.file_of.contains_key(tensor)
    }

    /// The names of all tensors, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.file_of.keys().map(String::as_str)
    }

    /// Bytes of the tensors in memory: 8-bit elements stay as they are, all others become 32 bits.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        self.files.iter().map(TensorFile::loaded_bytes).fold(0, u64::saturating_add)
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, tensor: &str) -> Result<&[usize], LoadError> {
        self.file_with(tensor)?.shape(tensor)
    }

    /// Reads a tensor of the given shape into `values`, as `f32`, and overwrites what they held.
    pub(crate) fn read(
        &self,
        tensor: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        self.file_with(tensor)?.read(tensor, shape, values)
    }

    /// Reads some rows (steps of the first dimension) of a tensor, as [`read`](Self::read) reads all of
    /// them.
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
        self.file_with(tensor)?.read_rows(tensor, shape, rows, values)
    }

    /// Reads a tensor of 8-bit integers; `None` if it has other elements.
    pub(crate) fn read_i8(&self, tensor: &str) -> Result<Option<Cow<'static, [i8]>>, LoadError> {
        self.file_with(tensor)?.read_i8(tensor)
    }

    /// Reads a list of row numbers, each below `table_rows`.
    pub(crate) fn read_rows_of_table(
        &self,
        tensor: &str,
        table_rows: usize,
    ) -> Result<Vec<u32>, LoadError> {
        self.file_with(tensor)?.read_rows_of_table(tensor, table_rows)
    }

    fn of_file(file: TensorFile) -> Self {
        let file_of = file.names().map(|name| (name.to_owned(), 0)).collect();
        Self { file: file.file().to_owned(), files: vec![file], file_of }
    }

    fn file_with(&self, tensor: &str) -> Result<&TensorFile, LoadError> {
        let file = self.file_of.get(tensor).and_then(|&number| self.files.get(number));
        file.ok_or_else(|| LoadError::MissingTensor {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
        })
    }
}

/// The names of weight files, in the order in which they are tried.
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
enum Format {
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
