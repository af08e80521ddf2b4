//! Messages: round trips, and bodies with false lengths.
//!
//! # The bound on memory
//! Decoding a body of `n` bytes never holds more than `12 n + 8192` bytes at a time. The constant
//! is the first four elements of each list and an error's text. The factor comes from the element that
//! takes the most memory for its bytes: a model in the list of models is 104 bytes in memory and may be
//! 30 on the wire (3.5), and a list that doubles has its old and its new buffer for a moment (3 × its
//! content). What matters is that the bound does not depend on the lengths that a sender *claims*.

use crate::allocation::peak_bytes;
use crate::arbitrary;
use crate::message::Message;
use crate::reference::Mark;
use crate::samples;
use emberd_protocol::{
    CodecError, Frame, FrameKind, Free, Hello, MAX_BODY_BYTES, ModelId, Request, Response,
};
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeMap;

fn bound(len: usize) -> usize {
    12 * len + 8192
}

/// Decodes, and checks what holds for all bytes: no panic (or this never returns), memory within the
/// bound, and a message has only one encoding.
fn decode_whatever_it_is(kind: FrameKind, body: Vec<u8>) -> Result<Message, CodecError> {
    let frame = Frame { kind, descriptors: 0, id: 1, body, tail: Vec::new() };
    let (result, peak) = peak_bytes(|| Message::decode(&frame));
    let len = frame.body.len();
    assert!(peak <= bound(len), "{peak} bytes for a body of {len} as {kind:?}: {result:?}");
    if let Ok(message) = &result
        && kind != FrameKind::Cancel
    {
        assert_eq!(message.frame(1).body, frame.body, "another encoding of {message:?}");
    }
    result
}

fn overwrite(body: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body[at..at + bytes.len()].copy_from_slice(bytes);
    body
}

proptest! {
    #[test]
    fn any_message_comes_back_as_it_was(message in arbitrary::message(), id: u64) {
        let frame = message.frame(id);
        let mut decoder = emberd_protocol::Decoder::default();
        decoder.feed(&frame.to_bytes());
        let arrived = decoder.next().unwrap().unwrap();
        prop_assert_eq!(&arrived, &frame);
        prop_assert_eq!(decode_whatever_it_is(arrived.kind, arrived.body).unwrap(), message);
    }

    #[test]
    fn any_message_is_encoded_as_the_document_says(message in arbitrary::message()) {
        prop_assert_eq!(message.reference().bytes, message.frame(0).body);
    }

    #[test]
    fn lengths_tags_and_positions_that_lie_are_refused(message in arbitrary::message()) {
        lie_everywhere(&message);
    }

    #[test]
    fn random_bodies_never_panic_and_stay_within_the_bound(
        kind in kinds(),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            // Mostly zeros, as real bodies are: these get further.
            prop::collection::vec(prop_oneof![9 => 0..3u8, 1 => any::<u8>()], 0..300),
        ],
    ) {
        let _ = decode_whatever_it_is(kind, body);
    }

    #[test]
    fn mutated_bodies_never_panic_and_stay_within_the_bound(
        message in arbitrary::message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        splice in any::<bool>(),
    ) {
        let mut body = message.frame(0).body;
        if body.is_empty() {
            return Ok(());
        }
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if splice {
            let (from, len) = (cut.index(body.len()), body.len());
            body.extend_from_within(from..len);
        }
        let _ = decode_whatever_it_is(message.kind(), body);
    }
}

fn kinds() -> impl Strategy<Value = FrameKind> {
    prop::sample::select(samples::all().iter().map(|s| s.frame.kind).collect::<Vec<_>>())
}

