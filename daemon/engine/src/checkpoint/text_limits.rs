//! How the texts of a transformer are truncated and lower-cased, from the files beside it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::folder::read_json_if_there;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::truncation_side::TruncationSide;

/// How a transformer's texts are truncated and lower-cased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextLimits {
    /// Special tokens included.
    pub(crate) max_tokens: usize,
    pub(crate) lower_case: bool,
    /// Which end of a long text is cut off; `None` leaves it to `tokenizer.json`.
    pub(crate) side: Option<TruncationSide>,
    /// Whether the model takes segment ids, which tell the two texts of a pair apart.
    pub(crate) tells_segments: bool,
}

/// The file is `sentence_…_config.json` with one of these names. The library takes the first that
/// exists, for any model.
const SENTENCE_CONFIGS: [&str; 7] =
    ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"];

/// Classes of tokenizers that make no segment ids by default.
const WITHOUT_SEGMENTS: [&str; 3] =
    ["TokenizersBackend", "DistilBertTokenizer", "DistilBertTokenizerFast"];

/// Arguments for transformers that do not change the model's output.
const HARMLESS: [&str; 14] = [
    "_attn_implementation",
    "add_pooling_layer",
    "attn_implementation",
    "clean_up_tokenization_spaces",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "output_hidden_states",
    "padding",
    "padding_side",
    "revision",
    "torch_dtype",
    "trust_remote_code",
    "use_fast",
];

impl TextLimits {
    /// Reads the limits of an encoder. `own_file_counts`: sentence-transformers saved the folder as the
    /// class that it is loaded as, so its own file counts.
    pub(crate) fn read(
        folder: &Path,
        spec: &EncoderSpec,
        own_file_counts: bool,
    ) -> Result<Self, LoadError> {
        let sentence = if own_file_counts { SentenceConfig::read(folder)? } else { None };
        let sentence = sentence.unwrap_or_default();
        let file = folder.join("tokenizer_config.json");
        let tokenizer: Value = read_json_if_there(&file)?.unwrap_or_default();
        // transformers writes 1e30 for an unknown limit.
        let by_tokenizer = size(&tokenizer["model_max_length"]).unwrap_or(usize::MAX);
        let max_tokens = match sentence.max_tokens {
            // Rotary positions have no end, unlike the rows of a position table.
            Some(max) if !spec.positions_end => max,
            Some(max) => max.min(spec.positions),
            None => by_tokenizer.min(spec.positions),
        };
        let side = match sentence.side {
            None => TruncationSide::of_config(&tokenizer["truncation_side"], &file)?,
            side => side,
        };
        let tells_segments = match tokenizer["model_input_names"].as_array() {
            Some(inputs) => inputs.iter().any(|input| input == "token_type_ids"),
            None => !WITHOUT_SEGMENTS.iter().any(|class| tokenizer["tokenizer_class"] == *class),
        };
        Ok(Self { max_tokens, lower_case: sentence.lower_case, side, tells_segments })
    }
}

/// `sentence_bert_config.json`, or the file under another of its names.
#[derive(Debug, Default)]
struct SentenceConfig {
    max_tokens: Option<usize>,
    lower_case: bool,
    side: Option<TruncationSide>,
}

impl SentenceConfig {
    fn read(folder: &Path) -> Result<Option<Self>, LoadError> {
        for kind in SENTENCE_CONFIGS {
            let file = folder.join(format!("sentence_{kind}_config.json"));
            if let Some(json) = read_json_if_there::<Map<String, Value>>(&file)? {
                return Self::of(&json, &file).map(Some);
            }
        }
        Ok(None)
    }

    fn of(json: &Map<String, Value>, file: &Path) -> Result<Self, LoadError> {
        let at = |key: &str| json.get(key).unwrap_or(&Value::Null);
        for key in ["config_args", "config_kwargs", "model_args", "model_kwargs"] {
            refuse_other_than(&[], key, at(key), file)?;
        }
        let mut tokenizer = &Value::Null;
        for key in ["tokenizer_args", "processor_kwargs"] {
            refuse_other_than(&["model_max_length", "truncation_side"], key, at(key), file)?;
            tokenizer = if at(key).is_null() { tokenizer } else { at(key) };
        }
        if let Some(name) = at("tokenizer_name_or_path").as_str() {
            let (what, supported) = ("tokenizer_name_or_path", "the folder's own tokenizer");
            return Err(unsupported(what, name, supported, file));
        }
        let calls = &at("processing_kwargs")["text"];
        refuse_other_than(&["max_length", "truncation"], "processing_kwargs", calls, file)?;
        refuse_other_than(&[], "processing_kwargs", &at("processing_kwargs")["common"], file)?;
        let way = &calls["truncation"];
        if let Some(way) = way.as_str().filter(|way| *way != "longest_first") {
            return Err(unsupported("truncation of texts", way, "true, longest_first", file));
        }
        check_task(at("transformer_task"), &at("modality_config")["text"], file)?;
        let by_call = size(&calls["max_length"]);
        if calls["truncation"] == false && by_call.is_none() {
            let supported = "true";
            return Err(unsupported("truncation of texts", "false", supported, file));
        }
        let by_tokenizer = size(&tokenizer["model_max_length"]);
        Ok(Self {
            max_tokens: by_call.or(by_tokenizer).or_else(|| size(at("max_seq_length"))),
            lower_case: *at("do_lower_case") == true,
            side: TruncationSide::of_config(&tokenizer["truncation_side"], file)?,
        })
    }
}

/// Refuses a group of arguments for transformers that would change the model's output, other than
/// the `applied` ones, which this engine applies.
fn refuse_other_than(
    applied: &[&str],
    what: &'static str,
    group: &Value,
    file: &Path,
) -> Result<(), LoadError> {
    let settings = group.as_object().into_iter().flatten();
    let is_known = |key: &str| HARMLESS.contains(&key) || applied.contains(&key);
    match settings.filter(|(_, value)| !value.is_null()).find(|(key, _)| !is_known(key)) {
        None => Ok(()),
        Some((key, value)) => {
            let found = format!("{key}: {value}");
            let supported =
                "arguments that do not change the rows; model_max_length, truncation_side";
            Err(unsupported(what, &found, supported, file))
        }
    }
}

/// Refuses any output but the rows of the last layer and the scores of a head.
fn check_task(task: &Value, text: &Value, file: &Path) -> Result<(), LoadError> {
    for (what, found, supported) in [
        ("transformer_task", task, ["feature-extraction", "sequence-classification"]),
        ("the method of modality_config", &text["method"], ["forward", "forward"]),
        ("method_output_name", &text["method_output_name"], ["last_hidden_state", "logits"]),
    ] {
        if !found.is_null() && !supported.iter().any(|name| found == name) {
            let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            return Err(unsupported(what, &found, supported[0], file));
        }
    }
    Ok(())
}

fn unsupported(what: &'static str, found: &str, supported: &'static str, file: &Path) -> LoadError {
    let (file, found) = (file.to_owned(), found.to_owned());
    LoadError::Unsupported { file, what, found, supported }
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}
