//! The models inside the program, and the models that are configured by default.

use crate::settings::model_type::ModelType;

/// The id of the built-in embedding model.
pub const BUILTIN_ID: &str = "builtin";

/// The id of the built-in model that generates texts.
pub const BUILTIN_TEXT_ID: &str = "builtin-t5";

/// The name of the built-in embedding model.
pub const BUILTIN_STATIC: &str = "builtin:static-minilm";

/// The name of the built-in model that generates texts.
pub const BUILTIN_VERBALIZER: &str = "builtin:verbalizer-t5";

/// The hub name of the model `embedding`, unless a settings file names models.
pub const DEFAULT_EMBEDDING: &str = "mixedbread-ai/mxbai-embed-large-v1";

/// The hub name of the model `t5_summarizer`, unless a settings file names models.
pub(super) const DEFAULT_SUMMARIZER: &str = "google/flan-t5-large";

/// A model inside the program.
pub(super) struct Builtin {
    /// The id under which it is always offered.
    pub(super) id: &'static str,
    /// Its name, which other ids may use, too.
    pub(super) name: &'static str,
    /// Its type.
    pub(super) model_type: ModelType,
}

/// The models inside the program.
pub(super) const BUILTINS: [Builtin; 2] = [
    Builtin { id: BUILTIN_ID, name: BUILTIN_STATIC, model_type: ModelType::Embedding },
    Builtin { id: BUILTIN_TEXT_ID, name: BUILTIN_VERBALIZER, model_type: ModelType::Text2Text },
];

/// Whether an id belongs to a model inside the program.
#[must_use]
pub fn is_builtin_id(id: &str) -> bool {
    BUILTINS.iter().any(|builtin| builtin.id == id)
}

/// The id of the built-in model of this name, such as `builtin:static-minilm`.
#[must_use]
pub fn builtin_id(name: &str) -> Option<&'static str> {
    BUILTINS.iter().find(|builtin| builtin.name == name).map(|builtin| builtin.id)
}
