//! Which files of a repository a loader needs.

/// Files that say what a model is, by name, wherever a module keeps them.
const NAMED: [&str; 16] = [
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "preprocessor_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "unigram.json",
];

/// The listed files that are needed: descriptions first, then weights, so that a model that
/// cannot be used is found out early.
pub(super) fn choose(listed: &[String]) -> Vec<&str> {
    let mut chosen: Vec<&str> = listed
        .iter()
        .map(String::as_str)
        .filter(|file| {
            let (folder, name) = split(file);
            is_module_folder(folder)
                && (is_description(name) || is_needed_weight(listed, folder, name))
        })
        .collect();
    chosen.sort_unstable_by_key(|file| (is_weight(split(file).1), *file));
    chosen.dedup();
    chosen
}

/// Whether the name is one of a file of weights (or their index) that we know how to use.
pub(super) fn is_weight(name: &str) -> bool {
    is_of(name, "model", "safetensors") || is_of(name, "pytorch_model", "bin")
}

fn is_needed_weight(listed: &[String], folder: &str, name: &str) -> bool {
    let has = |test: &dyn Fn(&str) -> bool| {
        listed.iter().map(|file| split(file)).any(|(other, name)| other == folder && test(name))
    };
    if is_of(name, "model", "safetensors") {
        return name == "model.safetensors" || !has(&|name| name == "model.safetensors");
    }
    // Pickles only where there is nothing better, and in one piece rather than in shards.
    is_of(name, "pytorch_model", "bin")
        && !has(&|name| is_of(name, "model", "safetensors"))
        && (name == "pytorch_model.bin" || !has(&|name| name == "pytorch_model.bin"))
}

/// `stem.end`, `stem-00001-of-00002.end` or `stem.end.index.json`.
fn is_of(name: &str, stem: &str, end: &str) -> bool {
    let Some(rest) = name.strip_prefix(stem) else { return false };
    let Some(rest) = rest.strip_suffix(".index.json").unwrap_or(rest).strip_suffix(end) else {
        return false;
    };
    match rest.strip_suffix('.') {
        Some("") => true,
        Some(shard) => {
            let digits =
                |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let parts = shard.strip_prefix('-').and_then(|shard| shard.split_once("-of-"));
            parts.is_some_and(|(number, count)| digits(number) && digits(count))
        }
        None => false,
    }
}

fn is_description(name: &str) -> bool {
    // sentence_bert_config.json has sisters: sentence_roberta_config.json and so on.
    NAMED.contains(&name) || (name.starts_with("sentence_") && name.ends_with("_config.json"))
}

/// The repository itself, or a module's folder such as `1_Pooling` or `2_Dense`.
fn is_module_folder(folder: &str) -> bool {
    folder.is_empty()
        || folder.split_once('_').is_some_and(|(number, kind)| {
            !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && !kind.contains('/')
        })
}

fn split(file: &str) -> (&str, &str) {
    file.rsplit_once('/').unwrap_or(("", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(listed: &[&str]) -> Vec<String> {
        let listed: Vec<String> = listed.iter().map(|&file| file.to_owned()).collect();
        choose(&listed).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn other_runtimes_weights_are_left() {
        let listed = [
            ".gitattributes",
            "README.md",
            "model.safetensors",
            "pytorch_model.bin",
            "tf_model.h5",
            "flax_model.msgpack",
            "rust_model.ot",
            "onnx/model.onnx",
            "openvino/openvino_model.bin",
            "onnx/config.json",
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "config.json",
            "modules.json",
            "train_script.py",
            "data_config.json",
            "sentence_bert_config.json",
            "vocab.txt",
            "model_quantized.safetensors",
        ];
        assert_eq!(
            chosen(&listed),
            [
                "1_Pooling/config.json",
                "config.json",
                "modules.json",
                "sentence_bert_config.json",
                "vocab.txt",
                "2_Dense/model.safetensors",
                "model.safetensors",
            ]
        );
    }

    #[test]
    fn pickles_are_taken_where_there_is_nothing_better() {
        assert_eq!(
            chosen(&["pytorch_model.bin", "config.json"]),
            ["config.json", "pytorch_model.bin"]
        );
        assert_eq!(
            chosen(&["pytorch_model.bin", "1_X/model.safetensors"]),
            ["1_X/model.safetensors", "pytorch_model.bin"]
        );
    }

    #[test]
    fn shards_come_with_their_index() {
        let shards = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        let mut listed = shards.to_vec();
        listed.push("pytorch_model.bin");
        assert_eq!(chosen(&listed), shards);
        listed.push("model.safetensors");
        assert_eq!(chosen(&listed), ["model.safetensors"]);
    }
}
