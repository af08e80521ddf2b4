use std::error::Error;

use proptest::prelude::{any, prop, proptest};
use prost::Message;

use super::{PieceKind, SentencePieceModel};
use crate::tokenizer::sentencepiece::fault::SentencePieceFault;
use crate::tokenizer::sentencepiece::proto::{
    MAX_MODEL_BYTES, MAX_PIECES, ModelProto, SentencePiece,
};

/// A varint of 2^63.
const HUGE: [u8; 10] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];

/// A model of one piece, the unknown one.
fn smallest() -> Vec<u8> {
    let unknown = SentencePiece { piece: "<unk>".into(), score: 0.0, kind: 2 };
    ModelProto { pieces: vec![unknown], ..ModelProto::default() }.encode_to_vec()
}

/// A protobuf message followed by another one is both of them, merged.
fn followed_by(bytes: &[u8]) -> Vec<u8> {
    [&smallest(), bytes].concat()
}

#[track_caller]
fn assert_refused(bytes: &[u8], text: &str) {
    let fault = SentencePieceModel::parse(bytes).unwrap_err();
    assert!(matches!(fault, SentencePieceFault::Message(_)), "{bytes:X?}: {fault:?}");
    assert!(fault.to_string().contains(text), "{bytes:X?}: {fault} does not name {text}");
    assert!(fault.source().is_none(), "the text has all of it");
}

#[test]
fn fields_and_their_defaults_are_those_of_the_definition() {
    let model = SentencePieceModel::parse(&followed_by(&[0x12, 0])).unwrap();
    assert_eq!((&*model.pieces[0].text, model.pieces[0].kind), ("<unk>", PieceKind::Unknown));
    assert_eq!((model.trainer.unk_id, &*model.trainer.unk_surface), (0, " \u{2047} "));
    let normalizer = &model.normalizer;
    assert!(normalizer.add_dummy_prefix && normalizer.escape_whitespaces);
    assert!(normalizer.remove_extra_whitespaces && !model.trainer.treat_whitespace_as_suffix);

    // A piece "ab" of score 1; unk_id 300; byte_fallback; unk_surface "?"; a denormalizer.
    let fields = [
        &[0x0A, 9, 0x0A, 2, b'a', b'b', 0x15, 0, 0, 0x80, 0x3F][..],
        &[0x12, 3, 0xC0, 2, 1, 0x12, 4, 0xC0, 2, 0xAC, 2, 0x12, 3, 0x98, 2, 1],
        &[0x12, 4, 0xE2, 2, 1, b'?', 0x1A, 2, 0x18, 0, 0x2A, 3, 0x12, 1, 7],
    ];
    let model = SentencePieceModel::parse(&followed_by(&fields.concat())).unwrap();
    let piece = &model.pieces[1];
    assert_eq!((&*piece.text, piece.kind), ("ab", PieceKind::Normal));
    assert!((piece.score - 1.0).abs() < f32::EPSILON);
    // Messages of one field are merged: the last value counts.
    assert_eq!((model.trainer.unk_id, &*model.trainer.unk_surface), (300, "?"));
    assert!(model.trainer.byte_fallback && !model.normalizer.add_dummy_prefix);
    assert_eq!(model.denormalizer.precompiled_charsmap, [7]);
}

#[test]
fn unknown_fields_are_skipped() {
    for bytes in [
        // self_test_data; a field of the trainer; extensions of all wire types, a group among them.
        &[0x22, 2, 0, 0][..],
        &[0x12, 2, 0x20, 9],
        &[0xC0, 0x0C, 1],
        &[0xC1, 0x0C, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xC2, 0x0C, 2, 9, 9],
        &[0xC3, 0x0C, 0x08, 1, 0xC4, 0x0C],
        &[0xC5, 0x0C, 0, 0, 0, 0],
    ] {
        let model = SentencePieceModel::parse(&followed_by(bytes)).unwrap();
        assert_eq!(model.pieces.len(), 1, "{bytes:X?}");
    }
}

#[test]
fn lengths_beyond_the_end_are_refused_before_they_are_allocated() {
    for field in [
        // A piece, its text, a trainer, the text of the unknown piece, character rules, an unknown field.
        &[0x0A][..],
        &[0x0A, 11, 0x0A],
        &[0x12],
        &[0x12, 12, 0xE2, 2],
        &[0x1A, 11, 0x12],
        &[0xC2, 0x0C],
    ] {
        for len in [&HUGE[..], &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], &[100]] {
            assert_refused(&followed_by(&[field, len].concat()), "");
        }
    }
    // The text of a piece is longer than the piece, though the file goes on.
    let piece = [&[0x0A, 4, 0x0A, 20][..], &[b'x'; 40]].concat();
    assert_refused(&followed_by(&piece), "");
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_ends_between_two_fields() {
    let fields = [0x12, 3, 0x18, 0x81, 0, 0x1A, 5, 0x12, 1, 0, 0x18, 1, 0x22, 1, 0];
    let whole = followed_by(&fields);
    let ends = [0, 5, 12, 15].map(|end| whole.len() - fields.len() + end);
    SentencePieceModel::parse(&whole).unwrap();
    for len in smallest().len()..whole.len() {
        let fault = SentencePieceModel::parse(&whole[..len]).err();
        assert_eq!(fault.is_none(), ends.contains(&len), "{len}: {fault:?}");
    }
    let fault = SentencePieceModel::parse(&[]).unwrap_err();
    assert!(matches!(fault, SentencePieceFault::UnknownPieces(0)), "{fault}");
}

