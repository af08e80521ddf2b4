//! `modules.json`: the chain of modules that a SentenceTransformers folder is.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::folder::{Layout, StaticLayout, read_json, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::heads::classifier::holds_rank_head;
use crate::heads::pooling::{Mode, Pooling};
use crate::heads::post_pooling::{DenseActivation, StepLayout};

/// A line of `modules.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What makes rows of tokens' rows, before its weights are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadLayout {
    pub(crate) pooling: Pooling,
    /// Whether a prompt's tokens are pooled like others.
    pub(crate) pools_prompt: bool,
    pub(crate) tail: Vec<StepLayout>,
    /// Whether the folder says nothing of it.
    pub(crate) is_assumed: bool,
}

const CHAINS: &str =
    "Transformer and Pooling, or StaticEmbedding; then any of Dense, LayerNorm, Normalize, Dropout";

impl Module {
    /// The class name is what stays the same when the library moves its modules about. Other classes
    /// are code that came with the model, whatever their names.
    fn class(&self, file: &Path) -> Result<&str, LoadError> {
        let path = self.kind.strip_prefix("sentence_transformers.");
        path.and_then(|path| path.rsplit('.').next()).ok_or_else(|| LoadError::ForeignCode {
            file: file.to_owned(),
            class: self.kind.clone(),
        })
    }

    /// Where its files are. A path that leads out of the model's folder is refused: what a model
    /// says of itself may have come from anywhere.
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

/// What a folder was saved as. Each class of sentence-transformers has files of its own beside the
/// model; where the folder is taken for something else, they do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SavedAs {
    /// By transformers.
    Model,
    /// A `SentenceTransformer`, which makes rows.
    SentenceTransformer,
    /// A `CrossEncoder`, which scores pairs.
    CrossEncoder,
}

impl SavedAs {
    /// That of a folder.
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
        // The file tells it since version 5; before, rows were all that modules could make.
        let is_bare = matches!(&modules[..], [only] if only.class(&file)? == "Transformer");
        Ok(match own.unwrap_or_default().model_type.as_deref() {
            Some("CrossEncoder") => Self::CrossEncoder,
            None if is_bare => Self::CrossEncoder,
            _ => Self::SentenceTransformer,
        })
    }
}

/// Refuses a cross-encoder that does more to its scores than its transformer.
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

impl Layout {
    /// Understands the chain of `model`'s `modules.json`, which is `file`.
    pub(crate) fn from_modules(
        model: &Path,
        file: &Path,
        modules: &[Module],
    ) -> Result<Self, LoadError> {
        let folders = modules
            .iter()
            .map(|module| module.folder(model, file))
            .collect::<Result<Vec<_>, _>>()?;
        let classes =
            modules.iter().map(|module| module.class(file)).collect::<Result<Vec<&str>, _>>()?;
        let foreign = || {
            Err(LoadError::Unsupported {
                file: file.to_owned(),
                what: "the chain of modules",
                found: classes.join(", "),
                supported: CHAINS,
            })
        };
        let tail_from = |first: usize| -> Result<Option<Vec<StepLayout>>, LoadError> {
            let mut steps = Vec::new();
            for (class, folder) in classes[first..].iter().zip(&folders[first..]) {
                match *class {
                    "Dense" => steps.push(read_dense(folder)?),
                    "LayerNorm" => steps.push(read_norm(folder)?),
                    "Normalize" => {
                        check_input(&folder.join("config.json"))?;
                        steps.push(StepLayout::Normalize);
                    }
                    // It does nothing but while a model is trained.
                    "Dropout" => {}
                    _ => return Ok(None),
                }
            }
            Ok(Some(steps))
        };
        match classes[..] {
            ["Transformer", "Pooling", ..] => {
                let Some(tail) = tail_from(2)? else { return foreign() };
                let (pooling, pools_prompt) = read_pooling(&folders[1].join("config.json"))?;
                let head = HeadLayout { pooling, pools_prompt, tail, is_assumed: false };
                Ok(Self::Transformer { folder: folders[0].clone(), head })
            }
            // So a cross-encoder is written; its rows are those of a folder without modules.
            ["Transformer"] if holds_rank_head(&folders[0]) => Ok(Self::bare(&folders[0])),
            ["StaticEmbedding", ..] => {
                let Some(tail) = tail_from(1)? else { return foreign() };
                Ok(Self::Static(StaticLayout::of_folder(folders[0].clone(), tail)))
            }
            _ => foreign(),
        }
    }
}

