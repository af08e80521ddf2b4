//! A file of tensors. It is read, never mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::folder::open_file;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::entry::{TensorEntry, element_bytes, len_u64};

/// Bytes that are read at a time to be hashed or converted: few enough to stay in the processor's
/// cache.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A file of tensors, of which only the header was read.
#[derive(Debug)]
pub(super) struct TensorFile {
    file: PathBuf,
    bytes: FileBytes,
    len: u64,
    tensors: BTreeMap<String, TensorEntry>,
}

impl TensorFile {
    /// Opens a file that has no tensors yet.
    pub(super) fn open(file: &Path) -> Result<Self, LoadError> {
        let fault = |source| LoadError::Read { file: file.to_owned(), source };
        let opened = open_file(file).map_err(fault)?;
        let len = opened.metadata().map_err(fault)?.len();
        let bytes = FileBytes::File(opened);
        Ok(Self { file: file.to_owned(), bytes, len, tensors: BTreeMap::new() })
    }

    /// A file inside the program; `name` is for messages.
    pub(super) fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        let len = len_u64(bytes.len());
        let bytes = FileBytes::Static(bytes);
        Self { file: PathBuf::from(name), bytes, len, tensors: BTreeMap::new() }
    }

    /// Adds the tensors. The caller has checked that they lie inside the file.
    pub(super) fn with_tensors(mut self, tensors: BTreeMap<String, TensorEntry>) -> Self {
        self.tensors = tensors;
        self
    }

    /// The file, for messages.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The names of its tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A hash over the whole file. This reads the file a second time, but most likely from the page
    /// cache, since its tensors are read at about the same time.
    pub(super) fn digest(&self) -> Result<[u8; 32], LoadError> {
        if let FileBytes::Static(bytes) = self.bytes {
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

    /// Bytes of its tensors in memory: 8-bit elements stay as they are, all others become 32 bits.
    pub(super) fn loaded_bytes(&self) -> u64 {
        let bytes = |entry: &TensorEntry| match element_bytes(&entry.dtype) {
            2 => entry.len_bytes.saturating_mul(2),
            8 => entry.len_bytes / 2,
            _ => entry.len_bytes,
        };
        self.tensors.values().map(bytes).fold(0, u64::saturating_add)
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, tensor: &str) -> Result<&[usize], LoadError> {
        Ok(&self.entry(tensor)?.shape)
    }

    /// Where a tensor lies.
    pub(super) fn entry(&self, tensor: &str) -> Result<&TensorEntry, LoadError> {
        self.tensors.get(tensor).ok_or_else(|| LoadError::MissingTensor {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
        })
    }

    /// The bytes of a tensor, if the file is part of the program.
    pub(super) fn static_bytes(&self, entry: &TensorEntry) -> Option<&'static [u8]> {
        match self.bytes {
            FileBytes::Static(bytes) => Some(slice_of(bytes, entry.start, entry.len_bytes)),
            FileBytes::File(_) => None,
        }
    }

    /// Fills `target` from `offset` on.
    pub(super) fn read_at(&self, target: &mut [u8], offset: u64) -> Result<(), LoadError> {
        match &self.bytes {
            FileBytes::File(file) => file
                .read_exact_at(target, offset)
                .map_err(|source| LoadError::Read { file: self.file.clone(), source }),
            FileBytes::Static(bytes) => {
                target.copy_from_slice(slice_of(bytes, offset, len_u64(target.len())));
                Ok(())
            }
        }
    }
}

/// Where a file's bytes are.
#[derive(Debug)]
enum FileBytes {
    File(File),
    Static(&'static [u8]),
}

/// A part of bytes in memory; its bounds were checked with the header.
fn slice_of(bytes: &[u8], offset: u64, len: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    &bytes[index(offset)..index(offset + len)]
}
