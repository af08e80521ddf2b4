//! Models of sentencepiece: `spiece.model`, `source.spm`.
//!
//! [`SentencePieceModel`] is what such a file says. [`T5Files`] make the tokenizer of a T5 from it,
//! which is that of the `tokenizers` library, as transformers converts it; [`Segmenter`] splits texts
//! as the sentencepiece library itself does, which Marian's tokenizer calls.
//!
//! A file is a protobuf message (`sentencepiece_model.proto`). What is read of it are slices of its
//! bytes, so that no length it claims costs memory, and all that later code takes for granted is
//! checked here.

pub(crate) mod charsmap;
pub(crate) mod protobuf;
pub(crate) mod segmenter;
pub(crate) mod special_tokens;
pub(crate) mod t5;

use std::path::Path;

use crate::tokenizer::sentencepiece::charsmap::Charsmap;
use crate::tokenizer::sentencepiece::protobuf::{Field, Fields};
pub(crate) use crate::tokenizer::sentencepiece::segmenter::Segmenter;
pub(crate) use crate::tokenizer::sentencepiece::special_tokens::SpecialTokens;
pub(crate) use crate::tokenizer::sentencepiece::t5::T5Files;

use crate::checkpoint::load_error::LoadError;

/// What a piece has at most. Training makes pieces of 16 characters; the trie of the `tokenizers`
/// library is as deep as the longest one, and is taken down by recursion.
const MAX_PIECE_BYTES: usize = 1 << 10;

/// What stands for a space in pieces.
pub(crate) const SPACE: char = '\u{2581}';

/// Why a file is no model of sentencepiece that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it is no model of sentencepiece: its message is cut off or damaged")]
    Message,
    #[error("field {0} of its message is of another kind than sentencepiece writes")]
    FieldKind(u32),
    #[error("piece {index} {what}")]
    Piece { index: usize, what: &'static str },
    #[error("it has {0} unknown pieces, but must have one")]
    UnknownPieces(usize),
    #[error("the token for what is unknown is {unknown}, but there are {pieces} pieces")]
    UnknownOutside { unknown: i64, pieces: usize },
    #[error("its rules for characters (precompiled_charsmap) are damaged")]
    Charsmap,
}

impl Fault {
    /// With the file that has it.
    pub(crate) fn of(self, file: &Path) -> LoadError {
        LoadError::Tokenizer { file: file.to_owned(), source: Box::new(self) }
    }
}

/// How pieces are found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Unigram,
    Bpe,
    Word,
    Char,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Normal,
    /// Stands for what no piece is there for.
    Unknown,
    /// Such as `</s>`: in no text.
    Control,
    /// Found in a text before anything else is.
    UserDefined,
    Unused,
    /// One of 256, for characters that no piece is there for.
    Byte,
}

#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    /// The logarithm of its probability.
    score: f32,
    kind: PieceKind,
}

/// What happens to a text before it is split: `NormalizerSpec`.
#[derive(Debug, Clone, Copy)]
struct NormalizerSpec<'a> {
    /// Which characters become which others; empty for none.
    charsmap: &'a [u8],
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

/// What a file says.
#[derive(Debug)]
pub(crate) struct SentencePieceModel<'a> {
    algorithm: Algorithm,
    pieces: Vec<Piece<'a>>,
    /// `trainer_spec.unk_id`, which need not be the number of the unknown piece.
    unknown: i64,
    /// What the unknown piece is decoded to.
    unknown_surface: &'a str,
    byte_fallback: bool,
    /// The space goes behind a word rather than in front of it.
    whitespace_as_suffix: bool,
    normalizer: NormalizerSpec<'a>,
    /// Rules by which decoded text is changed; empty for none.
    denormalizer: &'a [u8],
}

