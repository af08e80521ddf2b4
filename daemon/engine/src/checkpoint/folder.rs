//! Reads the files of a model folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::checkpoint::load_error::LoadError;

/// Reads a JSON file that must exist.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, LoadError> {
    read_json_if_there(file)?.ok_or_else(|| LoadError::Read {
        file: file.to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, missing(file)),
    })
}

/// Reads a JSON file; `None` if there is none.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    let bytes = match read_file(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { file: file.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| LoadError::Json { file: file.to_owned(), source })
}

/// The bytes of a file.
pub(crate) fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file. Reading anything else might never end: a named pipe waits for a writer.
pub(super) fn open_file(file: &Path) -> io::Result<File> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(file)
}

/// Refuses a folder with an adapter: transformers would add it to the weights, which are another
/// model's without it.
pub(super) fn refuse_adapter(folder: &Path) -> Result<(), LoadError> {
    let file = folder.join("adapter_config.json");
    if file.exists() { Err(LoadError::Adapter { file }) } else { Ok(()) }
}

/// Whether the folder is missing, or only the file in it.
fn missing(file: &Path) -> &'static str {
    match file.parent().is_some_and(Path::is_dir) {
        true => "there is no such file: the model in this folder is incomplete",
        false => "there is no such folder",
    }
}