/// Both spellings of a mode of pooling, in the order in which several of them are joined.
const MODES: [(Mode, &str, &str); 6] = [
    (Mode::Cls, "cls", "pooling_mode_cls_token"),
    (Mode::Max, "max", "pooling_mode_max_tokens"),
    (Mode::Mean, "mean", "pooling_mode_mean_tokens"),
    (Mode::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (Mode::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (Mode::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

/// The pooling, and whether a prompt's tokens are part of it.
fn read_pooling(file: &Path) -> Result<(Pooling, bool), LoadError> {
    #[derive(Deserialize)]
    struct Config {
        pooling_mode: Option<OneOrMany>,
        #[serde(default = "yes")]
        include_prompt: bool,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    /// Since version 6 of the library; one name, or several that are joined in their order.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let unsupported = |found: String| LoadError::Unsupported {
        file: file.to_owned(),
        what: "the pooling",
        found,
        supported: "cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken",
    };
    let config: Config = read_json(file)?;
    let names = match config.pooling_mode {
        Some(OneOrMany::One(name)) => Some(vec![name]),
        Some(OneOrMany::Many(names)) => Some(names),
        None => None,
    };
    let modes: Vec<Mode> = if let Some(names) = names {
        let mode =
            |name: &String| MODES.iter().find(|(_, new, _)| new == name).map(|(mode, ..)| *mode);
        let modes = names.iter().map(mode).collect::<Option<Vec<_>>>();
        modes.filter(|modes| !modes.is_empty()).ok_or_else(|| unsupported(names.join(" + ")))?
    } else {
        let flags = |known: bool| {
            config.rest.iter().filter(move |(key, value)| {
                let is_known = MODES.iter().any(|(.., old)| old == key);
                key.starts_with("pooling_mode_") && **value == true && is_known == known
            })
        };
        if let Some((key, _)) = flags(false).next() {
            return Err(unsupported(key.clone()));
        }
        let modes = MODES.iter().filter(|(.., old)| flags(true).any(|(key, _)| key == old));
        modes.map(|(mode, ..)| *mode).collect()
    };
    // As the library has it where no mode is named.
    let modes = if modes.is_empty() { vec![Mode::Mean] } else { modes };
    Ok((Pooling { modes }, config.include_prompt))
}

fn yes() -> bool {
    true
}

fn read_dense(folder: &Path) -> Result<StepLayout, LoadError> {
    #[derive(Deserialize)]
    struct Dense {
        in_features: usize,
        out_features: usize,
        #[serde(default = "yes")]
        bias: bool,
        activation_function: Option<String>,
        #[serde(default)]
        use_residual: bool,
    }
    let file = folder.join("config.json");
    check_input(&file)?;
    let dense: Dense = read_json(&file)?;
    if dense.use_residual {
        return Err(LoadError::Unsupported {
            file,
            what: "use_residual",
            found: "true".into(),
            supported: "false",
        });
    }
    let class = dense.activation_function.as_deref().unwrap_or("torch.nn.modules.activation.Tanh");
    let Some(activation) = DenseActivation::of_class(class) else {
        return Err(LoadError::Unsupported {
            file,
            what: "the activation",
            found: class.to_owned(),
            supported: DenseActivation::SUPPORTED,
        });
    };
    for (setting, found) in
        [("in_features", dense.in_features), ("out_features", dense.out_features)]
    {
        check_size(&file, setting, found)?;
    }
    Ok(StepLayout::Dense {
        folder: folder.to_owned(),
        inputs: dense.in_features,
        outputs: dense.out_features,
        has_bias: dense.bias,
        activation,
    })
}

fn read_norm(folder: &Path) -> Result<StepLayout, LoadError> {
    #[derive(Deserialize)]
    struct Norm {
        dimension: usize,
    }
    let file = folder.join("config.json");
    let Norm { dimension } = read_json(&file)?;
    check_size(&file, "dimension", dimension)?;
    Ok(StepLayout::Norm { folder: folder.to_owned(), dimension })
}

fn check_size(file: &Path, setting: &'static str, found: usize) -> Result<(), LoadError> {
    const MOST: usize = 1 << 20;
    if (1..=MOST).contains(&found) {
        return Ok(());
    }
    let wanted = format!("between 1 and {MOST}");
    Err(LoadError::Setting { file: file.to_owned(), setting, found, wanted })
}

/// Newer modules may work on something else than the row of a text, such as on those of its tokens.
fn check_input(file: &Path) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Names {
        module_input_name: Option<String>,
        module_output_name: Option<String>,
    }
    const ROW: &str = "sentence_embedding";
    let Some(names) = read_json_if_there::<Names>(file)? else { return Ok(()) };
    for (what, name) in [
        ("module_input_name", names.module_input_name),
        ("module_output_name", names.module_output_name),
    ] {
        if let Some(found) = name.filter(|name| name != ROW) {
            return Err(LoadError::Unsupported {
                file: file.to_owned(),
                what,
                found,
                supported: ROW,
            });
        }
    }
    Ok(())
}
