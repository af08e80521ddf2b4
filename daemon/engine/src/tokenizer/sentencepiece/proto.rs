//! The protobuf messages of a sentencepiece model (`sentencepiece_model.proto`), with the fields that
//! are used here. Names, tags and defaults are those of the published definition.
//!
//! prost checks every length against the bytes that are left before it allocates, and stops at a
//! nesting of 100 messages. It does not bound what a small message becomes in memory, so callers limit
//! the size of the file ([`MAX_MODEL_BYTES`]) and count its pieces first ([`check_pieces`]).

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::tokenizer::sentencepiece::fault::SentencePieceFault;

/// The largest file that is decoded. The largest published model has 18 MB.
pub(super) const MAX_MODEL_BYTES: usize = 32 << 20;

/// The most pieces that are decoded. The largest published models have some 256,000. A piece may have
/// as little as two bytes in the file and has `size_of::<SentencePiece>()` in memory, up to three times
/// that while the list grows: 96 MiB for this many.
pub(super) const MAX_PIECES: usize = 1 << 20;

const _: () = assert!(size_of::<SentencePiece>() <= 32, "see MAX_PIECES");

/// A whole model file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) pieces: Vec<SentencePiece>,
    #[prost(message, required, tag = "2")]
    pub(super) trainer_spec: TrainerSpec,
    #[prost(message, required, tag = "3")]
    pub(super) normalizer_spec: NormalizerSpec,
    #[prost(message, required, tag = "5")]
    pub(super) denormalizer_spec: NormalizerSpec,
}

/// One piece; its index is its id.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SentencePiece {
    #[prost(string, required, tag = "1")]
    pub(super) piece: String,
    /// The logarithm of its probability.
    #[prost(float, required, tag = "2")]
    pub(super) score: f32,
    /// `Type` of the definition: normal (1), unknown, control, user-defined, unused, byte (6).
    #[prost(int32, required, tag = "3", default = "1")]
    pub(super) kind: i32,
}

/// How the model was trained.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TrainerSpec {
    /// `ModelType` of the definition: unigram (1), BPE, word, character (4).
    #[prost(int32, required, tag = "3", default = "1")]
    pub(super) model_type: i32,
    /// The space goes behind a word instead of in front of it.
    #[prost(bool, required, tag = "24")]
    pub(super) treat_whitespace_as_suffix: bool,
    /// Characters without a piece become pieces for their bytes.
    #[prost(bool, required, tag = "35")]
    pub(super) byte_fallback: bool,
    /// Need not be the id of the unknown piece.
    #[prost(int32, required, tag = "40")]
    pub(super) unk_id: i32,
    /// The text that the unknown piece is decoded to.
    #[prost(string, required, tag = "44", default = " \u{2047} ")]
    pub(super) unk_surface: String,
}

/// How a text is changed before it is split.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NormalizerSpec {
    /// Compiled rules that replace characters; empty for none.
    #[prost(bytes = "vec", required, tag = "2")]
    pub(super) precompiled_charsmap: Vec<u8>,
    #[prost(bool, required, tag = "3", default = "true")]
    pub(super) add_dummy_prefix: bool,
    #[prost(bool, required, tag = "4", default = "true")]
    pub(super) remove_extra_whitespaces: bool,
    #[prost(bool, required, tag = "5", default = "true")]
    pub(super) escape_whitespaces: bool,
}

/// Refuses too many pieces, and empty ones, before anything is decoded. Allocates nothing.
///
/// Bytes that are not a message end the scan without an error: decoding stops at the same place, and
/// names the field.
pub(super) fn check_pieces(mut bytes: &[u8]) -> Result<(), SentencePieceFault> {
    let mut pieces = 0;
    while !bytes.is_empty() {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else { break };
        if tag == 1 && wire_type == WireType::LengthDelimited {
            let mut ahead = bytes;
            if decode_varint(&mut ahead).is_ok_and(|len| len == 0) {
                return Err(SentencePieceFault::Piece { index: pieces, problem: "is empty" });
            }
            pieces += 1;
        }
        if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
    }
    match pieces > MAX_PIECES {
        true => Err(SentencePieceFault::TooManyPieces { found: pieces, most: MAX_PIECES }),
        false => Ok(()),
    }
}
