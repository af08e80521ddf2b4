//! The tokenizer of a Marian folder as it is published: two models of sentencepiece, of the texts
//! that are read and of those that are written, and one list of numbers for the pieces of both.
//!
//! Texts are split as `MarianTokenizer` does it where `sacremoses` is not installed, which would
//! change their marks before.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::folder::read_file;
use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::sentencepiece::{SPACE, Segmenter, SentencePieceModel, SpecialTokens};

/// Tokens of a text where `tokenizer_config.json` says nothing.
pub(crate) const MAX_TOKENS: usize = 512;

/// What both tables take for each byte of `vocab.json`: each piece is in one with its number, and its
/// text in the other, each an allocation of its own.
const VOCABULARY_TIMES_FILE: u64 = 10;

/// The files, read and not yet understood.
#[derive(Debug)]
pub(crate) struct MarianFiles {
    folder: PathBuf,
    source: Vec<u8>,
    target: Vec<u8>,
    vocabulary: Vec<u8>,
    special_tokens: SpecialTokens,
}

/// Texts to numbers and back.
#[derive(Debug)]
pub(crate) struct MarianTokenizer {
    /// `vocab.json`, for messages.
    pub(crate) file: PathBuf,
    segmenter: Segmenter,
    ids: HashMap<Box<str>, u32>,
    /// What each number is decoded to, where that is anything.
    texts: HashMap<u32, Box<str>>,
    /// What is a token wherever it stands in a text, with its number.
    special: Vec<(Box<str>, u32)>,
    unknown: u32,
    /// Goes behind each text.
    pub(crate) end: u32,
    /// The largest number of a token.
    pub(crate) largest: u32,
}

impl MarianFiles {
    /// Those of a folder; `None` where it has none of them.
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

    /// What the tokenizer takes in memory.
    pub(crate) fn need(&self) -> u64 {
        let source = (self.source.len() as u64).saturating_mul(Segmenter::TIMES_FILE);
        let vocabulary = (self.vocabulary.len() as u64).saturating_mul(VOCABULARY_TIMES_FILE);
        source.saturating_add(vocabulary)
    }

    /// Reads them.
    pub(crate) fn tokenizer(&self) -> Result<MarianTokenizer, LoadError> {
        let file = self.folder.join("vocab.json");
        let failed =
            |source: String| LoadError::Tokenizer { file: file.clone(), source: source.into() };
        let ids: HashMap<Box<str>, u32> = serde_json::from_slice(&self.vocabulary)
            .map_err(|source| LoadError::Json { file: file.clone(), source })?;
        let [unknown, end, _] = ["unk_token", "eos_token", "pad_token"].map(|name| {
            let token = self.special_tokens.named(name).unwrap_or_default();
            let id = ids.get(token).copied();
            id.ok_or_else(|| failed(format!("the {name} {token:?} is not in it")))
        });
        let (unknown, end) = (unknown?, end?);

        let special = self.special(&ids)?;
        let texts = self.texts(&ids, &special)?;
        let source = self.folder.join("source.spm");
        let model = SentencePieceModel::parse(&self.source).map_err(|fault| fault.of(&source))?;
        let segmenter = Segmenter::new(&model, &source)?;
        let largest = ids.values().chain(special.iter().map(|(_, id)| id)).copied().max();
        let largest = largest.unwrap_or_default();
        Ok(MarianTokenizer { file, segmenter, ids, texts, special, unknown, end, largest })
    }

    /// What is a token wherever it stands in a text, with its number.
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
                    supported: "special tokens that take nothing beside them",
                });
            }
        }
        let number = |token: &&str| added.get(token).or_else(|| ids.get(*token)).copied();
        special
            .into_iter()
            .filter(|token| !token.is_empty())
            .map(|token| {
                let id = number(&token).ok_or_else(|| LoadError::Tokenizer {
                    file: self.folder.join("vocab.json"),
                    source: format!("the special token {token:?} is not in it").into(),
                })?;
                Ok((token.into(), id))
            })
            .collect()
    }

    /// What each number is decoded to, where that is anything.
    fn texts(
        &self,
        ids: &HashMap<Box<str>, u32>,
        special: &[(Box<str>, u32)],
    ) -> Result<HashMap<u32, Box<str>>, LoadError> {
        let target = self.folder.join("target.spm");
        let model = SentencePieceModel::parse(&self.target).map_err(|fault| fault.of(&target))?;
        let decoded: HashMap<&str, &str> = model.decoded(&target)?.collect();
        let mut texts = HashMap::with_capacity(ids.len());
        for (piece, id) in ids {
            let text = decoded.get(&**piece).copied().unwrap_or(piece).replace(SPACE, " ");
            if texts.insert(*id, text.into()).is_some() {
                let (file, source) =
                    (self.folder.join("vocab.json"), format!("two pieces are {id}"));
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
    /// The tokens of a text, without the one that ends it.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            let special = self.special.iter().filter(|(token, _)| text[at..].starts_with(&**token));
            match special.max_by_key(|(token, _)| token.len()) {
                Some((token, id)) => {
                    self.encode_part(&text[from..at], &mut ids);
                    ids.push(*id);
                    at += token.len();
                    from = at;
                }
                None => at += c.len_utf8(),
            }
        }
        self.encode_part(&text[from..], &mut ids);
        ids
    }

    /// Appends the tokens of a text between special tokens.
    fn encode_part(&self, text: &str, ids: &mut Vec<u32>) {
        let id = |piece: &str| self.ids.get(piece).copied().unwrap_or(self.unknown);
        // The language to translate into, such as `>>fra<<`.
        let code = text.strip_prefix(">>").and_then(|rest| Some(rest.find("<<")? + 4));
        let (code, text) = text.split_at(code.unwrap_or_default());
        if !code.is_empty() {
            ids.push(id(code));
        }
        self.segmenter.segment(text, |piece| ids.push(id(piece)));
    }

    /// The text of tokens, without special ones.
    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        let texts = ids.iter().filter_map(|id| self.texts.get(id));
        let text: String = texts.map(|text| &**text).collect();
        // What Python takes for a blank.
        let is_blank = |c: char| c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c);
        text.trim_matches(is_blank).to_owned()
    }
}
