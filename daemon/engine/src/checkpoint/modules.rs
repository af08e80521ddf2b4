//! `modules.json`: the chain of modules in a folder of sentence-transformers.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::folder::{read_json, read_json_if_there, refuse_adapter};
use crate::checkpoint::head_kind::holds_rank_head;
use crate::checkpoint::layout::{Layout, PoolingHeadSpec, StaticLayout};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::module_configs::{check_input, read_dense, read_norm, read_pooling};
use crate::checkpoint::module_spec::ModuleSpec;

/// The class that saved a folder. Each class of sentence-transformers has files of its own beside the
/// model. They count only if the folder is loaded as that class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SavedAs {
    /// By transformers.
    Model,
    /// A `SentenceTransformer`, which computes rows.
    SentenceTransformer,
    /// A `CrossEncoder`, which scores pairs.
    CrossEncoder,
}

impl SavedAs {
    /// Reads which class saved the folder.
    pub(crate) fn of(folder: &Path) -> Result<Self, LoadError> {
        #[derive(Default, Deserialize)]
        struct Own {
            model_type: Option<String>,
        }
        let file = folder.join("modules.json");
        let Some(modules) = read_json_if_there::<Vec<Module>>(&file)? else {
            return Ok(Self::Model);
        };
        let own: Option<Own> =
            read_json_if_there(&folder.join("config_sentence_transformers.json"))?;
        // The file names the class since version 5. Before, a transformer alone was a cross-encoder.
        let is_bare = matches!(&modules[..], [only] if only.class(&file)? == "Transformer");
        Ok(match own.unwrap_or_default().model_type.as_deref() {
            Some("CrossEncoder") => Self::CrossEncoder,
            None if is_bare => Self::CrossEncoder,
            _ => Self::SentenceTransformer,
        })
    }
}

impl Layout {
    /// Reads the parts of a folder from `modules.json`, or from `config.json` in a folder without it.
    pub(crate) fn read(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("modules.json");
        if let Some(modules) = read_json_if_there::<Vec<Module>>(&file)? {
            return from_modules(folder, &file, &modules);
        }
        refuse_adapter(folder)?;
        let config: Value = read_json(&folder.join("config.json"))?;
        if config["model_type"] == "model2vec" {
            return Ok(Self::Static(StaticLayout::from_model2vec(folder.to_owned(), config)?));
        }
        Ok(Self::bare(folder))
    }
}

/// Refuses a cross-encoder with modules behind its transformer.
pub(crate) fn check_bare(folder: &Path) -> Result<(), LoadError> {
    let file = folder.join("modules.json");
    let modules = read_json_if_there::<Vec<Module>>(&file)?.unwrap_or_default();
    let classes: Vec<&str> =
        modules.iter().map(|module| module.class(&file)).collect::<Result<_, _>>()?;
    if classes.len() <= 1 {
        return Ok(());
    }
    let (what, found) = ("the chain of a cross-encoder's modules", classes.join(", "));
    Err(LoadError::Unsupported { file, what, found, supported: "Transformer alone" })
}

/// A line of `modules.json`.
#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Module {
    /// The name of its class without its path, which differs between versions of the library. A class
    /// outside the library is code that comes with the model, and is refused.
    fn class(&self, file: &Path) -> Result<&str, LoadError> {
        let path = self.kind.strip_prefix("sentence_transformers.");
        path.and_then(|path| path.rsplit('.').next()).ok_or_else(|| LoadError::ForeignCode {
            file: file.to_owned(),
            class: self.kind.clone(),
        })
    }

    /// The folder of its files. A path out of the model's folder is refused: the model may come from
    /// anywhere.
    fn folder(&self, model: &Path, file: &Path) -> Result<PathBuf, LoadError> {
        let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if Path::new(&self.path).components().all(is_inside) {
            return Ok(model.join(&self.path));
        }
        Err(LoadError::Unsupported {
            file: file.to_owned(),
            what: "the path of a module",
            found: self.path.clone(),
            supported: "folders inside the model's own",
        })
    }
}

const CHAINS: &str =
    "Transformer and Pooling, or StaticEmbedding; then any of Dense, LayerNorm, Normalize, Dropout";

/// Interprets the chain of modules of the folder `model`. `file` is its `modules.json`, for messages.
fn from_modules(model: &Path, file: &Path, modules: &[Module]) -> Result<Layout, LoadError> {
    let folders =
        modules.iter().map(|module| module.folder(model, file)).collect::<Result<Vec<_>, _>>()?;
    let classes =
        modules.iter().map(|module| module.class(file)).collect::<Result<Vec<&str>, _>>()?;
    let unsupported = || {
        Err(LoadError::Unsupported {
            file: file.to_owned(),
            what: "the chain of modules",
            found: classes.join(", "),
            supported: CHAINS,
        })
    };
    let modules_from = |first: usize| read_modules(&classes[first..], &folders[first..]);
    match classes[..] {
        ["Transformer", "Pooling", ..] => {
            let Some(modules) = modules_from(2)? else { return unsupported() };
            let (pooling, pools_prompt) = read_pooling(&folders[1].join("config.json"))?;
            let head = PoolingHeadSpec { pooling, pools_prompt, modules, is_assumed: false };
            Ok(Layout::Transformer { folder: folders[0].clone(), head })
        }
        // A cross-encoder: it computes rows like a folder without modules.
        ["Transformer"] if holds_rank_head(&folders[0]) => Ok(Layout::bare(&folders[0])),
        ["StaticEmbedding", ..] => {
            let Some(modules) = modules_from(1)? else { return unsupported() };
            Ok(Layout::Static(StaticLayout::of_folder(folders[0].clone(), modules)))
        }
        _ => unsupported(),
    }
}

/// The modules behind pooling; `None` if a class cannot follow pooling.
fn read_modules(
    classes: &[&str],
    folders: &[PathBuf],
) -> Result<Option<Vec<ModuleSpec>>, LoadError> {
    let mut specs = Vec::new();
    for (class, folder) in classes.iter().zip(folders) {
        match *class {
            "Dense" => specs.push(read_dense(folder)?),
            "LayerNorm" => specs.push(read_norm(folder)?),
            "Normalize" => {
                check_input(&folder.join("config.json"))?;
                specs.push(ModuleSpec::Normalize);
            }
            // Only active in training.
            "Dropout" => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(specs))
}
