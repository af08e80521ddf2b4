//! The tokenizer of a T5 folder, converted from its `spiece.model` as transformers does it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::decoders::metaspace::Metaspace;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer};

use crate::checkpoint::folder::{read_file, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::sentencepiece::fault::SentencePieceFault;
use crate::tokenizer::sentencepiece::model::{PieceKind, SPACE, SentencePieceModel};
use crate::tokenizer::sentencepiece::special_tokens::SpecialTokens;

/// The files of the tokenizer of a T5 folder without a `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct T5Files {
    /// `spiece.model`.
    pub(in crate::tokenizer) file: PathBuf,
    model: Vec<u8>,
    special_tokens: SpecialTokens,
    extra_ids: usize,
    prepend_scheme: PrependScheme,
}

/// The number of `<extra_id_…>` tokens by default.
const EXTRA_IDS: usize = 100;

/// No published folder has as many.
const MAX_EXTRA_IDS: usize = 1 << 16;

/// The token at the end of each text. `eos_token` does not count.
const END: &str = "</s>";

impl T5Files {
    /// Memory of a tokenizer in multiples of the model file. It is more than for a `tokenizer.json`,
    /// which spends more bytes on a piece of the same length.
    const TIMES_FILE: u64 = 80;

    /// Reads the files of a folder; `None` if it has no `spiece.model`.
    pub(crate) fn of_folder(folder: &Path) -> Result<Option<Self>, LoadError> {
        let file = folder.join("spiece.model");
        if !file.exists() {
            return Ok(None);
        }
        let model =
            read_file(&file).map_err(|source| LoadError::Read { file: file.clone(), source })?;
        let config_file = folder.join("tokenizer_config.json");
        let config: Value = read_json_if_there(&config_file)?.unwrap_or_default();
        let mut special_tokens = SpecialTokens::of_folder(folder, &config)?;
        let extra_ids = match &config["extra_ids"] {
            Value::Null => EXTRA_IDS,
            value => value.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX),
        };
        let additional = special_tokens.additional.get_or_insert_default();
        let known = additional.iter().filter(|t| t.content.contains("<extra_id_")).count();
        let wrong_number = known > 0 && extra_ids > 0 && extra_ids != known;
        if wrong_number || extra_ids > MAX_EXTRA_IDS {
            let wanted = match wrong_number {
                true => format!("{known}, the number in additional_special_tokens"),
                false => format!("at most {MAX_EXTRA_IDS}"),
            };
            let (file, setting) = (config_file, "extra_ids");
            return Err(LoadError::Setting { file, setting, found: extra_ids, wanted });
        }
        if known == 0 {
            let names = (0..extra_ids).map(extra_id);
            additional.extend(names.map(|name| AddedToken::from(name, true)));
        }
        let prepend_scheme = match (&config["add_prefix_space"], &config["legacy"]) {
            (Value::Bool(false), _) => PrependScheme::Never,
            (_, Value::Bool(false)) => PrependScheme::First,
            _ => PrependScheme::Always,
        };
        Ok(Some(Self { file, model, special_tokens, extra_ids, prepend_scheme }))
    }

    /// A hash over everything that determines the tokenizer.
    pub(in crate::tokenizer) fn digest(&self) -> [u8; 32] {
        let Self { file: _, model, special_tokens, extra_ids, prepend_scheme } = self;
        let mut hasher = blake3::Hasher::new();
        hasher.update(model);
        hasher.update(format!("{special_tokens:?} {extra_ids} {prepend_scheme:?}").as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Memory of the tokenizer, in bytes.
    pub(crate) fn need(&self) -> u64 {
        (self.model.len() as u64).saturating_mul(Self::TIMES_FILE)
    }

    /// The same for a folder, without reading a file; 0 if the folder has no `spiece.model`.
    pub(crate) fn need_of(folder: &Path) -> u64 {
        let len = std::fs::metadata(folder.join("spiece.model")).map_or(0, |file| file.len());
        len.saturating_mul(Self::TIMES_FILE)
    }

    /// Converts the model to a tokenizer of the `tokenizers` library.
    pub(in crate::tokenizer) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let model =
            SentencePieceModel::parse(&self.model).map_err(|fault| fault.in_file(&self.file))?;
        model.require_unigram(&self.file)?;
        self.convert(&model)
            .map_err(|source| LoadError::Tokenizer { file: self.file.clone(), source })
    }

    fn convert(&self, model: &SentencePieceModel) -> tokenizers::Result<Tokenizer> {
        let (id, pieces) = (model.trainer.unk_id, model.pieces.len());
        let unknown = usize::try_from(id).ok().filter(|unknown| *unknown < pieces);
        let unknown = unknown.ok_or(SentencePieceFault::UnknownId { id, pieces })?;
        let mut vocabulary: Vec<(String, f64)> =
            model.pieces.iter().map(|p| (p.text.clone(), f64::from(p.score))).collect();
        vocabulary.extend((0..self.extra_ids).rev().map(|i| (extra_id(i), 0.0)));
        let mut tokenizer = Tokenizer::new(Unigram::from(vocabulary, Some(unknown), false)?);

        let of_model = model.pieces.iter().filter_map(|piece| {
            let is_special = piece.kind == PieceKind::Control;
            (is_special || piece.kind == PieceKind::UserDefined)
                .then(|| AddedToken::from(piece.text.as_str(), is_special).normalized(false))
        });
        tokenizer.add_tokens(of_model)?;
        let special = || self.special_tokens.special();
        let names: HashSet<&str> = special().map(|token| &*token.content).collect();
        let added = self.special_tokens.added.values().cloned().map(|token| {
            let is_special = token.special || names.contains(&*token.content);
            token.special(is_special)
        });
        tokenizer.add_tokens(added)?;
        let known = tokenizer.get_added_tokens_decoder();
        let known: HashSet<&str> = known.values().map(|token| &*token.content).collect();
        let is_new = |token: &&AddedToken| !known.contains(&*token.content);
        let new: Vec<AddedToken> = special().filter(is_new).cloned().collect();
        tokenizer.add_tokens(new)?;

        let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
        // The library does not check the rules; `charsmap` does.
        if model.charsmap()?.is_some() {
            let charsmap = Precompiled::from(&model.normalizer.precompiled_charsmap);
            normalizers.push(charsmap.map_err(|_| SentencePieceFault::Charsmap)?.into());
        }
        normalizers.push(Strip::new(false, true).into());
        let blanks = ReplacePattern::Regex(" {2,}".to_owned());
        normalizers.push(Replace::new(blanks, SPACE)?.into());
        tokenizer.with_normalizer(Some(Sequence::new(normalizers)))?;
        tokenizer.with_pre_tokenizer(Some(Metaspace::new(SPACE, self.prepend_scheme, true)));
        tokenizer.with_decoder(Some(Metaspace::new(SPACE, self.prepend_scheme, true)));
        let end = tokenizer.token_to_id(END).ok_or("there is no piece </s>")?;
        let ends = TemplateProcessing::builder()
            .try_single(format!("$A {END}"))?
            .try_pair(format!("$A {END} $B {END}"))?
            .special_tokens(vec![(END, end)])
            .build()?;
        tokenizer.with_post_processor(Some(ends));
        Ok(tokenizer)
    }
}

fn extra_id(i: usize) -> String {
    format!("<extra_id_{i}>")
}
