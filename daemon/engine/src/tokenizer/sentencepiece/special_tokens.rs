//! The special tokens of a folder without a `tokenizer.json`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;

use crate::checkpoint::folder::read_json_if_there;
use crate::checkpoint::load_error::LoadError;

/// Special and added tokens from `tokenizer_config.json`, or in old folders from
/// `special_tokens_map.json` and `added_tokens.json`.
#[derive(Debug)]
pub(in crate::tokenizer) struct SpecialTokens {
    named: BTreeMap<&'static str, AddedToken>,
    /// `None` if no file lists them, not even as an empty list.
    pub(super) additional: Option<Vec<AddedToken>>,
    /// By their ids. Special tokens may be among them.
    pub(in crate::tokenizer) added: BTreeMap<u32, AddedToken>,
}

/// The names of special tokens, in the order in which transformers adds them.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl SpecialTokens {
    /// The special tokens of a folder; `config` is its `tokenizer_config.json`.
    pub(in crate::tokenizer) fn of_folder(
        folder: &Path,
        config: &Value,
    ) -> Result<Self, LoadError> {
        let mut tokens = Self { named: BTreeMap::new(), additional: None, added: BTreeMap::new() };
        tokens.named.insert("eos_token", AddedToken::from("</s>", true));
        tokens.named.insert("unk_token", AddedToken::from("<unk>", true));
        tokens.named.insert("pad_token", AddedToken::from("<pad>", true));
        tokens.read(config);
        if let Some(added) = config["added_tokens_decoder"].as_object() {
            let entries = added.iter().filter_map(|(id, value)| {
                Some((id.parse().ok()?, token(value, value["special"] == true)?))
            });
            tokens.added.extend(entries);
            return Ok(tokens);
        }
        if let Some(map) = read_json_if_there::<Value>(&folder.join("special_tokens_map.json"))? {
            tokens.read(&map);
        }
        let file = folder.join("added_tokens.json");
        let added: BTreeMap<String, u32> = read_json_if_there(&file)?.unwrap_or_default();
        let special: HashSet<String> = tokens.special().map(|t| t.content.clone()).collect();
        tokens.added = added
            .into_iter()
            .map(|(content, id)| {
                let is_special = special.contains(&content);
                (id, AddedToken::from(content, is_special))
            })
            .collect();
        Ok(tokens)
    }

    /// A special token by its name, such as `eos_token`.
    pub(in crate::tokenizer) fn named(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(|token| &*token.content)
    }

    /// All special tokens.
    pub(in crate::tokenizer) fn special(&self) -> impl Iterator<Item = &AddedToken> {
        let named = NAMES.iter().filter_map(|name| self.named.get(name));
        named.chain(self.additional.iter().flatten())
    }

    fn read(&mut self, file: &Value) {
        for name in NAMES {
            if let Some(token) = token(&file[name], true) {
                self.named.insert(name, token);
            }
        }
        // transformers 5 writes the second name.
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        for list in lists.iter().filter_map(|key| file[key].as_array()) {
            let additional = self.additional.get_or_insert_default();
            let known: HashSet<String> = additional.iter().map(|t| t.content.clone()).collect();
            let tokens = list.iter().filter_map(|value| token(value, true));
            additional.extend(tokens.filter(|token| !known.contains(&token.content)));
        }
    }
}

/// A token as files write it: its text alone, or an object with its properties.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let content = value.as_str().or_else(|| value["content"].as_str())?;
    let is = |key: &str, default: bool| value[key].as_bool().unwrap_or(default);
    let token = AddedToken::from(content, special)
        .single_word(is("single_word", false))
        .lstrip(is("lstrip", false))
        .rstrip(is("rstrip", false));
    let normalized = is("normalized", token.normalized);
    Some(token.normalized(normalized))
}
