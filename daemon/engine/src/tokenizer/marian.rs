//! The tokenizer of a published Marian folder: a sentencepiece model for the source language, one for
//! the target language, and one list of ids for the pieces of both.
//!
//! Texts are split as `MarianTokenizer` splits them without `sacremoses`, which would normalise their
//! punctuation first.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::folder::read_file;
use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::sentencepiece::{SPACE, Segmenter, SentencePieceModel, SpecialTokens};

/// Tokens of a text by default; `tokenizer_config.json` may set another limit.
pub(crate) const MAX_TOKENS: usize = 512;

/// The bytes of the files, not yet parsed.
#[derive(Debug)]
pub(crate) struct MarianFiles {
    folder: PathBuf,
    source: Vec<u8>,
    target: Vec<u8>,
    vocabulary: Vec<u8>,
    special_tokens: SpecialTokens,
}

/// Converts texts to token ids and back.
#[derive(Debug)]
pub(crate) struct MarianTokenizer {
    /// `vocab.json`, for messages.
    pub(crate) file: PathBuf,
    segmenter: Segmenter,
    ids: HashMap<Box<str>, u32>,
    /// The decoded text of each id, unless it is empty.
    texts: HashMap<u32, Box<str>>,
    /// Tokens that are recognised anywhere in a text, with their ids.
    special: Vec<(Box<str>, u32)>,
    unknown: u32,
    /// The token at the end of each text.
    pub(crate) end: u32,
    /// The largest token id.
    pub(crate) largest: u32,
}

/// Memory of both tables in multiples of `vocab.json`: one has each piece with its id, the other its
/// text, each an allocation of its own.
const VOCABULARY_TIMES_FILE: u64 = 10;

impl MarianFiles {
    /// Reads the files of a folder; `None` if it has none of them.
    pub(crate) fn of_folder(folder: &Path, config: &Value) -> Result<Option<Self>, LoadError> {
        let files = ["source.spm", "target.spm", "vocab.json"].map(|name| folder.join(name));
        if !files.iter().any(|file| file.exists()) {
            return Ok(None);
        }
        if config["separate_vocabs"] == true {
            return Err(LoadError::Unsupported {
                file: folder.join("tokenizer_config.json"),
                what: "separate_vocabs",
                found: "true".to_owned(),
                supported: "false",
            });
        }
        let read = |file: &PathBuf| {
            read_file(file).map_err(|source| LoadError::Read { file: file.clone(), source })
        };
        Ok(Some(Self {
            source: read(&files[0])?,
            target: read(&files[1])?,
            vocabulary: read(&files[2])?,
            special_tokens: SpecialTokens::of_folder(folder, config)?,
            folder: folder.to_owned(),
        }))
    }

    /// Memory of the tokenizer, in bytes.
    pub(crate) fn need(&self) -> u64 {
        let source = (self.source.len() as u64).saturating_mul(Segmenter::TIMES_FILE);
        let vocabulary = (self.vocabulary.len() as u64).saturating_mul(VOCABULARY_TIMES_FILE);
        source.saturating_add(vocabulary)
    }

    /// Parses the files.
    pub(crate) fn tokenizer(&self) -> Result<MarianTokenizer, LoadError> {
        let file = self.folder.join("vocab.json");
        let failed =
            |source: String| LoadError::Tokenizer { file: file.clone(), source: source.into() };
        let ids: HashMap<Box<str>, u32> = serde_json::from_slice(&self.vocabulary)
            .map_err(|source| LoadError::Json { file: file.clone(), source })?;
        let [unknown, end, _] = ["unk_token", "eos_token", "pad_token"].map(|name| {
            let token = self.special_tokens.named(name).unwrap_or_default();
            let id = ids.get(token).copied();
            id.ok_or_else(|| failed(format!("it has no entry for the {name} {token:?}")))
        });
        let (unknown, end) = (unknown?, end?);

        let special = self.special(&ids)?;
        let texts = self.texts(&ids, &special)?;
        let source = self.folder.join("source.spm");
        let model =
            SentencePieceModel::parse(&self.source).map_err(|fault| fault.in_file(&source))?;
        let segmenter = Segmenter::new(&model, &source)?;
        let largest = ids.values().chain(special.iter().map(|(_, id)| id)).copied().max();
        let largest = largest.unwrap_or_default();
        Ok(MarianTokenizer { file, segmenter, ids, texts, special, unknown, end, largest })
    }

