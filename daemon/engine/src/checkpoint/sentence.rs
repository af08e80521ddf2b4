//! What `config_sentence_transformers.json` says of a whole model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::folder::read_json_if_there;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::SavedAs;

const FILE: &str = "config_sentence_transformers.json";

/// Prompts that every model of sentence-transformers has, empty unless its files fill them.
const USUAL_PROMPTS: [&str; 2] = ["query", "document"];

/// How rows are compared where the files do not say.
const USUAL_SIMILARITY: &str = "cosine";

/// Settings that do not belong to one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentenceSettings {
    /// By name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// Which of them goes in front of a text where nobody names another.
    pub(crate) default_prompt: Option<String>,
    /// How rows are compared.
    pub(crate) similarity: String,
    /// Values of a row that are used where nobody asks for another number.
    pub(crate) truncate_dim: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    prompts: Option<BTreeMap<String, String>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<usize>,
}

impl SentenceSettings {
    /// Those of a folder, whose file counts where it was saved as what it is taken for.
    pub(crate) fn of_folder(folder: &Path, taken_for: SavedAs) -> Result<Self, LoadError> {
        let counts = SavedAs::of(folder)? == taken_for;
        if counts { Self::read(folder) } else { Ok(Self::of_nothing()) }
    }

    /// Reads the file of a model's folder, if it has one.
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

    /// Those of a folder without the file.
    pub(crate) fn of_nothing() -> Self {
        Self {
            prompts: USUAL_PROMPTS.map(|name| (name.to_owned(), String::new())).into(),
            default_prompt: None,
            similarity: USUAL_SIMILARITY.to_owned(),
            truncate_dim: None,
        }
    }

    /// The text of the default prompt; empty for none.
    pub(crate) fn default_prompt_text(&self) -> &str {
        let text = self.default_prompt.as_ref().and_then(|name| self.prompts.get(name));
        text.map_or("", String::as_str)
    }
}