/// Puts a lie into each place of a message that can lie, and tells how many of each there are.
fn lie_everywhere(message: &Message) -> BTreeMap<Mark, usize> {
    let reference = message.reference();
    let mut counts = BTreeMap::new();
    for (at, mark) in reference.marks {
        *counts.entry(mark).or_default() += 1;
        let lies: Vec<Vec<u8>> = match mark {
            Mark::StringLength | Mark::ListLength => {
                let lengths = [
                    1 << 16,
                    1 << 19,
                    1 << 20,
                    1 << 31,
                    1 << 32,
                    (1 << 40) + 1,
                    1 << 62,
                    1 << 63,
                    !0,
                ];
                lengths.iter().map(|len: &u64| len.to_le_bytes().to_vec()).collect()
            }
            Mark::OptionTag | Mark::Bool => vec![vec![2], vec![255]],
            // One behind the last of the longest enum, and far ones.
            Mark::Variant => [17, 1 << 31, !0].map(|at: u32| at.to_le_bytes().to_vec()).into(),
            Mark::Code => [0, 14, !0].map(|code: u16| code.to_le_bytes().to_vec()).into(),
        };
        for lie in lies {
            let body = overwrite(&reference.bytes, at, &lie);
            let result = decode_whatever_it_is(message.kind(), body);
            assert!(
                matches!(result, Err(CodecError::Malformed(_))),
                "{lie:?} as {mark:?} at {at} of {message:?}: {result:?}"
            );
        }
    }
    counts
}

#[test]
fn a_claim_of_two_to_the_62_in_any_string_or_list_of_any_message_is_refused() {
    let mut counts = BTreeMap::new();
    for sample in samples::all() {
        for (mark, count) in lie_everywhere(&sample.message) {
            *counts.entry(mark).or_insert(0) += count;
        }
    }
    // Counted by hand in `samples.rs`: no place was overlooked.
    let wanted = [
        (Mark::StringLength, 127),
        (Mark::ListLength, 61),
        (Mark::OptionTag, 107),
        (Mark::Bool, 27),
        (Mark::Variant, 156),
        (Mark::Code, 1),
    ];
    assert_eq!(counts, wanted.into());
}

#[test]
fn every_change_of_a_single_byte_of_a_message_is_survived() {
    for sample in samples::all() {
        for at in 0..sample.frame.body.len() {
            for byte in 0..=u8::MAX {
                let body = overwrite(&sample.frame.body, at, &[byte]);
                let _ = decode_whatever_it_is(sample.frame.kind, body);
            }
        }
    }
}

#[test]
fn a_body_that_is_cut_or_too_long_is_refused() {
    for sample in samples::all().iter().filter(|sample| sample.frame.kind != FrameKind::Cancel) {
        let (kind, body) = (sample.frame.kind, &sample.frame.body);
        for len in 0..body.len() {
            let result = decode_whatever_it_is(kind, body[..len].to_vec());
            assert!(
                matches!(result, Err(CodecError::Malformed(_))),
                "{} cut at {len}: {result:?}",
                sample.name
            );
        }
        for extra in [1, 7, 4096] {
            let body = [&body[..], &vec![0; extra]].concat();
            let result = decode_whatever_it_is(kind, body);
            assert!(
                matches!(result, Err(CodecError::TrailingBytes { len_bytes }) if len_bytes == extra),
                "{} and {extra} bytes: {result:?}",
                sample.name
            );
        }
    }
}

#[test]
fn strings_must_be_utf_8_and_model_ids_keep_their_rules() {
    for sample in samples::all() {
        let reference = sample.message.reference();
        for (at, _) in reference.marks.iter().filter(|(_, mark)| *mark == Mark::StringLength) {
            let len = u64::from_le_bytes(reference.bytes[*at..at + 8].try_into().unwrap());
            if len > 0 {
                let body = overwrite(&reference.bytes, at + 8, &[0xFF]);
                let result = decode_whatever_it_is(sample.frame.kind, body);
                assert!(matches!(result, Err(CodecError::Malformed(_))), "{}", sample.name);
            }
        }
    }
    for id in ["", " ", "a/b", "ü", &"x".repeat(129)] {
        let mut body = 5u32.to_le_bytes().to_vec(); // ModelConfig
        body.extend((id.len() as u64).to_le_bytes());
        body.extend(id.as_bytes());
        let result = decode_whatever_it_is(FrameKind::Request, body);
        assert!(matches!(result, Err(CodecError::Malformed(_))), "{id:?}: {result:?}");
    }
}

