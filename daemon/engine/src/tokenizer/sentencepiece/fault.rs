//! Why a sentencepiece model cannot be used.

use std::path::Path;

use crate::checkpoint::load_error::LoadError;

/// Why a file is not a sentencepiece model that can be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::tokenizer) enum SentencePieceFault {
    /// The file is too large to be decoded.
    #[error("a sentencepiece model has at most {most} bytes, this file has {found}")]
    TooLarge {
        /// Bytes of the file.
        found: usize,
        /// The largest size that is decoded.
        most: usize,
    },
    /// The file has too many pieces to be decoded.
    #[error("a sentencepiece model has at most {most} pieces, this file has {found}")]
    TooManyPieces {
        /// Pieces of the file.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The bytes are not the protobuf message of a model. The text names the field at fault.
    #[error("not a sentencepiece model: {0}")]
    Message(prost::DecodeError),
    /// `trainer_spec.model_type` is not a value of its enumeration.
    #[error("unknown model_type {0} in its trainer_spec")]
    ModelType(i32),
    /// A piece has a value that training never produces.
    #[error("piece {index} {problem}")]
    Piece {
        /// The id of the piece.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A model has exactly one piece for unknown text.
    #[error("it has {0} unknown pieces instead of one")]
    UnknownPieces(usize),
    /// `trainer_spec.unk_id` is not the id of a piece.
    #[error("the id of the unknown token is {id}, but there are {pieces} pieces")]
    UnknownId {
        /// `unk_id`.
        id: i32,
        /// Pieces of the model.
        pieces: usize,
    },
    /// The compiled character rules would lead out of bounds.
    #[error("its character rules (precompiled_charsmap) are damaged")]
    Charsmap,
}

impl SentencePieceFault {
    /// The error for a file with this fault.
    pub(in crate::tokenizer) fn in_file(self, file: &Path) -> LoadError {
        LoadError::Tokenizer { file: file.to_owned(), source: Box::new(self) }
    }
}
