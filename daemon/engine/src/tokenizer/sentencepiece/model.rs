//! The checked content of a sentencepiece model.

use std::path::Path;

use prost::Message;

use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::sentencepiece::charsmap::Charsmap;
use crate::tokenizer::sentencepiece::fault::SentencePieceFault;
use crate::tokenizer::sentencepiece::proto::{
    MAX_MODEL_BYTES, ModelProto, NormalizerSpec, SentencePiece, TrainerSpec, check_pieces,
};

/// Stands for a space in pieces.
pub(in crate::tokenizer) const SPACE: char = '\u{2581}';

/// The content of a model file. All that later code relies on is checked.
#[derive(Debug)]
pub(in crate::tokenizer) struct SentencePieceModel {
    /// By their ids.
    pub(super) pieces: Vec<Piece>,
    pub(super) trainer: TrainerSpec,
    pub(super) normalizer: NormalizerSpec,
    /// Changes decoded text.
    denormalizer: NormalizerSpec,
    model_type: ModelType,
}

/// A piece that was checked.
#[derive(Debug)]
pub(super) struct Piece {
    /// Not empty, and not longer than [`MAX_PIECE_BYTES`].
    pub(super) text: String,
    /// The logarithm of its probability; finite.
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// What a piece stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    /// Stands for text without a piece.
    Unknown,
    /// Such as `</s>`: never found in a text.
    Control,
    /// Found in a text before all other pieces.
    UserDefined,
    Unused,
    /// One of 256, for characters without a piece.
    Byte,
}

impl SentencePieceModel {
    /// Decodes and checks the bytes of a file.
    pub(in crate::tokenizer) fn parse(bytes: &[u8]) -> Result<Self, SentencePieceFault> {
        if bytes.len() > MAX_MODEL_BYTES {
            let (found, most) = (bytes.len(), MAX_MODEL_BYTES);
            return Err(SentencePieceFault::TooLarge { found, most });
        }
        check_pieces(bytes)?;
        let proto = ModelProto::decode(bytes).map_err(SentencePieceFault::Message)?;
        let pieces = proto.pieces.into_iter().enumerate();
        let pieces = pieces.map(|(index, piece)| Piece::check(index, piece));
        let pieces: Vec<Piece> = pieces.collect::<Result<_, _>>()?;
        match pieces.iter().filter(|piece| piece.kind == PieceKind::Unknown).count() {
            1 => {}
            count => return Err(SentencePieceFault::UnknownPieces(count)),
        }
        Ok(Self {
            pieces,
            model_type: ModelType::check(proto.trainer_spec.model_type)?,
            trainer: proto.trainer_spec,
            normalizer: proto.normalizer_spec,
            denormalizer: proto.denormalizer_spec,
        })
    }

    /// Refuses models other than unigram models. `file` is for messages.
    pub(super) fn require_unigram(&self, file: &Path) -> Result<(), LoadError> {
        let found = match self.model_type {
            ModelType::Unigram => return Ok(()),
            ModelType::Bpe => "BPE",
            ModelType::Word => "WORD",
            ModelType::Char => "CHAR",
        };
        Err(unsupported(file, "the sentencepiece model type", found, "UNIGRAM"))
    }

    /// Refuses models that split characters into bytes. `file` is for messages.
    pub(super) fn require_no_byte_fallback(&self, file: &Path) -> Result<(), LoadError> {
        match self.trainer.byte_fallback {
            true => Err(unsupported(file, "the setting byte_fallback", "true", "false")),
            false => Ok(()),
        }
    }

    /// The character rules, if the model has any.
    pub(super) fn charsmap(&self) -> Result<Option<Charsmap>, SentencePieceFault> {
        match &*self.normalizer.precompiled_charsmap {
            [] => Ok(None),
            bytes => Charsmap::parse(bytes).map(Some).ok_or(SentencePieceFault::Charsmap),
        }
    }

    /// The pieces whose decoded text differs from their own, with that text: control pieces are left
    /// out, and the unknown piece has a text of its own.
    ///
    /// # Errors
    /// If the model decodes by rules that are not supported. `file` is for messages.
    pub(in crate::tokenizer) fn decoded(
        &self,
        file: &Path,
    ) -> Result<impl Iterator<Item = (&str, &str)>, LoadError> {
        self.require_no_byte_fallback(file)?;
        if !self.denormalizer.precompiled_charsmap.is_empty() {
            return Err(unsupported(file, "the part", "denormalizer_spec", "normalizer_spec"));
        }
        Ok(self.pieces.iter().filter_map(|piece| match piece.kind {
            PieceKind::Control => Some((&*piece.text, "")),
            PieceKind::Unknown => Some((&*piece.text, &*self.trainer.unk_surface)),
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused | PieceKind::Byte => {
                None
            }
        }))
    }
}

impl Piece {
    fn check(index: usize, piece: SentencePiece) -> Result<Self, SentencePieceFault> {
        let SentencePiece { piece: text, score, kind } = piece;
        let fault = |problem| SentencePieceFault::Piece { index, problem };
        let kind = match kind {
            1 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return Err(fault("is of an unknown kind")),
        };
        match text.len() {
            0 => Err(fault("is empty")),
            len if len > MAX_PIECE_BYTES => Err(fault("is longer than any that training makes")),
            _ if !score.is_finite() => Err(fault("has a score that is not finite")),
            _ => Ok(Self { text, score, kind }),
        }
    }
}

/// The longest piece. Training makes pieces of up to 16 characters. The trie of the `tokenizers`
/// library is as deep as the longest piece, and is dropped by recursion.
const MAX_PIECE_BYTES: usize = 1 << 10;

/// How pieces are found in a text.
#[derive(Debug, Clone, Copy)]
enum ModelType {
    Unigram,
    Bpe,
    Word,
    Char,
}

impl ModelType {
    fn check(model_type: i32) -> Result<Self, SentencePieceFault> {
        match model_type {
            1 => Ok(Self::Unigram),
            2 => Ok(Self::Bpe),
            3 => Ok(Self::Word),
            4 => Ok(Self::Char),
            other => Err(SentencePieceFault::ModelType(other)),
        }
    }
}

fn unsupported(file: &Path, what: &'static str, found: &str, supported: &'static str) -> LoadError {
    LoadError::Unsupported { file: file.to_owned(), what, found: found.to_owned(), supported }
}

#[cfg(test)]
mod tests;
