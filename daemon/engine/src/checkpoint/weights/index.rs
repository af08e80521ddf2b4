//! Weights in several files, and the index that tells which tensor is where.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::checkpoint::folder::read_json;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::{Format, Weights};

/// Far more than any model is cut into.
const MAX_PARTS: usize = 4096;

#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens all the files that an index names, and checks that each tensor is where it says.
pub(crate) fn open(file: &Path, format: Format) -> Result<Weights, LoadError> {
    let index: Index = read_json(file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut numbers = BTreeMap::new();
    let mut parts = Vec::new();
    let mut places = BTreeMap::new();
    for (tensor, name) in &index.weight_map {
        let number = match numbers.get(name) {
            Some(&number) => number,
            None => {
                check_name(file, name)?;
                if parts.len() == MAX_PARTS {
                    return Err(LoadError::Setting {
                        file: file.to_owned(),
                        setting: "the number of files",
                        found: MAX_PARTS + 1,
                        wanted: format!("at most {MAX_PARTS}"),
                    });
                }
                parts.push(format.open(&folder.join(name))?);
                numbers.insert(name, parts.len() - 1);
                parts.len() - 1
            }
        };
        // The file's own error says which file lacks it.
        parts[number].shape(tensor)?;
        places.insert(tensor.clone(), number);
    }
    // What the index does not name belongs to the model all the same, as in transformers; of several
    // by one name the last file's.
    for &number in numbers.values() {
        for tensor in parts[number].names().filter(|name| !index.weight_map.contains_key(*name)) {
            places.insert(tensor.to_owned(), number);
        }
    }
    Ok(Weights { file: file.to_owned(), parts, places })
}

/// A name that leads out of the folder is refused: the index may have come from anywhere.
fn check_name(file: &Path, name: &str) -> Result<(), LoadError> {
    let mut components = Path::new(name).components();
    if let (Some(Component::Normal(_)), None) = (components.next(), components.next()) {
        return Ok(());
    }
    Err(LoadError::Unsupported {
        file: file.to_owned(),
        what: "the file of weights",
        found: name.to_owned(),
        supported: "names of files beside it",
    })
}
