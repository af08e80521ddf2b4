//! Weights in several files, and the index that says which file has which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::file::TensorFile;

/// The files of an index.
#[derive(Debug)]
pub(super) struct IndexedFiles {
    pub(super) files: Vec<TensorFile>,
    /// For each tensor, which of `files` has it.
    pub(super) file_of: BTreeMap<String, usize>,
}

/// Opens the files that an index names with `open_file`, and checks that each tensor is in the file
/// that the index says.
pub(super) fn open(
    file: &Path,
    open_file: impl Fn(&Path) -> Result<TensorFile, LoadError>,
) -> Result<IndexedFiles, LoadError> {
    let index: Index = read_json(file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut numbers = BTreeMap::new();
    let mut files = Vec::new();
    let mut file_of = BTreeMap::new();
    for (tensor, name) in &index.weight_map {
        let number = match numbers.get(name) {
            Some(&number) => number,
            None => {
                check_name(file, name)?;
                if files.len() == MAX_FILES {
                    return Err(LoadError::Setting {
                        file: file.to_owned(),
                        setting: "the number of files",
                        found: MAX_FILES + 1,
                        wanted: format!("at most {MAX_FILES}"),
                    });
                }
                files.push(open_file(&folder.join(name))?);
                numbers.insert(name, files.len() - 1);
                files.len() - 1
            }
        };
        // This error names the file, not the index.
        files[number].shape(tensor)?;
        file_of.insert(tensor.clone(), number);
    }
    // As in transformers, tensors that the index does not name belong to the model, too; of several
    // with the same name, that of the last file.
    for &number in numbers.values() {
        for tensor in files[number].names().filter(|name| !index.weight_map.contains_key(*name)) {
            file_of.insert(tensor.to_owned(), number);
        }
    }
    Ok(IndexedFiles { files, file_of })
}

/// Refuses a name that leads out of the folder: the index may come from anywhere.
fn check_name(file: &Path, name: &str) -> Result<(), LoadError> {
    let mut components = Path::new(name).components();
    if let (Some(Component::Normal(_)), None) = (components.next(), components.next()) {
        return Ok(());
    }
    Err(LoadError::Unsupported {
        file: file.to_owned(),
        what: "the weight file",
        found: name.to_owned(),
        supported: "names of files in the same folder",
    })
}

/// Far more files than any model has.
const MAX_FILES: usize = 4096;

#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}