impl<'a> SentencePieceModel<'a> {
    /// Reads the bytes of a file.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut model = Self {
            algorithm: Algorithm::Unigram,
            pieces: Vec::new(),
            unknown: 0,
            unknown_surface: " \u{2047} ",
            byte_fallback: false,
            whitespace_as_suffix: false,
            normalizer: NormalizerSpec {
                charsmap: &[],
                add_dummy_prefix: true,
                remove_extra_whitespaces: true,
                escape_whitespaces: true,
            },
            denormalizer: &[],
        };
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => {
                    let piece = Piece::parse(field.bytes()?, model.pieces.len())?;
                    model.pieces.push(piece);
                }
                2 => model.read_trainer(field.bytes()?)?,
                3 => model.normalizer.read(field.bytes()?)?,
                5 => model.read_denormalizer(field.bytes()?)?,
                _ => {}
            }
        }
        match model.pieces.iter().filter(|piece| piece.kind == PieceKind::Unknown).count() {
            1 => Ok(model),
            count => Err(Fault::UnknownPieces(count)),
        }
    }

    fn read_trainer(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                3 => {
                    self.algorithm = match field.varint()? {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => Algorithm::Word,
                        4 => Algorithm::Char,
                        _ => return Err(Fault::FieldKind(3)),
                    };
                }
                24 => self.whitespace_as_suffix = field.varint()? != 0,
                35 => self.byte_fallback = field.varint()? != 0,
                40 => self.unknown = field.varint()?.cast_signed(),
                44 => self.unknown_surface = field.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_denormalizer(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        for field in Fields::of(bytes) {
            let field = field?;
            if field.number == 2 {
                self.denormalizer = field.bytes()?;
            }
        }
        Ok(())
    }

    /// The only algorithm that is done here is unigram.
    fn check_algorithm(&self, file: &Path) -> Result<(), LoadError> {
        let found = match self.algorithm {
            Algorithm::Unigram => return Ok(()),
            Algorithm::Bpe => "BPE",
            Algorithm::Word => "WORD",
            Algorithm::Char => "CHAR",
        };
        Err(unsupported(file, "the sentencepiece model type", found, "UNIGRAM"))
    }

    fn charsmap(&self) -> Result<Option<Charsmap>, Fault> {
        match self.normalizer.charsmap {
            [] => Ok(None),
            bytes => Charsmap::parse(bytes).map(Some).ok_or(Fault::Charsmap),
        }
    }

    /// How pieces become text again, where that is more than to put them together: those that are
    /// left out, and the unknown one with what stands for it.
    pub(crate) fn decoded(
        &self,
        file: &Path,
    ) -> Result<impl Iterator<Item = (&'a str, &'a str)>, LoadError> {
        if self.byte_fallback {
            return Err(unsupported(file, "the setting byte_fallback", "true", "false"));
        }
        if !self.denormalizer.is_empty() {
            return Err(unsupported(file, "the part", "denormalizer_spec", "normalizer_spec"));
        }
        let unknown = self.unknown_surface;
        Ok(self.pieces.iter().filter_map(move |piece| match piece.kind {
            PieceKind::Control => Some((piece.text, "")),
            PieceKind::Unknown => Some((piece.text, unknown)),
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused | PieceKind::Byte => {
                None
            }
        }))
    }
}

fn unsupported(file: &Path, what: &'static str, found: &str, supported: &'static str) -> LoadError {
    LoadError::Unsupported { file: file.to_owned(), what, found: found.to_owned(), supported }
}

impl<'a> Piece<'a> {
    fn parse(bytes: &'a [u8], index: usize) -> Result<Self, Fault> {
        let fault = |what| Fault::Piece { index, what };
        let mut piece = Self { text: "", score: 0.0, kind: PieceKind::Normal };
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => piece.text = field.text().map_err(|_| fault("is no text"))?,
                2 => piece.score = field.float()?,
                3 => {
                    piece.kind = match field.varint()? {
                        1 => PieceKind::Normal,
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        5 => PieceKind::Unused,
                        6 => PieceKind::Byte,
                        _ => return Err(fault("is of no known kind")),
                    };
                }
                _ => {}
            }
        }
        match piece.text.len() {
            0 => Err(fault("is empty")),
            len if len > MAX_PIECE_BYTES => Err(fault("is longer than any that training makes")),
            _ if !piece.score.is_finite() => Err(fault("has a score that is no number")),
            _ => Ok(piece),
        }
    }
}

impl<'a> NormalizerSpec<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        for field in Fields::of(bytes) {
            let field: Field<'a> = field?;
            match field.number {
                2 => self.charsmap = field.bytes()?,
                3 => self.add_dummy_prefix = field.varint()? != 0,
                4 => self.remove_extra_whitespaces = field.varint()? != 0,
                5 => self.escape_whitespaces = field.varint()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}