    /// The tokens that are recognised anywhere in a text, with their ids.
    fn special(&self, ids: &HashMap<Box<str>, u32>) -> Result<Vec<(Box<str>, u32)>, LoadError> {
        let added: HashMap<&str, u32> =
            self.special_tokens.added.iter().map(|(id, token)| (&*token.content, *id)).collect();
        let special: HashSet<&str> =
            self.special_tokens.special().map(|token| &*token.content).collect();
        let of_added = self.special_tokens.added.values();
        for token in of_added.chain(self.special_tokens.special()) {
            let is_plain = !(token.lstrip || token.rstrip || token.single_word);
            if !is_plain || !special.contains(&*token.content) {
                return Err(LoadError::Unsupported {
                    file: self.folder.join("tokenizer_config.json"),
                    what: "the added token",
                    found: token.content.clone(),
                    supported: "special tokens without lstrip, rstrip and single_word",
                });
            }
        }
        let id_of = |token: &&str| added.get(token).or_else(|| ids.get(*token)).copied();
        special
            .into_iter()
            .filter(|token| !token.is_empty())
            .map(|token| {
                let id = id_of(&token).ok_or_else(|| LoadError::Tokenizer {
                    file: self.folder.join("vocab.json"),
                    source: format!("it has no entry for the special token {token:?}").into(),
                })?;
                Ok((token.into(), id))
            })
            .collect()
    }

    /// The decoded text of each id, unless it is empty.
    fn texts(
        &self,
        ids: &HashMap<Box<str>, u32>,
        special: &[(Box<str>, u32)],
    ) -> Result<HashMap<u32, Box<str>>, LoadError> {
        let target = self.folder.join("target.spm");
        let model =
            SentencePieceModel::parse(&self.target).map_err(|fault| fault.in_file(&target))?;
        let decoded: HashMap<&str, &str> = model.decoded(&target)?.collect();
        let mut texts = HashMap::with_capacity(ids.len());
        for (piece, id) in ids {
            let text = decoded.get(&**piece).copied().unwrap_or(piece).replace(SPACE, " ");
            if texts.insert(*id, text.into()).is_some() {
                let (file, source) =
                    (self.folder.join("vocab.json"), format!("two pieces have the id {id}"));
                return Err(LoadError::Tokenizer { file, source: source.into() });
            }
        }
        for (_, id) in special {
            texts.remove(id);
        }
        Ok(texts)
    }
}

impl MarianTokenizer {
    /// The token ids of a text, without the end token.
    pub(crate) fn tokenize(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            let special = self.special.iter().filter(|(token, _)| text[at..].starts_with(&**token));
            match special.max_by_key(|(token, _)| token.len()) {
                Some((token, id)) => {
                    self.tokenize_part(&text[from..at], &mut ids);
                    ids.push(*id);
                    at += token.len();
                    from = at;
                }
                None => at += c.len_utf8(),
            }
        }
        self.tokenize_part(&text[from..], &mut ids);
        ids
    }

    /// The text of tokens, without special tokens.
    pub(crate) fn detokenize(&self, ids: &[u32]) -> String {
        let texts = ids.iter().filter_map(|id| self.texts.get(id));
        let text: String = texts.map(|text| &**text).collect();
        // The white space that Python strips.
        let is_blank = |c: char| c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c);
        text.trim_matches(is_blank).to_owned()
    }

    /// Appends the tokens of a text without special tokens.
    fn tokenize_part(&self, text: &str, ids: &mut Vec<u32>) {
        let id = |piece: &str| self.ids.get(piece).copied().unwrap_or(self.unknown);
        // The target language, such as `>>fra<<`.
        let code = text.strip_prefix(">>").and_then(|rest| Some(rest.find("<<")? + 4));
        let (code, text) = text.split_at(code.unwrap_or_default());
        if !code.is_empty() {
            ids.push(id(code));
        }
        self.segmenter.segment(text, |piece| ids.push(id(piece)));
    }
}
