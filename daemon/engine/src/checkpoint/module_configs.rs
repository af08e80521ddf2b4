//! The `config.json` of a module of sentence-transformers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::folder::{read_json, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::module_spec::{DenseActivation, ModuleSpec};
use crate::checkpoint::pooling::{Pooling, PoolingMode};

/// A `Pooling` module, and whether it includes the tokens of a prompt.
pub(super) fn read_pooling(file: &Path) -> Result<(Pooling, bool), LoadError> {
    #[derive(Deserialize)]
    struct Config {
        pooling_mode: Option<OneOrMany>,
        #[serde(default = "yes")]
        include_prompt: bool,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    /// Since version 6 of the library: one name, or several whose rows are joined in this order.
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
    let modes: Vec<PoolingMode> = if let Some(names) = names {
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
    // The library's default.
    let modes = if modes.is_empty() { vec![PoolingMode::Mean] } else { modes };
    Ok((Pooling { modes }, config.include_prompt))
}

/// A `Dense` module: a linear layer with an activation.
pub(super) fn read_dense(folder: &Path) -> Result<ModuleSpec, LoadError> {
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
    Ok(ModuleSpec::Dense {
        folder: folder.to_owned(),
        inputs: dense.in_features,
        outputs: dense.out_features,
        has_bias: dense.bias,
        activation,
    })
}

/// A `LayerNorm` module.
pub(super) fn read_norm(folder: &Path) -> Result<ModuleSpec, LoadError> {
    #[derive(Deserialize)]
    struct Norm {
        dimension: usize,
    }
    let file = folder.join("config.json");
    let Norm { dimension } = read_json(&file)?;
    check_size(&file, "dimension", dimension)?;
    Ok(ModuleSpec::Norm { folder: folder.to_owned(), dimension })
}

/// Refuses a module that reads or writes anything but the row of a text, such as the rows of its tokens:
/// newer versions of the library allow it.
pub(super) fn check_input(file: &Path) -> Result<(), LoadError> {
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

/// Both spellings of each mode, in the order in which the old spelling joins several of them.
const MODES: [(PoolingMode, &str, &str); 6] = [
    (PoolingMode::Cls, "cls", "pooling_mode_cls_token"),
    (PoolingMode::Max, "max", "pooling_mode_max_tokens"),
    (PoolingMode::Mean, "mean", "pooling_mode_mean_tokens"),
    (PoolingMode::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (PoolingMode::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (PoolingMode::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

fn check_size(file: &Path, setting: &'static str, found: usize) -> Result<(), LoadError> {
    const MOST: usize = 1 << 20;
    if (1..=MOST).contains(&found) {
        return Ok(());
    }
    let wanted = format!("between 1 and {MOST}");
    Err(LoadError::Setting { file: file.to_owned(), setting, found, wanted })
}

fn yes() -> bool {
    true
}
