//! `config_sentence_transformers.json`: settings of a whole model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::folder::read_json_if_there;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::SavedAs;

/// Settings that do not belong to one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentenceSettings {
    /// By name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// The name of the prompt that precedes a text by default.
    pub(crate) default_prompt: Option<String>,
    /// The function that compares two rows, such as `cosine`.
    pub(crate) similarity: String,
    /// How many values of a row are kept by default.
    pub(crate) truncate_dim: Option<usize>,
}

impl SentenceSettings {
    /// Reads the settings of a folder. The file counts only if the folder was saved as the class that it
    /// is loaded as.
    pub(crate) fn of_folder(folder: &Path, loaded_as: SavedAs) -> Result<Self, LoadError> {
        let counts = SavedAs::of(folder)? == loaded_as;
        if counts { Self::read(folder) } else { Ok(Self::of_nothing()) }
    }

    /// The settings of a folder without the file.
    pub(crate) fn of_nothing() -> Self {
        Self {
            prompts: USUAL_PROMPTS.map(|name| (name.to_owned(), String::new())).into(),
            default_prompt: None,
            similarity: USUAL_SIMILARITY.to_owned(),
            truncate_dim: None,
        }
    }

    /// The text of the default prompt; empty if there is none.
    pub(crate) fn default_prompt_text(&self) -> &str {
        let text = self.default_prompt.as_ref().and_then(|name| self.prompts.get(name));
        text.map_or("", String::as_str)
    }

    /// Reads the file, if there is one.
    fn read(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(FILE);
        let file = read_json_if_there::<File>(&path)?.unwrap_or_default();
        let mut settings = Self::of_nothing();
        settings.prompts.extend(file.prompts.unwrap_or_default());
        settings.truncate_dim = file.truncate_dim;
        if let Some(similarity) = file.similarity_fn_name {
            settings.similarity = similarity;
        }
        if let Some(name) = file.default_prompt_name {
            if !settings.prompts.contains_key(&name) {
                let names: Vec<&str> = settings.prompts.keys().map(String::as_str).collect();
                return Err(LoadError::NoSuchPrompt { file: path, name, known: names.join(", ") });
            }
            settings.default_prompt = Some(name);
        }
        Ok(settings)
    }
}

#[derive(Debug, Default, Deserialize)]
struct File {
    prompts: Option<BTreeMap<String, String>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<usize>,
}

const FILE: &str = "config_sentence_transformers.json";

/// Every model of sentence-transformers has these prompts; they are empty unless its files set them.
const USUAL_PROMPTS: [&str; 2] = ["query", "document"];

/// The library's default.
const USUAL_SIMILARITY: &str = "cosine";