#[test]
fn malformed_keys_varints_and_texts_are_refused() {
    for (bytes, text) in [
        // A varint that ends too late, or never; one of 65 bits.
        (
            &[0x12, 12, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0][..],
            "varint",
        ),
        (&[0x12, 3, 0x18, 0xFF, 0xFF], "varint"),
        (&[0x12, 11, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], "varint"),
        // Field 0; a key of more than 32 bits; the wire types 6 and 7.
        (&[0x00, 0x00], "tag value: 0"),
        (&[0x88, 0x80, 0x80, 0x80, 0x80, 0x01, 0], "key"),
        (&[0x0E], "wire type"),
        (&[0x0F], "wire type"),
        // Half a character in a piece, and in the text of the unknown piece.
        (&[0x0A, 3, 0x0A, 1, 0xC3], "SentencePiece.piece: ModelProto.pieces: invalid string"),
        (
            &[0x12, 4, 0xE2, 2, 1, 0xFF],
            "TrainerSpec.unk_surface: ModelProto.trainer_spec: invalid string",
        ),
    ] {
        assert_refused(&followed_by(bytes), text);
    }
}

#[test]
fn a_field_of_another_wire_type_is_named() {
    for (bytes, field) in [
        // Varints, fixed numbers and groups where messages, texts and numbers belong.
        (&[0x08, 1][..], "ModelProto.pieces"),
        (&[0x0B, 0x0C], "ModelProto.pieces"),
        (&[0x15, 0, 0, 0, 0], "ModelProto.trainer_spec"),
        (&[0x0A, 2, 0x08, 1], "SentencePiece.piece"),
        (&[0x0A, 2, 0x10, 1], "SentencePiece.score"),
        (&[0x0A, 2, 0x1A, 0], "SentencePiece.kind"),
        (&[0x0A, 2, 0x1B, 0x1C], "SentencePiece.kind"),
        (&[0x12, 5, 0x1D, 0, 0, 0, 0], "TrainerSpec.model_type"),
        (&[0x1A, 2, 0x10, 1], "NormalizerSpec.precompiled_charsmap"),
    ] {
        assert_refused(&followed_by(bytes), field);
    }
}

#[test]
fn groups_that_nest_too_deep_or_do_not_end_are_refused() {
    // Fields 200, unknown here: a group begins with C3 0C and ends with C4 0C.
    let (begin, end) = ([0xC3, 0x0C], [0xC4, 0x0C]);
    let nested = |depth| [begin.repeat(depth), end.repeat(depth)].concat();
    SentencePieceModel::parse(&followed_by(&nested(50))).unwrap();
    for depth in [101, 1_000_000] {
        assert_refused(&followed_by(&nested(depth)), "recursion limit");
    }
    assert_refused(&followed_by(&begin), "");
    assert_refused(&followed_by(&end), "end group");
    assert_refused(&followed_by(&[0xC3, 0x0C, 0xCC, 0x0C]), "end group");
}

#[test]
fn messages_that_nest_deep_in_an_unknown_field_are_not_descended_into() {
    // The bytes of an unknown field are skipped, whatever they are.
    let mut nested = vec![];
    for _ in 0..40 {
        nested = [&[0xC2, 0x0C, u8::try_from(nested.len()).unwrap()][..], &nested].concat();
    }
    SentencePieceModel::parse(&followed_by(&nested)).unwrap();
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_decoded() {
    let fault = SentencePieceModel::parse(&vec![0; MAX_MODEL_BYTES + 1]).unwrap_err();
    assert!(matches!(fault, SentencePieceFault::TooLarge { .. }), "{fault}");
}

#[test]
fn too_many_pieces_and_empty_ones_are_refused_before_they_are_decoded() {
    // Decoding would fail at the last byte, a piece without a length, and would report that.
    let ending_badly = |piece: &[u8], count| [&piece.repeat(count)[..], &[0x0A]].concat();
    for piece in [&[0x0A, 3, 0x0A, 1, b'x'][..], &[0x0A, 2, 0x0A, 0], &[0x0A, 1, 0]] {
        let bytes = ending_badly(piece, MAX_PIECES);
        let fault = SentencePieceModel::parse(&bytes).unwrap_err();
        assert_eq!(
            fault.to_string(),
            format!(
                "a sentencepiece model has at most {MAX_PIECES} pieces, this file has {}",
                MAX_PIECES + 1
            )
        );
    }
    for empty in [&[0x0A, 0][..], &[0x0A, 0x80, 0x00]] {
        let bytes = ending_badly(empty, MAX_MODEL_BYTES / 4);
        let fault = SentencePieceModel::parse(&bytes).unwrap_err();
        assert_eq!(fault.to_string(), "piece 0 is empty");
        let fault = SentencePieceModel::parse(&followed_by(&bytes)).unwrap_err();
        assert_eq!(fault.to_string(), "piece 1 is empty");
    }
}

#[test]
fn as_many_pieces_as_are_allowed_are_decoded() {
    let rest = [0x0A, 3, 0x0A, 1, b'x'].repeat(MAX_PIECES - 1);
    assert_eq!(SentencePieceModel::parse(&followed_by(&rest)).unwrap().pieces.len(), MAX_PIECES);
}

proptest! {
    #[test]
    fn any_bytes_are_a_model_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = SentencePieceModel::parse(&bytes);
        let _ = SentencePieceModel::parse(&followed_by(&bytes));
    }
}