#[test]
fn the_longest_message_goes_through_and_one_byte_more_does_not() {
    let name = |len| Hello { name: "x".repeat(len), accepts_segments: true };
    let longest = MAX_BODY_BYTES - 9;
    let frame = Frame::message(FrameKind::Hello, 0, &name(longest)).unwrap();
    assert_eq!(frame.body.len(), MAX_BODY_BYTES);
    assert_eq!(frame.decode::<Hello>().unwrap(), name(longest));

    let error = Frame::message(FrameKind::Hello, 0, &name(longest + 1)).unwrap_err();
    assert!(matches!(error, CodecError::TooLarge { len_bytes } if len_bytes == MAX_BODY_BYTES + 1));
    let mut frame = frame;
    frame.body.push(0);
    let error = frame.decode::<Hello>().unwrap_err();
    assert!(matches!(error, CodecError::TooLarge { len_bytes } if len_bytes == MAX_BODY_BYTES + 1));
}

/// The costliest bodies there are: as many of the smallest elements as go in.
#[test]
fn the_largest_lists_of_the_smallest_elements_stay_within_the_bound() {
    let full = |variant: u32, element: &[u8]| {
        let count = (MAX_BODY_BYTES - 12) / element.len();
        let mut body = variant.to_le_bytes().to_vec();
        body.extend((count as u64).to_le_bytes());
        body.extend(element.repeat(count));
        (body, count)
    };
    let (body, count) = full(6, &[0; 16]);
    match decode_whatever_it_is(FrameKind::Response, body).unwrap() {
        Message::Response(Response::ModelConfig(pairs)) => assert_eq!(pairs.len(), count),
        other => panic!("{other:?}"),
    }
    let summary = [&1u64.to_le_bytes()[..], b"m", &[0; 21]].concat();
    let (body, count) = full(5, &summary);
    match decode_whatever_it_is(FrameKind::Response, body).unwrap() {
        Message::Response(Response::AvailableModels(models)) => assert_eq!(models.len(), count),
        other => panic!("{other:?}"),
    }
    // Two lists of one in each element of a third.
    let nothing = [0; 8];
    let decision = [
        &1u64.to_le_bytes()[..],
        b"m",
        &[0; 20],
        &1u64.to_le_bytes(),
        &1u64.to_le_bytes(),
        b"m",
        &1u64.to_le_bytes(),
        &nothing,
        &nothing,
    ]
    .concat();
    let (body, count) = full(12, &decision);
    match decode_whatever_it_is(FrameKind::Response, body).unwrap() {
        Message::Response(Response::Decisions(decisions)) => assert_eq!(decisions.len(), count),
        other => panic!("{other:?}"),
    }
    // A list in each element, empty or of one.
    let filled = |masks: u64, mask: &[u8]| [&masks.to_le_bytes()[..], mask, &[0]].concat();
    for text in [filled(0, &[]), filled(1, &[0; 12])] {
        let count = (MAX_BODY_BYTES - 20) / text.len();
        let body =
            [&15u32.to_le_bytes()[..], &(count as u64).to_le_bytes(), &text.repeat(count), &[0; 8]]
                .concat();
        match decode_whatever_it_is(FrameKind::Response, body).unwrap() {
            Message::Response(Response::MasksFilled(filled)) => {
                assert_eq!(filled.texts.len(), count);
            }
            other => panic!("{other:?}"),
        }
    }
    // One sequence of one token in each.
    let sequence = [&[0; 8][..], &1u64.to_le_bytes(), &[0; 4], &[0; 5]].concat();
    let generated = [&1u64.to_le_bytes()[..], &sequence, &[0; 5]].concat();
    let (body, count) = full(14, &generated);
    match decode_whatever_it_is(FrameKind::Response, body).unwrap() {
        Message::Response(Response::Generated(generated)) => {
            assert_eq!(generated.texts.len(), count);
        }
        other => panic!("{other:?}"),
    }
    let (body, count) = full(0, &[0; 28]);
    match decode_whatever_it_is(FrameKind::Free, body[4..].to_vec()).unwrap() {
        Message::Free(Free { slots }) => assert_eq!(slots.len(), count),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_of_another_kind_is_not_mistaken() {
    let request = Request::ModelConfig { model: ModelId::new("embedding").unwrap() };
    let frame = Frame::message(FrameKind::Request, 1, &request).unwrap();
    assert!(frame.decode::<Hello>().is_err());
    assert!(frame.decode::<Free>().is_err());
}
